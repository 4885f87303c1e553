"""Start Jittor: before and after its import. Twin: `transfg_torch/runtime.py`."""

import os
import sys
from typing import Any

from transfg_core.errors import UserError
from transfg_core.machine import cpu_name, usable_cpus
from transfg_jt.setup import cuda_home
from transfg_jt.setup.headers import header_flags
from transfg_jt.setup.home import check_paths, choose_home
from transfg_jt.setup.onednn import link_onednn
from transfg_jt.setup.precompiled import compile_headers_once
from transfg_jt.setup.start import (
    ENVIRONMENT,
    add_compiler_flags,
    announce_build,
    check_python,
    choose_device,
    import_jittor,
    write_python_config,
)

USED_PRECISION: dict[str, str] = {}  # the precision that this process has used


def prepare() -> None:  # native: Jittor needs much preparation
    """Check the machine, import Jittor and set it up; idempotent.

    Raises:
        UserError: something is missing or unfit, with the command that provides it.
    """
    if "jittor" in sys.modules:
        return
    check_python()
    check_paths()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        choose_home()
        choose_device()
        os.environ.setdefault("python_config_path", str(write_python_config()))
        uses_onednn = os.environ["use_mkl"] == "1"
        if uses_onednn:
            link_onednn()
        add_compiler_flags(header_flags(uses_onednn))
    except OSError as error:
        raise UserError(
            f"backend jittor: cannot write Jittor's cache: {error}; free some space, or set "
            "JITTOR_HOME to a writable folder"
        ) from error
    announce_build()
    import_jittor()
    compile_headers_once()


def set_precision(precision: str) -> None:  # native: each framework has its own switches
    """Let products use TF32 with `run.precision` tf32, and only then.

    In Jittor also keep arrays in 64 bits with float64.

    Raises:
        UserError: this device or this framework does not support the precision, or this process
            has used another one that excludes it.
    """
    import jittor as jt

    if precision == "tf32" and not jt.flags.use_cuda:
        raise UserError("run.precision tf32: needs a CUDA device, found none; use float32")
    if precision == "float64" and jt.flags.use_cuda:
        raise UserError(
            "run.precision float64: Jittor 1.3.11 has no float64 matrix products on CUDA; to use "
            "the CPU, set the environment variable nvcc_path to an empty value"
        )
    # After float32 work in the same process, Jittor's float64 gradients are wrong. The switch for
    # TF32 holds for the whole process.
    used = USED_PRECISION.setdefault("float", precision)
    if {"float64", "tf32"} & {used, precision} and used != precision:
        raise UserError(
            f"run.precision {precision}: this process has used Jittor in {used}, and Jittor "
            "cannot do both; start another process"
        )
    jt.flags.auto_convert_64_to_32 = int(precision != "float64")
    jt.flags.use_tensorcore = int(precision == "tf32")


def refuse_compile(enabled: bool) -> None:  # native: Jittor always compiles
    """Refuse `run.compile`, which is for PyTorch only.

    Raises:
        UserError: it is set.
    """
    if enabled:
        raise UserError(
            "run.compile: only for PyTorch (Jittor always compiles its operators); leave it out, "
            "or use --backend torch"
        )


def device_info() -> dict[str, Any]:  # native: each framework reports in its own way
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
