"""Constants and sums in the precision of the arrays, and layers that use them.

Jittor 1.3.11 converts a Python number in array arithmetic to float32, and some of its operators
hold float32 constants, so that parts of a float64 computation would have float32 precision. It
also sums sequentially. PyTorch has none of these problems, so this file has no twin.

A linear layer is one of three operators. On bfloat16 it rounds where PyTorch's autocast rounds
(bfloat16.py). On float32, inside `checkpointing.recompute_input`, it saves how to recompute x
instead of x. Otherwise it saves x.
"""

import math

import jittor as jt
import numpy as np
from jittor import Var, nn

from transfg_jt.ops import cuda
from transfg_jt.ops.bfloat16 import (
    cast_like,
    cast_like_no_grad,
    is_bfloat16,
    product,
    round_to_bfloat16,
    to_float32,
)
from transfg_jt.ops.custom_grad import Function
from transfg_jt.ops.recomputed_input import RecomputedInput, recomputed_input


def number(value: float, like: Var) -> Var | float:
    """The number for arithmetic with `like`: in float64 if `like` is in float64."""
    return jt.array(np.array([value])) if like.dtype == "float64" else value


def normal_cdf(x: Var) -> Var:
    """Distribution function of the standard normal: any shape."""
    return (jt.erf(x * number(math.sqrt(0.5), x)) + 1) * 0.5


class Gelu(Function):
    """x Φ(x), with derivative Φ(x) + x φ(x); saves x. Jittor's erf gradient has 2/√π in float32."""

    def execute(self, x: Var) -> Var:
        self.save_for_backward(x)
        y = to_float32(x)
        return cast_like_no_grad(y * normal_cdf(y), x)

    def grad(self, grad: Var) -> Var:
        (saved,) = self.take_saved()
        x = to_float32(saved)
        density = jt.exp(x * x * -0.5) * number(1 / math.sqrt(2 * math.pi), x)
        return cast_like_no_grad(to_float32(grad) * (normal_cdf(x) + x * density), saved)


def gelu(x: Var) -> Var:
    """Exact GELU (Hendrycks and Gimpel 2016, arXiv 1606.08415): any shape."""
    return Gelu.apply(x)


class Softmax(Function):
    """Softmax over one axis, with sums in float64; saves the result.

    Jittor's own also passes a gradient to the maximum that it subtracts. This gradient is zero, but
    Jittor computes it as a long sum with rounding errors.
    """

    def execute(self, x: Var, dim: int) -> Var:
        shares = jt.exp(x - jt.max(x, dim, keepdims=True))
        out = shares / shares.float64().sum(dim, keepdims=True).cast(x.dtype)
        self.save_for_backward(out, dim)
        return out

    def grad(self, grad: Var) -> tuple[Var, None]:
        out, dim = self.take_saved()
        return softmax_grad(out, grad, dim), None


def softmax(x: Var, dim: int) -> Var:
    """Softmax over the axis `dim`: any shape, in float32 or float64."""
    return Softmax.apply(x, dim)


def softmax_grad(out: Var, grad: Var, dim: int) -> Var:
    """The gradient of the scores, p (g - Σ g p), from softmax's result p and its gradient g."""
    weighted = (grad * out).float64().sum(dim, keepdims=True).cast(out.dtype)
    return out * (grad - weighted)


class Bfloat16Linear(Function):
    """x weightᵀ, plus a bias if one is given, on bfloat16: (..., D) -> (..., F), rounded.

    Saves x, or how to recompute it, and the rounded weight.
    """

    def execute(
        self, x: Var, weight: Var, bias: Var | None, recomputed: RecomputedInput | None
    ) -> Var:
        w = round_to_bfloat16(weight)
        self.save_for_backward(recomputed or x, w)
        self.has_bias = bias is not None
        out = product(rows_of(x), w, trans_b=True)
        if bias is not None:
            out = out + round_to_bfloat16(bias).float32()
        return round_to_bfloat16(out).reshape(*x.shape[:-1], weight.shape[0])

    def grad(self, grad: Var) -> tuple:
        saved, w = self.take_saved()
        x = saved.recompute() if isinstance(saved, RecomputedInput) else saved
        flat = round_to_bfloat16(rows_of(grad))
        # in float32, so that Jittor sums the gradients of a shared input in float32
        by_x = round_to_bfloat16(product(flat, w)).float32().reshape(x.shape)
        by_weight = round_to_bfloat16(product(flat, rows_of(x), trans_a=True)).float32()
        by_bias = round_to_bfloat16(flat.float32().sum(0)).float32() if self.has_bias else None
        return by_x, by_weight, by_bias, None


