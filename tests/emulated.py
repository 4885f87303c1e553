"""`transfg_jt.ops.cuda` on the host: g++ compiles the text that Jittor would compile for CUDA."""

import ctypes
import hashlib
import subprocess
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent / "cuda"
C_TYPES = {"float32": "float", "float64": "double", "bfloat16": "bfloat16", "int64": "int64_t"}
ARRAYS = {"float32": np.float32, "float64": np.float64, "bfloat16": np.uint16, "int64": np.int64}
FRAME = """
#include "cublas_wrapper.h"
#include <string>
{header}
namespace {{ struct Var {{ int64_t num; }}; }}
extern "C" const char* run(void** arrays, const int64_t* shapes) {{
    using namespace jittor;
    static std::string message;
    try {{
        {variables}
        {source}
    }} catch (const std::exception& error) {{
        message = error.what();
        return message.c_str();
    }}
    return nullptr;
}}
"""


def variables(names, shapes, types):
    """Declarations of Jittor's names for the arrays of an operator: pointers, sizes, types."""
    lines, place = [], 0
    for i, (name, shape, kind) in enumerate(zip(names, shapes, types, strict=True)):
        lines.append(f"using {name}_type [[maybe_unused]] = {C_TYPES[kind]};")
        lines.append(f"auto* {name}_p = ({C_TYPES[kind]}*)arrays[{i}];")
        lines.append(f"Var {name}_var{{{int(np.prod(shape))}}}, *{name} = &{name}_var;")
        for axis in range(len(shape)):
            lines.append(f"int32_t {name}_shape{axis} = shapes[{place + axis}];")
        place += len(shape)
    return "\n".join(lines)


class Emulator:
    """Replaces `ops.cuda.run_cuda`; compiles each text once, in `folder`."""

    def __init__(self, jt, header, folder):
        self.jt, self.header, self.folder, self.ran = jt, header, folder, []

    def library(self, text):
        name = self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.so"
        if not name.exists():
            source = name.with_suffix(".cpp")
            source.write_text(text, encoding="utf-8")
            command = ["g++", "-O1", "-std=c++20", "-w", "-shared", "-fPIC", f"-I{HERE}"]
            subprocess.run([*command, str(source), "-o", str(name)], check=True)
        library = ctypes.CDLL(str(name))
        library.run.restype = ctypes.c_char_p
        return library

    def __call__(self, source, shapes, types, inputs):
        arrays, types = [to_numpy(x) for x in inputs], [str(kind) for kind in types]
        outputs = [unwritten(shape, ARRAYS[t]) for shape, t in zip(shapes, types, strict=True)]
        names = [f"in{i}" for i in range(len(arrays))] + [f"out{i}" for i in range(len(outputs))]
        kinds = [str(x.dtype) for x in inputs] + types
        sizes = [list(x.shape) for x in inputs] + [list(shape) for shape in shapes]
        text = FRAME.format(
            header=self.header, variables=variables(names, sizes, kinds), source=source
        )
        arrays += outputs
        pointers = (ctypes.c_void_p * len(arrays))(*(x.ctypes.data for x in arrays))
        flat = [n for size in sizes for n in size]
        error = self.library(text).run(pointers, (ctypes.c_int64 * len(flat))(*flat))
        assert error is None, error
        self.ran.append(source)
        return [to_var(self.jt, x, kind) for x, kind in zip(outputs, types, strict=True)]


def unwritten(shape, dtype):
    """NaN everywhere, also in bfloat16, so that unwritten elements show; zeros for int64."""
    if dtype == np.int64:
        return np.zeros(shape, dtype)
    return np.full(shape, 0x7FC0 if dtype == np.uint16 else np.nan, dtype)


def to_numpy(x):
    """The values of a Var; bfloat16 as its bits."""
    if x.dtype != "bfloat16":
        return np.ascontiguousarray(x.numpy())
    return (np.ascontiguousarray(x.float32().numpy()).view(np.uint32) >> 16).astype(np.uint16)


def to_var(jt, array, kind):
    if kind == "float64":
        with jt.flag_scope(auto_convert_64_to_32=0):
            return jt.array(array)
    if kind != "bfloat16":
        return jt.array(array)
    return jt.array((array.astype(np.uint32) << 16).view(np.float32)).bfloat16()
