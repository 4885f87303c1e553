"""Bring PyTorch up: before and after its import. Twin: `transfg_jt/runtime.py`."""

import importlib.util
from typing import Any

from transfg_core.errors import UserError
from transfg_core.machine import cpu_name, install_command

USED_PRECISION: dict[str, str] = {}  # one for a process


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
    # float32 is float32 where nothing else is said
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def set_precision(precision: str) -> None:  # native: what each framework has to be told
    """Let products take TF32 where `run.precision` says so, and nowhere else.

    In Jittor also keep 64 bits of arrays where it says float64, and refuse what is not right.

    Raises:
        UserError: the precision cannot be had on this device, with this framework, or any more in
            this process.
    """
    import torch

    if precision == "tf32" and not torch.cuda.is_available():
        raise UserError("run.precision tf32: it needs a CUDA device, found none; use float32")
    if precision == "float64":  # torch: of which TF32 takes nothing
        return
    used = USED_PRECISION.setdefault("float", precision)
    if "tf32" in (used, precision) and used != precision:
        raise UserError(
            f"run.precision {precision}: this process has used PyTorch in {used}, and TF32 is a "
            "switch of the whole process; start another one"
        )
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def device_info() -> dict[str, Any]:  # native: each framework tells these in its own way
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
