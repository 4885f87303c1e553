"""Bring PyTorch up: before and after its import. Twin: `transfg_jt/runtime.py`."""

import importlib.util
from typing import Any

from transfg_core.errors import UserError
from transfg_core.machine import cpu_name, install_command

INSTALL = install_command("torch")


def prepare() -> None:  # native: PyTorch needs no preparation of the machine
    """Check the machine, import PyTorch and set it up; idempotent.

    Raises:
        UserError: something is missing or unfit, with the command that provides it.
    """
    if importlib.util.find_spec("torch") is None:
        raise UserError(f"backend torch: PyTorch is not installed; run: {INSTALL}")
    try:
        import torch
    except (ImportError, OSError) as error:
        raise UserError(
            f"backend torch: PyTorch does not import ({error}); run: {INSTALL}"
        ) from error
    # float32 is float32: nothing computes it in less
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


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
