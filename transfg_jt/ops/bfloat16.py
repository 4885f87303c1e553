"""Mixed precision: linear layers in bfloat16, parameters and everything else in float32.

Jittor 1.3.11 has automatic casts to 16 bits, but it also casts layer norms and sums. So this file
casts explicitly, where PyTorch's autocast does: it rounds the inputs, weights and outputs of linear
layers to bfloat16. cuBLAS sums products in float32, and the result is rounded before the bias is
added and again after. On the CPU Jittor would sum in bfloat16, so there the product of the rounded
factors is computed in float32, and is no faster. Attention has bfloat16 inputs and outputs, and
float32 scores and softmax. PyTorch has all this, so this file has no twin.

Source: Micikevicius et al. 2018 (arXiv 1710.03740), section 3; Kalamkar et al. 2019 (arXiv
1905.12322) for bfloat16.
"""

from contextlib import AbstractContextManager
from contextvars import ContextVar

import jittor as jt
from jittor import Var

from transfg_jt.ops.cpu import run_cpu
from transfg_jt.ops.custom_grad import override

# Jittor's cast on the CPU truncates instead of rounding.
ROUND = """
    #pragma omp parallel for
    for (int64_t i = 0; i < in0->num; i++) {
        uint32_t bits;
        std::memcpy(&bits, in0_p + i, 4);
        const bool is_nan = (bits & 0x7fffffff) > 0x7f800000;
        bits = is_nan ? bits | 0x400000 : bits + 0x7fff + ((bits >> 16) & 1);
        bits &= 0xffff0000;
        std::memcpy(out0_p + i, &bits, 4);
    }
"""

BFLOAT16 = ContextVar("BFLOAT16", default=False)


def autocast(enabled: bool) -> AbstractContextManager[None]:
    """Switch on or off the casts of `cast_once` inside the `with` block."""
    return override(BFLOAT16, enabled)


def cast_once(x: Var) -> Var:
    """x in the type in which linear layers compute: any shape."""
    return ToBfloat16.apply(x) if BFLOAT16.get() else x


def is_bfloat16(x: Var) -> bool:
    """Whether x is in bfloat16."""
    return x.dtype == "bfloat16"


def round_to_bfloat16(x: Var) -> Var:
    """x in bfloat16, rounded to the nearest, ties to even: any shape; has no gradient."""
    if not jt.flags.use_cuda and not is_bfloat16(x):
        x = run_cpu(ROUND, [x.shape], [x])[0]
    return x.bfloat16()


class ToBfloat16(jt.Function):
    """float32 to bfloat16, with a gradient: any shape."""

    def execute(self, x: Var) -> Var:
        return round_to_bfloat16(x)

    def grad(self, grad: Var) -> Var:
        return grad.float32()


class ToFloat32(jt.Function):
    """bfloat16 to float32, with a gradient: any shape."""

    def execute(self, x: Var) -> Var:
        return x.float32()

    def grad(self, grad: Var) -> Var:
        return round_to_bfloat16(grad)


def to_float32(x: Var) -> Var:
    """bfloat16 becomes float32; float32 and float64 stay: any shape."""
    return ToFloat32.apply(x) if is_bfloat16(x) else x


def cast_like(x: Var, y: Var) -> Var:
    """x in bfloat16 if y is in bfloat16, else x as it is: any shapes."""
    return ToBfloat16.apply(x) if is_bfloat16(y) else x


def cast_like_no_grad(x: Var, y: Var) -> Var:
    """`cast_like` without a gradient, for use inside operators."""
    return round_to_bfloat16(x) if is_bfloat16(y) else x


def product(a: Var, b: Var, trans_a: bool = False, trans_b: bool = False) -> Var:
    """Product of two matrices, one optionally transposed: (M, K) and (K, N) -> (M, N), float32.

    On CUDA, cuBLAS has already rounded the product of bfloat16 factors to bfloat16. In float32 the
    operator of cuBLAS or oneDNN is never called by name, because Jittor calls it for products in
    this form, and two threads would compile it into one file (docs/jittor.md, "Caches").
    """
    if jt.flags.use_cuda and is_bfloat16(a):
        return jt.compile_extern.cublas_ops.cublas_matmul(a, b, trans_a, trans_b).float32()
    # the three forms that Jittor knows: axes that a and b lack, and the axis to sum over
    missing_a, missing_b, summed = {
        (False, False): (2, 0, 1),  # (M, K, N)
        (False, True): (1, 0, 2),  # (M, N, K)
        (True, False): (2, 1, 0),  # (K, M, N)
    }[trans_a, trans_b]
    shape = list(a.shape)
    shape.insert(missing_a, b.shape[0 if trans_b else 1])
    factors = a.float32().broadcast(shape, [missing_a]), b.float32().broadcast(shape, [missing_b])
    return (factors[0] * factors[1]).sum(summed)
