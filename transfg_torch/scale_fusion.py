"""The weights of SwinFC's feature fusion: what one map lacks and another has, in PyTorch.

Source: Xiang, Chen and Yang 2023 (doi 10.3778/j.issn.1002-8331.2211-0456), equations 7 to 11.
Twin: `transfg_jt/scale_fusion.py`.

Shapes: B batch, N and S positions of two maps, F channels.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function


def unlike(x: Tensor, y: Tensor) -> Tensor:
    """-x yᵀ, large where two positions have little in common: (B, N, F), (B, S, F) -> (B, N, S)."""
    return -(x @ y.transpose(1, 2))


class LackingWeights(Function):  # native: a base class of each framework
    """See `lacking_weights`; saves x and y, and computes the maps of N x S again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, y)
        with torch.autocast(x.device.type, enabled=False):
            scores = unlike(x, y)
        return F.softmax(scores, dim=1).mean(2), F.softmax(scores, dim=2).mean(1)

    @staticmethod
    def backward(ctx: Any, by_x: Tensor, by_y: Tensor) -> tuple[Tensor, Tensor]:
        x, y = ctx.saved_tensors
        scores = unlike(x, y)
        grad = softmax_grad(F.softmax(scores, dim=1), by_x.unsqueeze(2) / y.shape[1], 1)
        grad += softmax_grad(F.softmax(scores, dim=2), by_y.unsqueeze(1) / x.shape[1], 2)
        return -(grad @ y), -(grad.transpose(1, 2) @ x)


def softmax_grad(  # native: Jittor's is in ops/exact.py
    p: Tensor, grad: Tensor, dim: int
) -> Tensor:
    """The gradient of the scores, from the softmax p over `dim` and its gradient: any shape."""
    return p * (grad - (p * grad).sum(dim, keepdim=True))


def lacking_weights(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of the positions of x and of y: x (B, N, F), y (B, S, F) -> (B, N), (B, S).

    With M = x yᵀ (B, N, S), each position of x reads softmax(-M) over y's positions from y. Only
    the mean over x's positions is needed: y's weights are the mean over N of softmax(-M) over S.
    In the same way x's weights are the mean over S of softmax(-M) over N. Each sums to 1.
    """
    by_x, by_y = LackingWeights.apply(x, y)
    return by_x, by_y
