"""Gradient checkpointing: computing a block anew in the backward pass instead of storing it.

Source: Chen et al. 2016 (arXiv 1604.06174), section 4. Twin: `transfg_torch/checkpointing.py`.

Shapes: B batch, T tokens, D width.
"""

import jittor as jt
from jittor import Var, nn

from transfg_jt.mixed import LOW, autocast


class Recomputed(jt.Function):  # native: PyTorch has such a function
    """A block as one operator, which keeps its input and its dropout masks.

    The block's parameters are inputs too, so that they get gradients. Queries and keys have none:
    part selection, which reads them, has no gradient.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block, self.masks, self.low = block, [], LOW.get()

    def execute(self, x: Var, *params: Var) -> tuple[Var, Var, Var]:
        self.x, self.block.mlp.dropout.masks = x, self.masks
        try:
            with jt.no_grad():
                outputs = self.block(x)
        finally:
            self.block.mlp.dropout.masks = None
        return tuple(output.start_grad() for output in outputs)

    def grad(self, grad: Var, *_: None) -> tuple:
        x = self.x.detach().start_grad()
        self.block.mlp.dropout.given = list(self.masks)
        try:
            with autocast(self.low):
                out, _, _ = self.block(x)
        finally:
            self.block.mlp.dropout.given = None
        grads = jt.grad((out * grad.detach()).sum(), [x, *self.block.parameters()])
        # Operators run when they must, and all blocks could be computed anew at once: what this one
        # holds must be used up, and freed, before the next.
        grads = [grad.stop_grad() for grad in grads]
        jt.sync(grads)
        return tuple(grads)


def recompute(block: nn.Module, x: Var) -> tuple[Var, Var, Var]:
    """What the block gives for x (B, T, D), of which only x is kept for the backward pass.

    Dropout draws the same masks in both passes.
    """
    return Recomputed(block)(x, *block.parameters())  # jittor: see above
