"""Layer norm as one operator, with its variance in a second pass.

Jittor 1.3.11's own computes the variance as E[x²] - E[x]², which cancels where the mean is
large. PyTorch has such an operator, so this file has no twin.

Source: Ba, Kiros and Hinton 2016 (arXiv 1607.06450), equation 4. Shapes: D width.
"""

import jittor as jt
from jittor import Var

from transfg_jt.ops import cpu as cpu_ops
from transfg_jt.ops import cuda as cuda_ops
from transfg_jt.ops.custom_grad import Function
from transfg_jt.ops.exact import number


class FusedNorm(Function):
    """Layer norm over the last axis; saves input, weight, mean and scale."""

    def execute(self, x: Var, weight: Var, bias: Var, eps: float) -> Var:
        self.run = cpu_ops if cpu_ops.on_cpu(x) else cuda_ops
        out, mean, scale = self.run.norm(x, weight, bias, eps)
        self.save_for_backward(x, weight, mean, scale)
        return out

    def grad(self, grad: Var) -> tuple:
        return (*self.run.norm_grad(*self.take_saved(), grad), None)


def layer_norm(x: Var, weight: Var, bias: Var, eps: float) -> Var:
    """(x - mean) / √(variance + eps) · weight + bias over the last axis: (..., D) -> (..., D)."""
    if cpu_ops.on_cpu(x) or cuda_ops.supports_norm(x):
        return FusedNorm.apply(x, weight, bias, eps)
    width = x.shape[-1]  # not `mean`: Jittor's has 1 / width in float32 in its gradient
    centred = x - x.sum(-1, keepdims=True) / width
    variance = (centred * centred).sum(-1, keepdims=True) / width
    return centred / jt.sqrt(variance + number(eps, x)) * weight + bias
