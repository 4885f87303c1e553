"""Mixed precision: linear layers in bfloat16, parameters and everything else in float32.

Jittor 1.3.11 has automatic casts to 16 bits, but they reach layer norms and sums too. So casts are
written down here, where PyTorch's autocast has them: what a linear layer gets and its weights are
rounded to bfloat16, and so is what it gives. cuBLAS adds the products up in float32, and rounds
before the bias is added, as well as after. On the CPU Jittor would add them up in bfloat16, so
there a product is one in float32 of rounded factors, and no faster. Attention gets and gives
bfloat16, and has its scores and softmax in float32. PyTorch has all this, so this file has no twin.

Source: Micikevicius et al. 2018 (arXiv 1710.03740), section 3; Kalamkar et al. 2019 (arXiv
1905.12322) for bfloat16.
"""

from contextlib import AbstractContextManager
from contextvars import ContextVar

import jittor as jt
from jittor import Var

from transfg_jt.ops.cpu import run_cpu
from transfg_jt.ops.custom_grad import scope

# Jittor on the CPU cuts digits off where others round.
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

LOW = ContextVar("LOW", default=False)


def autocast(wanted: bool) -> AbstractContextManager[None]:
    """Inside it, `cast_once` casts, or not."""
    return scope(LOW, wanted)


def cast_once(x: Var) -> Var:
    """In the type in which linear layers are to compute: any shape."""
    return Down.apply(x) if LOW.get() else x


def is_low(x: Var) -> bool:
    """Whether x is in bfloat16."""
    return x.dtype == "bfloat16"


def rounded(x: Var) -> Var:
    """To bfloat16, to the nearest and of two to the even: any shape; has no gradient."""
    if not jt.flags.use_cuda and not is_low(x):
        x = run_cpu(ROUND, [x.shape], [x])[0]
    return x.bfloat16()


class Down(jt.Function):
    """float32 to bfloat16: any shape."""

    def execute(self, x: Var) -> Var:
        return rounded(x)

    def grad(self, grad: Var) -> Var:
        return grad.float32()


class Up(jt.Function):
    """bfloat16 to float32: any shape."""

    def execute(self, x: Var) -> Var:
        return x.float32()

    def grad(self, grad: Var) -> Var:
        return rounded(grad)


def in_full(x: Var) -> Var:
    """bfloat16 becomes float32: any shape."""
    return Up.apply(x) if is_low(x) else x


def as_low_as(x: Var, y: Var) -> Var:
    """x, in bfloat16 where y is: any shapes."""
    return Down.apply(x) if is_low(y) else x


def as_low_as_no_grad(x: Var, y: Var) -> Var:
    """The same without a gradient, for inside operators."""
    return rounded(x) if is_low(y) else x


def product(a: Var, b: Var, trans_a: bool = False, trans_b: bool = False) -> Var:
    """Two matrices, transposed where it says so: (M, K) and (K, N) -> (M, N), float32.

    Of factors in bfloat16, what cuBLAS gives on CUDA is rounded to bfloat16 already.
    """
    if jt.flags.use_cuda:
        return jt.compile_extern.cublas_ops.cublas_matmul(a, b, trans_a, trans_b).float32()
    return jt.compile_extern.mkl_ops.mkl_matmul(a.float32(), b.float32(), trans_a, trans_b)