class RecomputingLinear(Function):
    """x weightᵀ + bias on float32: (..., D) -> (..., F); saves how to recompute x."""

    def execute(self, x: Var, weight: Var, bias: Var, recomputed: RecomputedInput) -> Var:
        self.save_for_backward(recomputed, weight)
        return nn.matmul_transpose(x, weight) + bias

    def grad(self, grad: Var) -> tuple:
        recomputed, weight = self.take_saved()
        x, flat = recomputed.recompute(), rows_of(grad)
        by_weight, by_bias = product(flat, rows_of(x), trans_a=True), sum_over_rows(grad)
        return product(flat, weight).reshape(x.shape), by_weight, by_bias, None


def rows_of(x: Var) -> Var:
    """(..., D) -> (R, D)."""
    return x.reshape(-1, x.shape[-1])


def sum_over_rows(x: Var) -> Var:
    """Sum over all axes but the last, in float64, axis by axis: (..., D) -> (D,)."""
    total = x.float64()
    while total.ndim > 1:
        total = total.sum(-2)
    return total.cast(x.dtype)


class InnerProducts(Function):
    """z zᵀ on CUDA: (B, D) -> (B, B)."""

    def execute(self, z: Var) -> Var:
        self.save_for_backward(z)
        return cuda.inner_products(z)

    def grad(self, grad: Var) -> Var:
        (z,) = self.take_saved()
        return cuda.inner_products_grad(z, grad)


def inner_products(z: Var) -> Var:
    """z zᵀ of all pairs of rows: (B, D) -> (B, B)."""
    return InnerProducts.apply(z) if cuda.supports_products(z) else z @ z.transpose(0, 1)


class AddBias(jt.Function):
    """x + bias (D,); the gradient of the bias is summed in float64, axis by axis."""

    def execute(self, x: Var, bias: Var) -> Var:
        return x + bias

    def grad(self, grad: Var) -> tuple[Var, Var]:
        return grad, sum_over_rows(grad)


def linear(x: Var, weight: Var, bias: Var | None) -> Var:
    """x weightᵀ + bias, in the precision of x: (..., D), (F, D) and (F,) -> (..., F).

    Without a bias, x is never recomputed in float32.
    """
    if is_bfloat16(x):
        return Bfloat16Linear.apply(x, weight, bias, recomputed_input(x))
    if bias is None:
        return nn.matmul_transpose(x, weight)
    recomputed = recomputed_input(x) if x.dtype == "float32" else None
    if recomputed:
        return RecomputingLinear.apply(x, weight, bias, recomputed)
    return AddBias.apply(nn.matmul_transpose(x, weight), bias)


def elu(x: Var) -> Var:
    """x, and exp(x) - 1 where x is negative (Clevert et al. 2016, arXiv 1511.07289): any shape."""
    wide = to_float32(x)
    return cast_like(jt.ternary(wide > 0, wide, jt.exp(wide.minimum(0)) - 1), x)


def mean_over(x: Var, axis: int) -> Var:
    """The mean over one axis, which stays with length 1: any shape."""
    wide = to_float32(x)
    total = wide.sum(axis, keepdims=True)
    return cast_like(total / number(float(x.shape[axis]), wide), x)


def mean_over_tokens(x: Var) -> Var:
    """The mean over the axis before the last: (B, T, D) -> (B, D)."""
    wide = to_float32(x)
    return cast_like(wide.sum(1) / number(float(x.shape[1]), wide), x)


def mean_over_positions(x: Var) -> Var:
    """The mean over the last two axes: (B, F, h, w) -> (B, F)."""
    wide = to_float32(x)
    return cast_like(wide.sum(-1).sum(-1) / number(float(x.shape[-2] * x.shape[-1]), wide), x)


class Linear(nn.Linear):
    """x weightᵀ + bias: (..., D) -> (..., F)."""

    def execute(self, x: Var) -> Var:
        return linear(x, self.weight, self.bias)
