"""Attention, layer norm and inner products as operators on CUDA (kernels.cuh).

Jittor 1.3.11 has no fused attention: a chain of its operators stores the maps of a whole batch
several times. The operators here hold the maps of a few heads at a time, and recompute them in the
backward pass. They take float32. Attention also takes bfloat16: it multiplies in bfloat16 and sums
in float32. float64 uses plain formulas, which stand where they are used. Only the contrastive loss
needs float64 products on CUDA, and there Jittor asks cuBLAS for float64 with float32 sums, which
cuBLAS refuses. PyTorch has such operators, so this file has no twin.

Shapes: B batch, T tokens, D width, K heads; R rows (all axes but the last).
"""

from pathlib import Path

import jittor as jt
from jittor import Var

HEADER = Path(__file__).with_name("kernels.cuh").read_text(encoding="utf-8")
MAPS_BYTES = 2**26  # scratch memory for maps (and as much for their gradients): fills a device
ALIGNED = 8  # a map's rows are padded to a multiple of this many elements, for tensor cores
NORM_BLOCKS = 256  # thread blocks that sum the gradients of weight and bias, one partial sum each
SHARED_FLOATS = 12_000  # shared memory of a thread block on every device: 48 KB

SETUP = """
    const auto how = use_tensorcore == 1 && sizeof(in0_type) == 4 ? CUBLAS_COMPUTE_32F_FAST_TF32
                                                                  : CUBLAS_COMPUTE_32F;
    auto maps = {maps}_p;
    Attention run{in0_shape0, in0_shape1, in0_shape2, {heads}, {maps}_shape1, {maps}_shape3, how,
                  (char**){table}_p, {table}_shape0};
"""
FORWARD = "run.forward(in0_p, in1_p, in2_p, out0_p, maps);"
BACKWARD = "run.backward(in0_p, in1_p, in2_p, in3_p, out0_p, out1_p, out2_p, maps);"
PROPAGATE = "run.propagate(in0_p, in1_p, in2_p, out0_p, maps);"

NORM = """
    LAUNCH(norm_rows, out1->num, WARPS + in1->num)
    (in0_p, in1_p, in2_p, out0_p, out1_p, out2_p, int(in1->num), {eps}f);
    checkCudaErrors(cudaGetLastError());
"""
NORM_GRAD = """
    const int n = int(in1->num);
    LAUNCH(norm_rows_grad, out3_shape0, WARPS + 4 * n)
    (in0_p, in1_p, in2_p, in3_p, in4_p, out0_p, out3_p, in2->num, n);
    LAUNCH(sum_columns, (2 * n + THREADS - 1) / THREADS, 0)
    (out3_p, out1_p, out2_p, out3_shape0, n);
    checkCudaErrors(cudaGetLastError());
"""

PRODUCTS = """
    LAUNCH(inner_products, (out0->num + THREADS - 1) / THREADS, 0)
    (in0_p, out0_p, in0_shape0, in0_shape1);
    checkCudaErrors(cudaGetLastError());
"""
PRODUCTS_GRAD = """
    LAUNCH(inner_products_grad, (out0->num + THREADS - 1) / THREADS, 0)
    (in0_p, in1_p, out0_p, in0_shape0, in0_shape1);
    checkCudaErrors(cudaGetLastError());
"""


def run_cuda(source: str, shapes: list, types: list, inputs: list[Var]) -> list[Var]:
    """Run CUDA C++ on arrays `in0_p`, ... into arrays `out0_p`, ... of given shapes and types."""
    headers = Path(jt.flags.jittor_path, "extern/cuda/cublas/inc")
    with jt.flag_scope(compile_options={f'FLAGS: -I"{headers}" ': 1}):
        return jt.code(shapes, types, inputs, cuda_header=HEADER, cuda_src=source)


