"""Gradient checkpointing: recompute a block in the backward pass instead of storing it.

Source: Chen et al. 2016 (arXiv 1604.06174), section 4. Twin: `transfg_torch/checkpointing.py`.

Shapes: B batch, T tokens, D width.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jittor as jt
from jittor import Var, nn

from transfg_jt.ops.bfloat16 import BFLOAT16, autocast
from transfg_jt.ops.custom_grad import FREE_SAVED, Function, override
from transfg_jt.ops.dropout_masks import DRAWN, GIVEN
from transfg_jt.ops.recomputed_input import RECOMPUTED, RecomputedInput

SAVE_LESS = ContextVar("SAVE_LESS", default=False)
RECOMPUTING = ContextVar("RECOMPUTING", default=False)  # whether a block runs a second time


@contextmanager
def save_less(enabled: bool) -> Iterator[None]:  # native: uses `override`
    """Make `recompute_input` save less inside the `with` block, or switch this off."""
    with override(SAVE_LESS, enabled):
        yield


def recompute_input(  # native: PyTorch has hooks on saved tensors
    layer: Callable[..., Any], x: Var, compute: Callable[[Var], Var], source: Var, *more: Any
) -> Any:
    """layer(x, *more), whose linear layers recompute x in the backward pass instead of saving it.

    compute(source) must give x again, from tensors that are saved anyway. Only in `save_less`.
    """
    if not SAVE_LESS.get():
        return layer(x, *more)
    recomputed = RecomputedInput(x, compute, source)
    try:
        with override(RECOMPUTED, recomputed):
            return layer(x, *more)
    finally:
        recomputed.x = None  # else x would stay alive


class Recomputed(Function):  # native: PyTorch has such a function
    """A block as one operator, which saves its input and its dropout masks.

    The block's parameters are inputs as well, so that they get gradients. Of several outputs only
    the first has a gradient: the queries and keys of a ViT's block have none, because part
    selection, which reads them, has none.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block, self.bfloat16 = block, BFLOAT16.get()

    def execute(self, x: Var, *params: Var) -> Any:
        masks: list[Var] = []
        self.save_for_backward(x, masks)
        with override(DRAWN, masks), jt.no_grad():
            outputs = self.block(x)
        if isinstance(outputs, Var):
            return outputs.start_grad()
        return tuple(output.start_grad() for output in outputs)

    def grad(self, grad: Var, *_: None) -> tuple:
        x, masks = self.take_saved()
        x = x.detach().start_grad()
        with override(GIVEN, list(masks)), override(RECOMPUTING, True):
            with autocast(self.bfloat16), override(FREE_SAVED, True):
                outputs = self.block(x)
        out = outputs if isinstance(outputs, Var) else outputs[0]
        inputs = [x, *learned(self.block)]
        return tuple(jt.grad((out * grad.detach()).sum(), inputs, retain_graph=False))


def learned(block: nn.Module) -> list[Var]:  # native: for Recomputed
    """The block's parameters without its running statistics."""
    return [param for name, param in block.named_parameters() if ".running_" not in name]


def recompute(block: nn.Module, x: Var) -> Any:
    """The block's outputs for x; only x is saved, and the block is recomputed.

    Dropout has the same masks in both passes.
    """
    return Recomputed(block)(x, *learned(block))  # jittor: see above
