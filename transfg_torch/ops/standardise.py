"""Standardised weights as one function with a gradient, which saves less than its formula would.

Source: Qiao et al. 2019 (arXiv 1903.10520). In Jittor: `transfg_jt/ops/group_norm.py`.
"""

from typing import Any

import torch
from torch import Tensor


class Standardise(torch.autograd.Function):
    """Saves the kernels, which are parameters, and of each its mean and deviation."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, eps: float) -> Tensor:
        flat = weight.flatten(1)
        variance, mean = torch.var_mean(flat, 1, correction=0, keepdim=True)
        deviation, ctx.eps = variance.sqrt(), eps
        ctx.save_for_backward(weight, mean, deviation)
        return ((flat - mean) / (deviation + eps)).view_as(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        weight, mean, deviation = ctx.saved_tensors
        centred, g = weight.flatten(1) - mean, grad.flatten(1)
        spread = deviation + ctx.eps
        share = (g * centred).mean(1, keepdim=True) / (deviation * spread)
        share = share.masked_fill(deviation == 0, 0.0)  # a constant kernel: 0 / 0
        by_weight = (g - g.mean(1, keepdim=True) - centred * share) / spread
        return by_weight.view_as(weight), None


def standardise(weight: Tensor, eps: float) -> Tensor:
    """(w - mean) / (deviation + eps) over all axes but the first: any shape."""
    return Standardise.apply(weight, eps)