def run_attention(
    source: str, types: list, shapes: list, inputs: list[Var], heads: int
) -> list[Var]:
    """Run one of the sources above; its scratch memory is two more outputs, not returned."""
    batch, tokens, _ = inputs[0].shape
    # maps per pair (a map, and its gradient); arrays whose matrices get a table of pointers
    kinds, arrays = (2, 11) if source is BACKWARD else (1, 6)
    stride = -(-tokens // ALIGNED) * ALIGNED
    held = min(batch * heads, max(1, MAPS_BYTES // (tokens * stride * 4)))
    code = (SETUP + source).replace("{heads}", str(heads))
    code = code.replace("{maps}", f"out{len(shapes)}").replace("{table}", f"out{len(shapes) + 1}")
    shapes = [*shapes, [kinds, held, tokens, stride], [arrays, batch * heads]]
    return run_cuda(code, shapes, [*types, "float32", "int64"], inputs)[:-2]


def supports_attention(q: Var, heads: int) -> bool:
    """Whether attention takes (B, T, D) of this type, length and head width.

    On tensor cores cuBLAS requires each matrix, so each head, to start at a multiple of 16 bytes.
    """
    if not jt.flags.use_cuda or q.dtype not in ("float32", "bfloat16"):
        return False
    bfloat16 = q.dtype == "bfloat16"
    head_bytes = q.shape[2] // heads * (2 if bfloat16 else 4)
    aligned = head_bytes % 16 == 0 or not (bfloat16 or jt.flags.use_tensorcore)
    return aligned and 2 * q.shape[1] <= SHARED_FLOATS


def attend(q: Var, k: Var, v: Var, heads: int) -> Var:
    """softmax(q kᵀ / √d) v per head: q, k, v (B, T, D) -> (B, T, D)."""
    return run_attention(FORWARD, [q.dtype], [q.shape], [q, k, v], heads)[0]


def attend_grad(q: Var, k: Var, v: Var, grad: Var, heads: int) -> list[Var]:
    """The gradients of q, k and v from the gradient of the result, each (B, T, D)."""
    shapes, types = [q.shape] * 3, [q.dtype] * 3
    return run_attention(BACKWARD, types, shapes, [q, k, v, grad], heads)


def propagate(row: Var, q: Var, k: Var, heads: int) -> Var:
    """row · softmax(q kᵀ / √d) per head, in float32: row (B, K, T); q, k (B, T, D) -> (B, K, T)."""
    return run_attention(PROPAGATE, ["float32"], [row.shape], [q, k, row], heads)[0]


def supports_norm(x: Var) -> bool:
    """Whether layer norm takes (..., D) of this type and width."""
    is_float32 = x.dtype == "float32"
    return bool(jt.flags.use_cuda) and is_float32 and 4 * x.shape[-1] <= SHARED_FLOATS


def norm(x: Var, weight: Var, bias: Var, eps: float) -> list[Var]:
    """Layer norm of (..., D), and for its backward pass mean and 1 / deviation, (...)."""
    shapes = [x.shape, x.shape[:-1], x.shape[:-1]]
    return run_cuda(NORM.replace("{eps}", repr(eps)), shapes, ["float32"] * 3, [x, weight, bias])


def norm_grad(x: Var, weight: Var, mean: Var, scale: Var, grad: Var) -> list[Var]:
    """The gradients of input (..., D), weight (D,) and bias (D,)."""
    blocks = min(NORM_BLOCKS, mean.numel())
    shapes = [x.shape, weight.shape, weight.shape, [blocks, 2 * weight.numel()]]
    return run_cuda(NORM_GRAD, shapes, ["float32"] * 4, [x, weight, mean, scale, grad])[:3]


def supports_products(z: Var) -> bool:
    """Whether the inner products of these rows need an operator: float64 on CUDA."""
    return bool(jt.flags.use_cuda) and z.dtype == "float64"


def inner_products(z: Var) -> Var:
    """z zᵀ in float64: (B, D) -> (B, B)."""
    return run_cuda(PRODUCTS, [[z.shape[0]] * 2], ["float64"], [z])[0]


def inner_products_grad(z: Var, grad: Var) -> Var:
    """The gradient of z (B, D), from that of z zᵀ (B, B)."""
    return run_cuda(PRODUCTS_GRAD, [z.shape], ["float64"], [z, grad])[0]
