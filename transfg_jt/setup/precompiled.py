"""Precompiled headers for Jittor's operators.

Jittor 1.3.11 compiles each operator at its first use, and on the CPU most of that time goes to
reading its own headers. A model has hundreds of operators. If compiler or flags
differ, GCC ignores the precompiled file. This module checks the rest: that the header's text is the
same, and that the file is complete. No twin: PyTorch compiles nothing.

Source: "Using Precompiled Headers" in GCC's manual.
"""

import hashlib
import os
import shlex
import subprocess
from contextlib import suppress
from pathlib import Path

# The headers that most operators include, after the macro with which their sources begin.
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
DEBUG = "-g"  # Jittor's asm_tuner.py adds it to its commands


def compile_headers_once() -> None:
    """Make Jittor, after its import, compile operators with precompiled headers.

    If that does not work (another compiler, a full disk, a kernel that forbids it), Jittor compiles
    operators as before.
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
    """Jittor's command to compile an operator, without files and linker flags."""
    return [path, *(flag for flag in shlex.split(flags) if not flag.startswith(LINKING)), DEBUG]


def is_whole(header: Path) -> bool:
    """Whether the compiled header exists and is complete: GCC would fail on a truncated one."""
    try:
        expected = header.with_suffix(".size").read_text()
        return expected == str(header.with_suffix(".h.gch").stat().st_size)
    except OSError:
        return False


def precompile(command: list[str], header: Path) -> bool:
    """Compile the header; return whether this worked and the compiler uses the result."""
    temporary = header.with_name(f"{header.stem}-{os.getpid()}.h")
    compiled, size = temporary.with_suffix(".h.gch"), temporary.with_suffix(".size")
    try:
        header.parent.mkdir(exist_ok=True)
        temporary.write_text(TEXT)
        run(*command, "-x", "c++-header", str(temporary), "-o", str(compiled))
        probe = [f"-include{temporary}", "-Winvalid-pch", "-Werror", "-x", "c++", os.devnull]
        run(*command, *probe, "-S", "-o", os.devnull)
        with compiled.open("rb+") as file:
            os.fsync(file.fileno())
        size.write_text(str(compiled.stat().st_size))
        for path in (temporary, compiled, size):
            path.replace(path.with_name(path.name.replace(temporary.stem, header.stem, 1)))
        for path in header.parent.glob("*.gch"):  # headers for earlier flags: they are large
            if not path.name.startswith(header.stem) and "-" not in path.name:
                path.unlink()
        return True
    except (OSError, subprocess.CalledProcessError):
        return False
    finally:
        for path in (temporary, compiled, size):
            with suppress(OSError):
                path.unlink()


def run(*command: str) -> None:
    """Run the compiler and discard its output.

    Raises:
        subprocess.CalledProcessError: it failed.
        OSError: it does not exist.
    """
    subprocess.run(command, check=True, capture_output=True)
