"""Gradient checkpointing: computing a block anew in the backward pass instead of storing it.

Source: Chen et al. 2016 (arXiv 1604.06174), section 4. Twin: `transfg_torch/checkpointing.py`.

Shapes: B batch, T tokens, D width.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jittor as jt
from jittor import Var, nn

from transfg_jt.ops.bfloat16 import LOW, autocast
from transfg_jt.ops.custom_grad import ONCE, Function, scope
from transfg_jt.ops.recomputed_input import RECOMPUTED, RecomputedInput

SAVE_LESS = ContextVar("SAVE_LESS", default=False)


@contextmanager
def save_less(wanted: bool) -> Iterator[None]:  # native: one of several such switches
    """Inside it, `recompute_input` keeps less, or not."""
    with scope(SAVE_LESS, wanted):
        yield


def recompute_input(  # native: PyTorch has hooks on saved tensors
    layer: Callable[..., Any], x: Var, make: Callable[[Var], Var], source: Var, *more: Any
) -> Any:
    """layer(x, *more); where its linear layers would keep x for the backward pass, they keep less.

    make(source) computes the same as x, and holds only what is kept anyway; only in `save_less`.
    """
    if not SAVE_LESS.get():
        return layer(x, *more)
    fed = RecomputedInput(x, make, source)
    try:
        with scope(RECOMPUTED, fed):
            return layer(x, *more)
    finally:
        fed.x = None  # or it would be kept all the same


class Recomputed(Function):  # native: PyTorch has such a function
    """A block as one operator, which keeps its input and its dropout masks.

    The block's parameters are inputs too, so that they get gradients. Queries and keys have none:
    part selection, which reads them, has no gradient.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block, self.low = block, LOW.get()

    def execute(self, x: Var, *params: Var) -> tuple[Var, Var, Var]:
        masks: list[Var] = []
        self.keep(x, masks)
        self.block.mlp.dropout.masks = masks
        try:
            with jt.no_grad():
                outputs = self.block(x)
        finally:
            self.block.mlp.dropout.masks = None
        return tuple(output.start_grad() for output in outputs)

    def grad(self, grad: Var, *_: None) -> tuple:
        x, masks = self.take()
        x = x.detach().start_grad()
        self.block.mlp.dropout.given = list(masks)
        try:
            with autocast(self.low), scope(ONCE, True):
                out, _, _ = self.block(x)
        finally:
            self.block.mlp.dropout.given = None
        wanted = [x, *self.block.parameters()]
        return tuple(jt.grad((out * grad.detach()).sum(), wanted, retain_graph=False))


def recompute(block: nn.Module, x: Var) -> tuple[Var, Var, Var]:
    """What the block gives for x (B, T, D), of which only x is kept for the backward pass.

    Dropout draws the same masks in both passes.
    """
    return Recomputed(block)(x, *block.parameters())  # jittor: see above
