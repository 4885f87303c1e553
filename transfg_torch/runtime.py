"""Start PyTorch: before and after its import. Twin: `transfg_jt/runtime.py`."""

import importlib.util
from typing import Any

from transfg_core.errors import UserError
from transfg_core.machine import cpu_name, install_command

USED_PRECISION: dict[str, str] = {}  # the precision that this process has used


def prepare() -> None:  # native: PyTorch needs no preparation of the machine
    """Check the machine, import PyTorch and set it up; idempotent.

    Raises:
        UserError: something is missing or unfit, with the command that provides it.
    """
    install = install_command("torch")
    if importlib.util.find_spec("torch") is None:
        raise UserError(f"backend torch: PyTorch is not installed; run: {install}")
    try:
        import torch
    except (ImportError, OSError) as error:
        raise UserError(
            f"backend torch: PyTorch does not import ({error}); run: {install}"
        ) from error
    # float32 means float32 unless run.precision is tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def set_precision(precision: str) -> None:  # native: each framework has its own switches
    """Let products use TF32 with `run.precision` tf32, and only then.

    In Jittor also keep arrays in 64 bits with float64.

    Raises:
        UserError: this device or this framework does not support the precision, or this process
            has used another one that excludes it.
    """
    import torch

    if precision == "tf32" and not torch.cuda.is_available():
        raise UserError("run.precision tf32: needs a CUDA device, found none; use float32")
    if precision == "float64":  # TF32 does not affect it
        return
    used = USED_PRECISION.setdefault("float", precision)
    if "tf32" in (used, precision) and used != precision:
        raise UserError(
            f"run.precision {precision}: this process has used PyTorch in {used}, and the switch "
            "for TF32 holds for the whole process; start another process"
        )
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def device_info() -> dict[str, Any]:  # native: each framework reports in its own way
    """Framework and version, device by name, and the number of CPU threads."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "backend": "torch",
        "version": torch.__version__,
        "device": torch.cuda.get_device_name() if cuda else cpu_name(),
        "kind": "cuda" if cuda else "cpu",
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "cache": None,
    }
