"""Everything that Jittor needs around its import, in the order in which it is done.

Jittor 1.3.11 compiles itself at its first import and each new operator at its first use. It reads
its settings from the environment at import time. The functions here make that work from the
package index alone, without root. docs/jittor.md says what each setting works around.
"""

import importlib.metadata
import importlib.util
import os
import shlex
import shutil
import signal
import sys
import sysconfig
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transfg_core.errors import UserError
from transfg_core.machine import install_command
from transfg_jt.setup import cuda_home
from transfg_jt.setup.home import jittor_home

# These hold on every machine; what the user has set already wins.
ENVIRONMENT = {
    "use_mpi": "0",  # an mpicc on PATH would start a build of Jittor's MPI operators
    "use_nccl": "0",  # would download NCCL's sources
    "use_cutt": "0",  # would download cuTT
    "use_cutlass": "0",  # would download CUTLASS
    "FIX_TORCH_ERROR": "0",  # otherwise `import jittor` imports torch wherever it is installed
    "log_silent": "1",
    "gdb_path": "",  # no debugger is started when an operator fails
}


def check_python() -> None:
    """Refuse what Jittor 1.3.11 breaks on, before it breaks."""
    if sys.version_info >= (3, 13):
        raise UserError(
            "backend jittor: Jittor 1.3.11 does not start on Python 3.13 or later, found "
            f"{sys.version.split()[0]}; make the environment with Python 3.11 or 3.12"
        )
    if importlib.util.find_spec("jittor") is None:
        raise UserError(
            f"backend jittor: Jittor is not installed; run: {install_command('jittor')}"
        )
    numpy = importlib.metadata.version("numpy")
    if int(numpy.split(".")[0]) >= 2:
        raise UserError(
            f"backend jittor: Jittor 1.3.11 silently computes garbage under numpy 2, found numpy "
            f"{numpy}; run: pip install 'numpy<2'"
        )
    if shutil.which(os.environ.get("cc_path", "g++")) is None:
        raise UserError(
            "backend jittor: no C++ compiler (g++) on PATH, and Jittor compiles itself; "
            "run: apt-get install g++"
        )
    headers = Path(sysconfig.get_path("include"), "Python.h")
    if not headers.is_file():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise UserError(
            f"backend jittor: Python's headers are missing (no {headers}); "
            f"run: apt-get install python{version}-dev"
        )


def choose_device() -> None:
    """The first CUDA device, else the CPU; `nvcc_path` in the environment wins, empty for the CPU.

    An nvcc on PATH without a matching runtime makes Jittor's import fail, and a driver without
    nvcc makes it download CUDA, so it is never left to search. CPU and CUDA builds may not share
    a cache, so each has its own.
    """
    toolkit = None if "nvcc_path" in os.environ else find_cuda()
    cuda = toolkit is not None or bool(os.environ.get("nvcc_path"))
    os.environ.setdefault("cache_name", "transfg-cuda" if cuda else "transfg-cpu")
    os.environ["use_mkl"] = "0" if cuda else "1"  # oneDNN is what the CPU operators are built on
    if toolkit:
        flags = [os.environ.get("cc_flags", ""), cuda_home.flags(toolkit.version[0])]
        os.environ["cc_flags"] = " ".join(flag for flag in flags if flag)
        home = cuda_home.make_home(toolkit, jittor_home() / ".cache/jittor")
        os.environ["nvcc_path"] = str(home / "bin/nvcc")
    if cuda:
        os.environ.setdefault("conv_opt", "1")  # without cuDNN, cuFFT and cuSPARSE
        cuda_home.load_home(os.environ["nvcc_path"])
    os.environ.setdefault("nvcc_path", "")


def find_cuda() -> cuda_home.Toolkit | None:
    """What the first device needs; none without a device, or with the reason on standard error."""
    device = cuda_home.find_device()
    if device is None:
        return None
    try:
        toolkit = cuda_home.find_toolkit()
        cuda_home.refuse_unfit(device, toolkit)
        cuda_home.load(toolkit.libraries.values())
        return toolkit
    except (UserError, OSError) as error:
        print(
            f"backend jittor: there is a CUDA device, but Jittor runs on the CPU: {error}. "
            "nvcc_path= in the environment silences this.",
            file=sys.stderr,
        )
        return None


def write_python_config() -> Path:
    """A stand-in for python3-config that answers from the running interpreter.

    Jittor wants one beside the interpreter or in /usr/bin: a virtual environment has none, and
    the system's may belong to another Python.
    """
    path = jittor_home() / ".cache/jittor/transfg-python-config"
    paths = dict.fromkeys(sysconfig.get_path(key) for key in ("include", "platinclude"))
    answers = {
        "--includes": " ".join(f"-I{shlex.quote(include)}" for include in paths),
        "--extension-suffix": sysconfig.get_config_var("EXT_SUFFIX"),
    }
    cases = "\n".join(f"{flag}) echo {shlex.quote(text)};;" for flag, text in answers.items())
    script = f'#!/bin/sh\ncase "$1" in\n{cases}\n*) exit 1;;\nesac\n'
    if not path.is_file() or path.read_text(encoding="utf-8") != script:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        temporary.write_text(script, encoding="utf-8")
        temporary.chmod(0o755)
        temporary.replace(path)
    return path


def announce_build() -> None:
    """Say beforehand that the first import takes minutes."""
    import jittor_utils

    if not Path(
        jittor_utils.cache_path, "jittor_core" + sysconfig.get_config_var("EXT_SUFFIX")
    ).exists():
        print(
            f"Jittor compiles itself for this machine into {jittor_utils.cache_path}: "
            "some minutes, once.",
            file=sys.stderr,
        )


@contextmanager
def python_signal_handlers() -> Any:
    """Keep this process's signal handlers: Jittor's end it at once.

    Its SIGCHLD handler kills the parent of a child that a signal ended, and its SIGINT handler
    quits before a checkpoint can be saved. Python lets only its main thread put them back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
    handlers = {number: signal.getsignal(number) for number in signals}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


@contextmanager
def one_name_of_python() -> Any:
    """The interpreter by one name, bin/python3.11, whichever the program was started by.

    Jittor puts `sys.executable` into the command that compiles an operator, and compiles it again
    for another command: what `transfg` had compiled, `python -m` would not find.
    """
    before = Path(sys.executable)
    one = before.with_name(f"python3.{sys.version_info.minor}")
    try:
        if one.exists() and one.samefile(before):
            sys.executable = str(one)
        yield
    finally:
        sys.executable = str(before)


def import_jittor() -> None:
    """`import jittor`, restarting the program once if Jittor has rebuilt itself.

    After a change of compiler or flags Jittor asks to be run again and exits with status 0.
    """
    import jittor_utils

    try:
        with python_signal_handlers(), one_name_of_python():
            import jittor

            jittor.flags.use_cuda = int(bool(os.environ["nvcc_path"]))
    except SystemExit:
        if os.environ.get("TRANSFG_RESTARTED"):
            raise
        os.environ["TRANSFG_RESTARTED"] = "1"
        os.execv(sys.executable, sys.orig_argv)
    except (ImportError, OSError, RuntimeError, AssertionError, AttributeError) as error:
        cpu = (
            ", or use the CPU with nvcc_path= in the environment" if os.environ["nvcc_path"] else ""
        )
        raise UserError(
            f"backend jittor: Jittor does not import: {error}; remove its cache with "
            f"rm -r {shlex.quote(jittor_utils.cache_path)} and try again{cpu}"
        ) from error
