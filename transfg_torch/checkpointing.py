"""Gradient checkpointing: computing a block anew in the backward pass instead of storing it.

Source: Chen et al. 2016 (arXiv 1604.06174), section 4. Twin: `transfg_jt/checkpointing.py`.

Shapes: B batch, T tokens, D width.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

LEAN = ContextVar("LEAN", default=False)  # native: for what follows


@contextmanager
def lean(wanted: bool) -> Iterator[None]:  # native: Jittor has no hooks on what is kept
    """Inside it, `feed` keeps less, or not."""
    token = LEAN.set(wanted)
    try:
        yield
    finally:
        LEAN.reset(token)


def feed(  # native: likewise
    layer: nn.Module, x: Tensor, make: Callable[[], Tensor], *more: Any
) -> Any:
    """layer(x, *more); where its linear layers would keep x for the backward pass, `make` is kept.

    `make` computes the same as x, and holds only what is kept anyway. Only inside `lean`, and not
    in compiled blocks, whose compiler decides what it computes anew.
    """
    if torch.compiler.is_compiling() or not (LEAN.get() and torch.is_grad_enabled()):
        return layer(x, *more)
    where, size, dtype = x.data_ptr(), x.numel(), x.dtype

    def pack(saved: Tensor) -> Any:
        same = saved.data_ptr() == where and saved.numel() == size and saved.dtype == dtype
        return saved.shape if same else saved

    def unpack(kept: Any) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        with torch.no_grad():
            return make().to(dtype).view(kept)

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        return layer(x, *more)


def recompute(block: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the block gives for x (B, T, D), of which only x is kept for the backward pass.

    Dropout draws the same masks in both passes.
    """
    return checkpoint(block, x, use_reentrant=False)
