"""What Jittor needs before and after its import, in the order of the steps.

Jittor 1.3.11 compiles itself at its first import, and each new operator at its first use. It reads
its settings from the environment at import. The functions here make this work with packages from
the package index only, without root. docs/jittor.md says what each setting works around.
"""

import atexit
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

# Settings for every machine; the user's own settings take precedence.
ENVIRONMENT = {
    "use_mpi": "0",  # otherwise an mpicc on PATH starts a build of Jittor's MPI operators
    "use_nccl": "0",  # otherwise Jittor downloads NCCL's sources
    "use_cutt": "0",  # otherwise Jittor downloads cuTT
    "use_cutlass": "0",  # otherwise Jittor downloads CUTLASS
    "FIX_TORCH_ERROR": "0",  # otherwise `import jittor` imports torch if it is installed
    "log_silent": "1",
    "gdb_path": "",  # otherwise Jittor starts a debugger when an operator fails
}


def check_python() -> None:
    """Refuse an environment in which Jittor 1.3.11 does not work.

    Raises:
        UserError: something is missing or of the wrong version, with the command that mends it.
    """
    if sys.version_info >= (3, 13):
        raise UserError(
            "backend jittor: Jittor 1.3.11 does not start on Python 3.13 or later, found "
            f"{sys.version.split()[0]}; create the environment with Python 3.11 or 3.12"
        )
    if importlib.util.find_spec("jittor") is None:
        raise UserError(
            f"backend jittor: Jittor is not installed; run: {install_command('jittor')}"
        )
    numpy = importlib.metadata.version("numpy")
    if int(numpy.split(".")[0]) >= 2:
        raise UserError(
            "backend jittor: Jittor 1.3.11 silently computes wrong numbers with numpy 2, found "
            f"numpy {numpy}; run: pip install 'numpy<2'"
        )
    if shutil.which(os.environ.get("cc_path", "g++")) is None:
        raise UserError(
            "backend jittor: Jittor compiles itself, but there is no C++ compiler (g++) on PATH; "
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
    """Set the environment for the first CUDA device, else for the CPU.

    `nvcc_path` in the environment takes precedence; empty, it selects the CPU. Jittor never
    searches for CUDA itself: with an nvcc on PATH but no matching runtime its import fails, and
    with a driver but no nvcc it downloads CUDA. CPU and CUDA builds cannot share a cache, so each
    has its own.
    """
    toolkit = None if "nvcc_path" in os.environ else find_cuda()
    cuda = toolkit is not None or bool(os.environ.get("nvcc_path"))
    # "-2" because the flags have changed since version 0.2: in one cache, two versions of this
    # project would compile everything again in turns
    if not os.environ.get("cache_name"):
        os.environ["cache_name"] = "transfg-cuda-2" if cuda else "transfg-cpu-2"
    os.environ["use_mkl"] = "0" if cuda else "1"  # the CPU operators use oneDNN
    if toolkit:
        add_compiler_flags(cuda_home.flags(toolkit.version[0]))
        home = cuda_home.make_home(toolkit, jittor_home() / ".cache/jittor")
        os.environ["nvcc_path"] = str(home / "bin/nvcc")
    if cuda:
        os.environ.setdefault("conv_opt", "1")  # without cuDNN, cuFFT and cuSPARSE
        cuda_home.load_home(os.environ["nvcc_path"])
    os.environ.setdefault("nvcc_path", "")


def add_compiler_flags(flags: str) -> None:
    """Let Jittor compile with these flags; child processes inherit them, and add them no more."""
    given = os.environ.get("cc_flags", "")
    if flags not in given:
        os.environ["cc_flags"] = f"{given} {flags}".strip()


def find_cuda() -> cuda_home.Toolkit | None:
    """The toolkit for the first CUDA device.

    None if there is no device, or if its toolkit does not work; standard error then says why.
    """
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
            f"backend jittor: found a CUDA device, but Jittor runs on the CPU: {error}. To stop "
            "this message, set nvcc_path= in the environment.",
            file=sys.stderr,
        )
        return None


def write_python_config() -> Path:
    """Write a replacement for python3-config that describes the running interpreter.

    Jittor looks for one next to the interpreter or in /usr/bin. A virtual environment has none, and
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
    """If Jittor is not compiled yet, say before its import that this takes minutes."""
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
    """Keep this process's signal handlers, because Jittor's end the process at once.

    Jittor's SIGCHLD handler ends the process when a signal ended one of its children. Its SIGINT
    handler exits before a checkpoint can be saved. Only Python's main thread can restore handlers.
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
def canonical_interpreter() -> Any:
    """Set `sys.executable` to one canonical name, bin/python3.11 (or 3.12).

    Jittor puts `sys.executable` into the command that compiles an operator, and compiles the
    operator again if the command differs. So `python -m` shares the operators of `transfg`.
    """
    original = Path(sys.executable)
    canonical = original.with_name(f"python3.{sys.version_info.minor}")
    try:
        if canonical.exists() and canonical.samefile(original):
            sys.executable = str(canonical)
        yield
    finally:
        sys.executable = str(original)


def import_jittor() -> None:
    """Import Jittor; restart the program once if Jittor has rebuilt itself.

    After a change of compiler or flags Jittor asks the user to run it again, and exits with 0.

    Raises:
        UserError: Jittor does not import.
    """
    import jittor_utils

    try:
        with python_signal_handlers(), canonical_interpreter():
            import jittor

            jittor.flags.use_cuda = int(bool(os.environ["nvcc_path"]))
    except SystemExit:
        if os.environ.get("TRANSFG_RESTARTED"):
            raise
        os.environ["TRANSFG_RESTARTED"] = "1"
        end_compiling_processes()
        os.execv(sys.executable, sys.orig_argv)
    except (ImportError, OSError, RuntimeError, AssertionError, AttributeError) as error:
        cpu = (
            ", or set nvcc_path= in the environment to use the CPU"
            if os.environ["nvcc_path"]
            else ""
        )
        raise UserError(
            f"backend jittor: Jittor does not import: {error}; remove its cache with "
            f"rm -r {shlex.quote(jittor_utils.cache_path)} and try again{cpu}"
        ) from error
    finally:
        end_compiling_processes()


def end_compiling_processes() -> None:
    """End the processes in which Jittor compiled itself; it would keep them, idle, to the end.

    A signal to the process group ends them too, and Python's exit would then wait for them for
    ever. Jittor starts others if it needs them again.
    """
    import jittor_utils

    if hasattr(jittor_utils, "p"):  # absent as well if they could not be started
        jittor_utils.pool_cleanup()
        atexit.unregister(jittor_utils.pool_cleanup)
        jittor_utils.pool_size = 0
