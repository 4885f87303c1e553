"""Start Jittor on the CPU or on CUDA: its settings, oneDNN, and clear errors before its import.

If the package `transfg_jt` is installed in the environment that runs this, its `runtime.prepare`
does all of it (also CUDA). Otherwise this file does what Jittor 1.3.11 needs on the CPU: numpy
below 2 (with numpy 2 Jittor computes garbage), Python below 3.13, a C++ compiler, and oneDNN where
Jittor looks for it.
"""

import importlib
import importlib.util
import os
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

from parity.errors import ParityError
from parity.recording.adapter import RestartNeededError

# Its `prepare` knows more: CUDA, signals, precompiled headers.
RUNTIME = "transfg_jt.runtime"

# Jittor's settings are environment variables that it reads at its import; the user's win.
SETTINGS = {
    "nvcc_path": "",  # the CPU
    "use_mpi": "0",  # otherwise an mpicc on PATH starts a build of Jittor's MPI operators
    "use_nccl": "0",  # otherwise Jittor downloads NCCL's sources
    "use_cutt": "0",  # otherwise Jittor downloads cuTT
    "use_cutlass": "0",  # otherwise Jittor downloads CUTLASS
    "FIX_TORCH_ERROR": "0",  # otherwise `import jittor` imports torch where it is installed
    "log_silent": "1",
    "gdb_path": "",  # otherwise Jittor starts a debugger when an operator fails
    "cache_name": "parity-cpu",
}
ONEDNN = "onednn-devel-cpu-gomp==2022.2.1"
# Jittor downloads oneDNN unless it finds the library here, below its home.
ONEDNN_FOLDER = Path(".cache/jittor/mkl/dnnl_lnx_2.2.0_cpu_gomp")


def start_jittor() -> Any:
    """Import Jittor; the module.

    Raises:
        RestartNeededError: Jittor has compiled itself for other settings; a new process works.
        ParityError: something is missing or does not fit, with the command that mends it.
    """
    if "jittor" not in sys.modules:
        os.environ.setdefault("TRANSFG_RESTARTED", "1")  # no restart: it would lose the requests
        try:
            if importlib.util.find_spec(RUNTIME.partition(".")[0]) is not None:
                importlib.import_module(RUNTIME).prepare()
            else:
                check_environment()
                write_settings()
                link_onednn()
                announce_build()
            return importlib.import_module("jittor")
        except SystemExit as error:
            raise RestartNeededError(
                "jittor: Jittor has compiled itself for other settings; run the command again"
            ) from error
        except ParityError:
            raise
        except (ValueError, ImportError, OSError, RuntimeError, AttributeError) as error:
            raise ParityError(f"jittor: Jittor does not start: {error}") from error
    return sys.modules["jittor"]


def check_environment() -> None:
    """Refuse an environment in which Jittor 1.3.11 does not work.

    Raises:
        ParityError: it is one.
    """
    import numpy as np

    if sys.version_info >= (3, 13):
        raise ParityError(
            "jittor: Jittor 1.3.11 needs Python 3.12 or older, found "
            f"{sys.version.split()[0]}; create the environment with Python 3.11 or 3.12"
        )
    if importlib.util.find_spec("jittor") is None:
        raise ParityError(
            f"jittor: not installed for {sys.executable}; run: "
            f'pip install jittor==1.3.11.0 "numpy<2" {ONEDNN}'
        )
    if int(np.__version__.partition(".")[0]) >= 2:
        raise ParityError(
            f"jittor: Jittor 1.3.11 computes garbage with numpy {np.__version__}, which "
            f"{sys.executable} imports from {Path(np.__file__).parent}; run: "
            f'{sys.executable} -m pip install "numpy<2"'
        )
    if shutil.which(os.environ.get("cc_path", "g++")) is None:
        raise ParityError("jittor: no C++ compiler on PATH; run: apt-get install g++")


def jittor_home() -> Path:
    """The folder with Jittor's caches, as Jittor chooses it."""
    home: Any = importlib.import_module("jittor_utils").home()
    return Path(home)


def write_settings() -> None:
    """Jittor's environment variables, and a `python3-config` of the running interpreter."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if "python_config_path" not in os.environ:
        path = jittor_home() / ".cache/jittor/parity-python-config"
        include = f"-I{shlex.quote(sysconfig.get_path('include'))}"
        suffix = sysconfig.get_config_var("EXT_SUFFIX")
        script = f'#!/bin/sh\ncase "$1" in\n--includes) echo {include};;\n'
        script += f"--extension-suffix) echo {suffix};;\n*) exit 1;;\nesac\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        temporary.write_text(script, encoding="utf-8")
        temporary.chmod(0o755)
        temporary.replace(path)
        os.environ["python_config_path"] = str(path)


def announce_build() -> None:
    """If Jittor is not compiled yet, say in the log that its import takes minutes."""
    cache = Path(importlib.import_module("jittor_utils").cache_path)
    if not (cache / f"jittor_core{sysconfig.get_config_var('EXT_SUFFIX')}").exists():
        text = f"Jittor compiles itself for this machine into {cache}: some minutes, once."
        print(text, file=sys.stderr, flush=True)


def link_onednn() -> None:
    """Link oneDNN 2.x, from its wheel or from Debian, into the folder where Jittor looks for it.

    Raises:
        ParityError: neither is installed.
    """
    folder = jittor_home() / ONEDNN_FOLDER
    if (folder / "lib/libmkldnn.so").is_file():
        return
    system = Path("/usr/lib", sysconfig.get_config_var("MULTIARCH") or "")
    for include, library in (
        (Path(sys.prefix, "include"), Path(sys.prefix, "lib/libdnnl.so.2")),
        (Path("/usr/include"), system / "libdnnl.so.2"),
    ):
        if (include / "dnnl.hpp").is_file() and library.is_file():
            break
    else:
        raise ParityError(f"jittor: oneDNN 2.x is missing; run: pip install {ONEDNN}")
    (folder / "lib").mkdir(parents=True, exist_ok=True)
    for link, target in (
        (folder / "include", include),
        (folder / "lib/libmkldnn.so", library),
        (folder / "lib/libdnnl.so.2", library),
    ):
        temporary = link.with_name(f"{link.name}.{os.getpid()}")
        temporary.symlink_to(target)
        temporary.replace(link)
