"""Gradient checkpointing: computing a block anew in the backward pass instead of storing it.

Source: Chen et al. 2016 (arXiv 1604.06174), section 4. Twin: `transfg_jt/checkpointing.py`.

Shapes: B batch, T tokens, D width.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

SAVE_LESS = ContextVar("SAVE_LESS", default=False)


@contextmanager
def save_less(wanted: bool) -> Iterator[None]:
    """Inside it, `recompute_input` keeps less, or not."""
    token = SAVE_LESS.set(wanted)
    try:
        yield
    finally:
        SAVE_LESS.reset(token)


class RecomputedInput:  # native: by hooks here, by the linear layers in Jittor
    """Stands for x in what is kept for the backward pass: it is made anew when it is wanted.

    Of the operators that keep x, the first to want it has it made, and the last lets it go.
    """

    def __init__(self, x: Tensor, make: Callable[[], Tensor]) -> None:
        self.where, self.size, self.dtype = x.data_ptr(), x.numel(), x.dtype
        self.make, self.made = make, None
        self.wanted = self.given = 0

    def is_x(self, saved: Tensor) -> bool:
        """Whether it is x, or a view of it with its elements in the same order."""
        same = saved.data_ptr() == self.where and saved.numel() == self.size
        return same and saved.dtype == self.dtype and saved.is_contiguous()

    def pack(self, saved: Tensor) -> Any:
        if self.is_x(saved):
            self.wanted += 1
            return saved.shape
        return saved.detach(), saved._version  # the tensor itself would keep its own graph alive

    def unpack(self, kept: Any) -> Tensor:
        if not isinstance(kept, torch.Size):
            saved, version = kept
            # as autograd does without hooks
            if saved._version != version:
                raise RuntimeError(
                    "a tensor that the backward pass needs has been modified by an in-place "
                    f"operation: {tuple(saved.shape)} is at version {saved._version}, expected "
                    f"version {version}"
                )
            return saved
        if self.made is None:
            with torch.no_grad():
                self.made = self.make().to(self.dtype)
        value = self.made.view(kept)
        self.given += 1
        if self.given % self.wanted == 0:
            self.made = None
        return value


def recompute_input(  # native: PyTorch has hooks on saved tensors
    layer: Callable[..., Any],
    x: Tensor,
    make: Callable[[Tensor], Tensor],
    source: Tensor,
    *more: Any,
) -> Any:
    """layer(x, *more); where its linear layers would keep x for the backward pass, they keep less.

    make(source) computes the same as x, and holds only what is kept anyway; only in `save_less`.
    """
    # in compiled blocks the compiler decides what is computed anew
    if torch.compiler.is_compiling() or not (SAVE_LESS.get() and torch.is_grad_enabled()):
        return layer(x, *more)
    hooks = RecomputedInput(x, partial(make, source.detach()))
    with torch.autograd.graph.saved_tensors_hooks(hooks.pack, hooks.unpack):
        return layer(x, *more)


def recompute(block: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the block gives for x (B, T, D), of which only x is kept for the backward pass.

    Dropout draws the same masks in both passes.
    """
    return checkpoint(block, x, use_reentrant=False)
