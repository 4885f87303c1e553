"""Gradient checkpointing: computing a block anew in the backward pass instead of storing it.

Source: Chen et al. 2016 (arXiv 1604.06174), section 4. Twin: `transfg_jt/checkpointing.py`.

Shapes: B batch, T tokens, D width.
"""

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def recompute(block: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the block gives for x (B, T, D), of which only x is kept for the backward pass.

    Dropout draws the same masks in both passes.
    """
    return checkpoint(block, x, use_reentrant=False)
