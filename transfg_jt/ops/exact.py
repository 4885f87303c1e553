"""Constants and sums as exact as the arrays they meet; GELU and linear layers with them.

Jittor 1.3.11 turns a Python number that meets an array into float32, and some of its operators hold
float32 constants, so that a computation in float64 would be one in float32 here and there; and it
adds up one by one. PyTorch has none of this, so this file has no twin.

A linear layer is one of three operators. On bfloat16 everything is rounded where PyTorch's autocast
rounds (bfloat16.py). On float32, inside `checkpointing.recompute_input`, it saves how to compute x
again instead of x. Otherwise it saves x.
"""

import math

import jittor as jt
import numpy as np
from jittor import Var, nn

from transfg_jt.ops.bfloat16 import as_low_as_no_grad, in_full, is_low, product, rounded
from transfg_jt.ops.custom_grad import Function
from transfg_jt.ops.recomputed_input import RecomputedInput, recomputed_input


def number(value: float, like: Var) -> Var | float:
    """The number, in float64 where `like` is: for arithmetic with it."""
    return jt.array(np.array([value])) if like.dtype == "float64" else value


def normal_cdf(x: Var) -> Var:
    """Distribution function of the standard normal: any shape."""
    return (jt.erf(x * number(math.sqrt(0.5), x)) + 1) * 0.5


class Gelu(Function):
    """x Φ(x), whose slope is Φ(x) + x φ(x); keeps x. Jittor's slope of erf has 2/√π in float32."""

    def execute(self, x: Var) -> Var:
        self.keep(x)
        y = in_full(x)
        return as_low_as_no_grad(y * normal_cdf(y), x)

    def grad(self, grad: Var) -> Var:
        (kept,) = self.take()
        x = in_full(kept)
        density = jt.exp(x * x * -0.5) * number(1 / math.sqrt(2 * math.pi), x)
        return as_low_as_no_grad(in_full(grad) * (normal_cdf(x) + x * density), kept)


def gelu(x: Var) -> Var:
    """Exact GELU (Hendrycks and Gimpel 2016, arXiv 1606.08415): any shape."""
    return Gelu.apply(x)


class LowLinear(Function):
    """x weightᵀ + bias on bfloat16: (..., D) -> (..., F), rounded.

    Keeps x, or what makes it anew, and weight rounded.
    """

    def execute(self, x: Var, weight: Var, bias: Var, instead: RecomputedInput | None) -> Var:
        low = rounded(weight)
        self.keep(instead or x, low)
        out = product(rows_of(x), low, trans_b=True) + rounded(bias).float32()
        return rounded(out).reshape(*x.shape[:-1], weight.shape[0])

    def grad(self, grad: Var) -> tuple:
        kept, low = self.take()
        x = kept.again() if isinstance(kept, RecomputedInput) else kept
        flat = rounded(rows_of(grad))
        # in float32, so that Jittor adds in float32 what several layers give to one input
        by_x = rounded(product(flat, low)).float32().reshape(x.shape)
        by_weight = rounded(product(flat, rows_of(x), trans_a=True)).float32()
        return by_x, by_weight, rounded(flat.float32().sum(0)).float32(), None


class LeanLinear(Function):
    """x weightᵀ + bias on float32: (..., D) -> (..., F); keeps what makes x anew."""

    def execute(self, x: Var, weight: Var, bias: Var, instead: RecomputedInput) -> Var:
        self.keep(instead, weight)
        return nn.matmul_transpose(x, weight) + bias

    def grad(self, grad: Var) -> tuple:
        instead, weight = self.take()
        x, flat = instead.again(), rows_of(grad)
        by_weight, by_bias = product(flat, rows_of(x), trans_a=True), sum_over_rows(grad)
        return product(flat, weight).reshape(x.shape), by_weight, by_bias, None


def rows_of(x: Var) -> Var:
    """(..., D) -> (R, D)."""
    return x.reshape(-1, x.shape[-1])


def sum_over_rows(x: Var) -> Var:
    """(..., D) -> (D,): in float64, axis by axis."""
    total = x.float64()
    while total.ndim > 1:
        total = total.sum(-2)
    return total.cast(x.dtype)


class AddBias(jt.Function):
    """x + bias, where the gradient of the bias (D,) is a sum in float64, axis by axis."""

    def execute(self, x: Var, bias: Var) -> Var:
        return x + bias

    def grad(self, grad: Var) -> tuple[Var, Var]:
        return grad, sum_over_rows(grad)


def linear(x: Var, weight: Var, bias: Var) -> Var:
    """x weightᵀ + bias, in the precision of x: (..., D), (F, D) and (F,) -> (..., F)."""
    if is_low(x):
        return LowLinear.apply(x, weight, bias, recomputed_input(x))
    instead = recomputed_input(x) if x.dtype == "float32" else None
    if instead:
        return LeanLinear.apply(x, weight, bias, instead)
    return AddBias.apply(nn.matmul_transpose(x, weight), bias)


class PatchEmbed(nn.Conv2d):
    """A convolution without padding as a linear layer on unfolded patches.

    On CUDA Jittor's own needs cuDNN 8. (B, R, H, W) -> (B, N, F), patches row by row.
    """

    def execute(self, x: Var) -> Var:
        batch, channels, height, width = x.shape
        (rows, columns), (down, right) = self.kernel_size, self.stride
        shape = [(height - rows) // down + 1, (width - columns) // right + 1]
        where = ["i0", "i3", f"i1*{down}+i4", f"i2*{right}+i5"]
        patches = x.reindex([batch, *shape, channels, rows, columns], where)
        patches = patches.reshape(batch, shape[0] * shape[1], channels * rows * columns)
        return linear(patches, self.weight.reshape(self.out_channels, -1), self.bias)


class Conv2d(PatchEmbed):
    """The same convolution with its positions in rows and columns: (B, R, H, W) -> (B, F, h, w)."""

    def execute(self, x: Var) -> Var:
        batch, _, height, width = x.shape
        (rows, columns), (down, right) = self.kernel_size, self.stride
        shape = ((height - rows) // down + 1, (width - columns) // right + 1)
        return super().execute(x).transpose(1, 2).reshape(batch, self.out_channels, *shape)


def mean_over_positions(x: Var) -> Var:
    """The mean over the last two axes: (B, F, h, w) -> (B, F)."""
    positions = x.shape[-2] * x.shape[-1]
    x = in_full(x)
    return x.sum(-1).sum(-1) / number(float(positions), x)


class Linear(nn.Linear):
    """x weightᵀ + bias: (..., D) -> (..., F)."""

    def execute(self, x: Var) -> Var:
        return linear(x, self.weight, self.bias)
