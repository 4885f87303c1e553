"""The headers of Jittor's operators, compiled once for all of them.

Jittor 1.3.11 compiles an operator at its first use, on the CPU one after the other, and reading
its own headers takes three quarters of the time: about 0.25 s instead of 1 s without that, for each
of the hundreds of operators of a model. GCC itself reads the text where compiler or flags differ;
that the text is the same, and the file whole, is seen to here. No twin: PyTorch compiles nothing.

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
    command = compiler(jt.flags.cc_path, jt.flags.cc_flags)
    digest = hashlib.sha256("\0".join([TEXT, *command]).encode())
    for path in sorted(Path(jt.flags.jittor_path, "src").rglob("*.h")):
        digest.update(path.read_bytes())
    header = Path(jittor_utils.cache_path, "precompiled", f"{digest.hexdigest()[:16]}.h")
    if is_whole(header) or precompile(command, header):
        jt.flags.cc_flags = f' -include"{header}" {jt.flags.cc_flags}'


def compiler(path: str, flags: str) -> list[str]:
    """The command by which Jittor compiles an operator, without files and without linking."""
    return [path, *(x for x in shlex.split(flags) if not x.startswith(LINKING)), DEBUG]


def is_whole(header: Path) -> bool:
    """Whether it is compiled, and nothing of the file is missing: GCC would fail then."""
    try:
        expected = header.with_suffix(".size").read_text()
        return expected == str(header.with_suffix(".h.gch").stat().st_size)
    except OSError:
        return False


def precompile(command: list[str], header: Path) -> bool:
    """Compile the header; whether it could be done, and the compiler takes it."""
    mine = header.with_name(f"{header.stem}-{os.getpid()}.h")
    compiled, size = mine.with_suffix(".h.gch"), mine.with_suffix(".size")
    try:
        header.parent.mkdir(exist_ok=True)
        mine.write_text(TEXT)
        run(*command, "-x", "c++-header", str(mine), "-o", str(compiled))
        probe = [f"-include{mine}", "-Winvalid-pch", "-Werror", "-x", "c++", os.devnull]
        run(*command, *probe, "-S", "-o", os.devnull)
        with compiled.open("rb+") as file:
            os.fsync(file.fileno())
        size.write_text(str(compiled.stat().st_size))
        for made in (mine, compiled, size):
            made.replace(made.with_name(made.name.replace(mine.stem, header.stem, 1)))
        for other in header.parent.glob("*.gch"):  # of earlier flags, 90 MB each
            if not other.name.startswith(header.stem) and "-" not in other.name:
                other.unlink()
        return True
    except (OSError, subprocess.CalledProcessError):
        return False
    finally:
        for made in (mine, compiled, size):
            with suppress(OSError):
                made.unlink()


def run(*command: str) -> None:
    """Run the compiler, whose messages matter to no one.

    Raises:
        subprocess.CalledProcessError: it failed.
        OSError: it is not there.
    """
    subprocess.run(command, check=True, capture_output=True)
