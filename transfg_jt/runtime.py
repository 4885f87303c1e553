"""Bring Jittor up: before and after its import. Twin: `transfg_torch/runtime.py`."""

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
from transfg_core.machine import cpu_name, install_command, usable_cpus
from transfg_jt import cuda_home
from transfg_jt.precompiled import compile_headers_once

INSTALL = install_command("jittor")

# Jittor 1.3.11 compiles itself at its first import and each new operator at its first use, and it
# reads its settings from the environment at import time. `prepare()` makes that work from the
# package index alone, without root and without any download of Jittor's own. docs/jittor.md tells
# what each setting works around. These hold on every machine; what the user has set already wins.
# The file is longer than most: it holds what one import takes, in the order in which it is done.
ENVIRONMENT = {  # native: Jittor
    "use_mpi": "0",  # an mpicc on PATH would start a build of Jittor's MPI operators
    "use_nccl": "0",  # would download NCCL's sources
    "use_cutt": "0",  # would download cuTT
    "use_cutlass": "0",  # would download CUTLASS
    "FIX_TORCH_ERROR": "0",  # otherwise `import jittor` imports torch wherever it is installed
    "log_silent": "1",
    "gdb_path": "",  # no debugger is started when an operator fails
}

USED_PRECISION: dict[str, str] = {}  # one for a process
# Jittor looks for oneDNN here, below its home, and downloads nothing when the library is there.
ONEDNN_FOLDER = Path(".cache/jittor/mkl/dnnl_lnx_2.2.0_cpu_gomp")  # native: Jittor


def prepare() -> None:  # native: Jittor needs much
    """Check the machine, import Jittor and set it up; idempotent.

    Raises:
        UserError: something is missing or unfit, with the command that provides it.
    """
    if "jittor" in sys.modules:
        return
    check_python()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        choose_device()
        os.environ.setdefault("python_config_path", str(write_python_config()))
        if os.environ["use_mkl"] == "1":
            link_onednn()
    except OSError as error:
        raise UserError(
            f"backend jittor: cannot write Jittor's cache: {error}; free some space, or set "
            "JITTOR_HOME to a folder that can be written"
        ) from error
    announce_build()
    import_jittor()
    compile_headers_once()


def check_python() -> None:  # native: Jittor
    """Refuse what Jittor 1.3.11 breaks on, before it breaks."""
    if sys.version_info >= (3, 13):
        raise UserError(
            "backend jittor: Jittor 1.3.11 does not start on Python 3.13 or later, found "
            f"{sys.version.split()[0]}; make the environment with Python 3.11 or 3.12"
        )
    if importlib.util.find_spec("jittor") is None:
        raise UserError(f"backend jittor: Jittor is not installed; run: {INSTALL}")
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


def jittor_home() -> Path:  # native: Jittor
    """The folder that Jittor calls its home; its caches lie in `.cache/jittor` below it.

    JITTOR_HOME, else what Jittor remembered from an earlier JITTOR_HOME, else the user's home.
    """
    import jittor_utils

    return Path(jittor_utils.home())


def choose_device() -> None:  # native: Jittor
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


def find_cuda() -> cuda_home.Toolkit | None:  # native: Jittor
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


def write_python_config() -> Path:  # native: Jittor
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


def find_onednn() -> tuple[Path, Path]:  # native: Jittor
    """oneDNN 2.x as (include folder, library): from the package index's wheel, else Debian's.

    Raises:
        UserError: neither is there.
    """
    system = Path("/usr/lib", sysconfig.get_config_var("MULTIARCH") or "")
    for include, library in (
        (Path(sys.prefix, "include"), Path(sys.prefix, "lib/libdnnl.so.2")),
        (Path("/usr/include"), system / "libdnnl.so.2"),
    ):
        if (include / "dnnl.hpp").is_file() and library.is_file():
            return include, library
    raise UserError(
        f"backend jittor: oneDNN 2.x is missing (no libdnnl.so.2 in {sys.prefix}/lib); "
        "run: pip install onednn-devel-cpu-gomp==2022.2.1"
    )


def link_onednn() -> None:  # native: Jittor
    """Make oneDNN look like the folder that Jittor would otherwise download."""
    folder = jittor_home() / ONEDNN_FOLDER
    library = folder / "lib/libmkldnn.so"
    if library.is_file() and not library.is_symlink():
        return  # Jittor's own download, from an earlier use of Jittor
    include, source = find_onednn()
    (folder / "lib").mkdir(parents=True, exist_ok=True)
    for link, target in (
        (folder / "include", include),
        (library, source),
        (folder / "lib/libdnnl.so.2", source),
    ):
        if link.is_symlink() and Path(os.readlink(link)) == target:
            continue
        temporary = link.with_name(f"{link.name}.{os.getpid()}")
        temporary.symlink_to(target)
        temporary.replace(link)


def onednn_include() -> Path:  # native: Jittor
    """Folder of dnnl.h, for operators written in C++."""
    return jittor_home() / ONEDNN_FOLDER / "include"


def announce_build() -> None:  # native: Jittor
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
def python_signal_handlers() -> Any:  # native: Jittor
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
def one_name_of_python() -> Any:  # native: Jittor
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


def import_jittor() -> None:  # native: Jittor
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


def set_precision(precision: str) -> None:  # native: what each framework has to be told
    """Let products take TF32 where `run.precision` says so, and nowhere else.

    In Jittor also keep 64 bits of arrays where it says float64, and refuse what is not right.

    Raises:
        UserError: the precision cannot be had on this device, with this framework, or any more in
            this process.
    """
    import jittor as jt

    if precision == "tf32" and not jt.flags.use_cuda:
        raise UserError("run.precision tf32: it needs a CUDA device, found none; use float32")
    if precision == "float64" and jt.flags.use_cuda:
        raise UserError(
            "run.precision float64: Jittor 1.3.11 has no such products on CUDA; for the CPU set "
            "nvcc_path= in the environment"
        )
    # Seen: after float32 work in the same process, float64 gradients came out 1e-15 of their size.
    # TF32 is a switch of the whole process.
    used = USED_PRECISION.setdefault("float", precision)
    if {"float64", "tf32"} & {used, precision} and used != precision:
        raise UserError(
            f"run.precision {precision}: this process has used Jittor in {used}, and Jittor "
            "cannot do both; start another process"
        )
    jt.flags.auto_convert_64_to_32 = int(precision != "float64")
    jt.flags.use_tensorcore = int(precision == "tf32")


def refuse_compile(wanted: bool) -> None:  # native: Jittor always compiles
    """`run.compile` is PyTorch's.

    Raises:
        UserError: it is set.
    """
    if wanted:
        raise UserError(
            "run.compile: Jittor compiles its operators in any case; leave it out, or "
            "--backend torch"
        )


def device_info() -> dict[str, Any]:  # native: each framework tells these in its own way
    """Framework and version, device by name, and the number of CPU threads."""
    import jittor as jt
    import jittor_utils

    cuda = cuda_home.find_device() if jt.flags.use_cuda else None
    chosen = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return {
        "backend": "jittor",
        "version": jt.__version__,
        "device": cuda.name if cuda else cpu_name(),
        "kind": "cuda" if cuda else "cpu",
        "cuda": jt.compiler.nvcc_version if cuda else None,
        "threads": int(chosen) if chosen.isdigit() else usable_cpus(),
        "cache": jittor_utils.cache_path,
    }
