"""Gradient checkpointing: recompute a block in the backward pass instead of storing it.

Source: Chen et al. 2016 (arXiv 1604.06174), section 4. Twin: `transfg_jt/checkpointing.py`.

Shapes: B batch, T tokens, D width.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

SAVE_LESS = ContextVar("SAVE_LESS", default=False)
RECOMPUTING = ContextVar("RECOMPUTING", default=False)  # whether a block runs a second time


@contextmanager
def save_less(enabled: bool) -> Iterator[None]:
    """Make `recompute_input` save less inside the `with` block, or switch this off."""
    token = SAVE_LESS.set(enabled)
    try:
        yield
    finally:
        SAVE_LESS.reset(token)


class RecomputedInput:  # native: by hooks here, by the linear layers in Jittor
    """Replaces x among the saved tensors: x is recomputed in the backward pass.

    Several operators may save x. The first that reads it recomputes it, and the last frees it.
    """

    def __init__(self, x: Tensor, compute: Callable[[], Tensor]) -> None:
        self.pointer, self.size, self.dtype = x.data_ptr(), x.numel(), x.dtype
        self.compute, self.value = compute, None
        self.saves = self.reads = 0

    def is_x(self, saved: Tensor) -> bool:
        """Whether it is x, or a view of x with its elements in the same order."""
        same = saved.data_ptr() == self.pointer and saved.numel() == self.size
        return same and saved.dtype == self.dtype and saved.is_contiguous()

    def pack(self, saved: Tensor) -> Any:
        if self.is_x(saved):
            self.saves += 1
            return saved.shape
        return saved.detach(), saved._version  # the tensor itself would keep its own graph alive

    def unpack(self, packed: Any) -> Tensor:
        if not isinstance(packed, torch.Size):
            saved, version = packed
            # the check that autograd makes without hooks
            if saved._version != version:
                raise RuntimeError(
                    "a tensor that the backward pass needs has been modified by an in-place "
                    f"operation: {tuple(saved.shape)} is at version {saved._version}, expected "
                    f"version {version}"
                )
            return saved
        if self.value is None:
            with torch.no_grad():
                self.value = self.compute().to(self.dtype)
        value = self.value.view(packed)
        self.reads += 1
        if self.reads % self.saves == 0:
            self.value = None
        return value


def recompute_input(  # native: PyTorch has hooks on saved tensors
    layer: Callable[..., Any],
    x: Tensor,
    compute: Callable[[Tensor], Tensor],
    source: Tensor,
    *more: Any,
) -> Any:
    """layer(x, *more), whose linear layers recompute x in the backward pass instead of saving it.

    compute(source) must give x again, from tensors that are saved anyway. Only in `save_less`.
    """
    # in compiled blocks the compiler decides what is recomputed
    if torch.compiler.is_compiling() or not (SAVE_LESS.get() and torch.is_grad_enabled()):
        return layer(x, *more)
    hooks = RecomputedInput(x, partial(compute, source.detach()))
    with torch.autograd.graph.saved_tensors_hooks(hooks.pack, hooks.unpack):
        return layer(x, *more)


@contextmanager
def recomputing() -> Iterator[None]:  # native: `override` in Jittor
    """Tell layers inside the `with` block that they run a second time."""
    token = RECOMPUTING.set(True)
    try:
        yield
    finally:
        RECOMPUTING.reset(token)


def recompute(block: nn.Module, x: Tensor) -> Any:
    """The block's outputs for x; only x is saved, and the block is recomputed.

    Dropout has the same masks in both passes.
    """
    # torch block for 3 lines: Jittor has no such function
    return checkpoint(
        block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), recomputing())
    )
