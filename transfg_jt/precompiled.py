"""The headers of Jittor's operators, compiled once for all of them.

Jittor 1.3.11 compiles an operator at its first use, on the CPU one after the other, and reading
its own headers takes three quarters of the time: about 0.25 s instead of 1 s without that, for each
of the hundreds of operators of a model. GCC takes the precompiled header only where it is as good
as the text, compiler and flags included, and reads the text otherwise; what it is made from is
compared here. No twin: PyTorch compiles nothing.

Source: "Using Precompiled Headers" in GCC's manual.
"""

import hashlib
import os
import shlex
import subprocess
from contextlib import suppress
from pathlib import Path

# What the sources of operators include most, after the macro that they begin with.
TEXT = """\
#define JIT 1
#include <algorithm>
#include <assert.h>
#include <atomic>
#include <cmath>
#include <limits>
#include <memory>
#include <stdexcept>
#include "var.h"
#include "executor.h"
#include "fused_op.h"
#include "misc/cpu_math.h"
#include "ops/array_op.h"
#include "ops/binary_op.h"
#include "ops/broadcast_to_op.h"
#include "ops/code_op.h"
#include "ops/op_register.h"
#include "ops/reduce_op.h"
#include "ops/unary_op.h"
"""
LINKING = ("-l", "-L", "-Wl,", "-shared")
DEBUG = "-g"  # Jittor's asm_tuner.py adds it to what it compiles


def compile_headers_once() -> None:
    """Tell Jittor, after its import, to compile operators with precompiled headers.

    Where that does not work (another compiler, a full disk, a kernel that forbids it), operators
    are compiled as before.
    """
    import jittor as jt
    import jittor_utils

    if jt.flags.use_cuda or jt.flags.cc_type != "g++":
        return
    flags = [x for x in shlex.split(jt.flags.cc_flags) if not x.startswith(LINKING)]
    command = [jt.flags.cc_path, *flags, DEBUG]
    digest = hashlib.sha256("\0".join([TEXT, *command]).encode())
    for path in sorted(Path(jt.flags.jittor_path, "src").rglob("*.h")):
        digest.update(path.read_bytes())
    header = Path(jittor_utils.cache_path, "precompiled", f"{digest.hexdigest()[:16]}.h")
    if header.with_suffix(".h.gch").is_file() or precompile(command, header):
        jt.flags.cc_flags = f' -include"{header}" {jt.flags.cc_flags}'


def precompile(command: list[str], header: Path) -> bool:
    """Compile the header; whether it could be done, and whether the compiler then takes it."""
    compiled = header.with_suffix(".h.gch")
    temporary = header.with_suffix(f".{os.getpid()}")
    try:
        header.parent.mkdir(exist_ok=True)
        temporary.write_text(TEXT)
        temporary.replace(header)
        run(*command, "-x", "c++-header", str(header), "-o", str(temporary))
        temporary.replace(compiled)
        probe = [f"-include{header}", "-Winvalid-pch", "-Werror", "-x", "c++", os.devnull]
        run(*command, *probe, "-S", "-o", os.devnull)
        return True
    except (OSError, subprocess.CalledProcessError):
        with suppress(OSError):
            compiled.unlink()
        return False
    finally:
        with suppress(OSError):
            temporary.unlink()


def run(*command: str) -> None:
    """Run the compiler, whose messages matter to no one.

    Raises:
        subprocess.CalledProcessError: it failed.
        OSError: it is not there.
    """
    subprocess.run(command, check=True, capture_output=True)
