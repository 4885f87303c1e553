"""Attention of the Vision Transformer, and single rows of its maps for part selection.

Source: Dosovitskiy et al. 2021 (arXiv 2010.11929), equations 5 to 8; He et al. 2022 (arXiv
2103.07976), section 3.2. Twin: `transfg_torch/attention.py`.

Queries, keys and values stay in the layout of the linear layers, (B, T, D), heads side by side.
Shapes: B batch, T tokens, D width, K heads, d = D / K.
"""

from jittor import Var, nn

from transfg_jt.ops import cuda as cuda_ops
from transfg_jt.ops.bfloat16 import cast_like_no_grad, to_float32
from transfg_jt.ops.cpu import on_cpu, run_cpu
from transfg_jt.ops.custom_grad import Function
from transfg_jt.ops.exact import number
from transfg_jt.setup.onednn import onednn_include

ROWS = 128  # rows of a T x T map in memory at a time: they fit into the processor's cache

# Jittor 1.3.11 has no fused attention, its batched matmul on the CPU does not use oneDNN, and its
# own CPU kernels use one thread. So on the CPU attention is one operator, written in C++ with
# oneDNN's sgemm. Each (image, head) runs on one thread, which holds ROWS rows of its map at a time,
# so that they stay in the cache. The backward pass recomputes them from q and k. CUDA has its own
# operator (ops/cuda.py). float64, and sizes that the CUDA operator does not support, use plain
# formulas, which form the map of one layer at a time. `gemm` multiplies two row-major matrices and
# adds `beta` times the old result; `ld` is the row stride of (B, T, D) arrays.
HEADER = r"""
#include <algorithm>
#include <cmath>
#include <atomic>
#include <memory>
#include <stdexcept>
#include <dnnl.h>
#include <omp.h>
static std::atomic<bool> failed{false};
static inline void gemm(char ta, char tb, int64_t m, int64_t n, int64_t k, const float* a,
                        int64_t lda, const float* b, int64_t ldb, float beta, float* c,
                        int64_t ldc) {
    if (dnnl_sgemm(ta, tb, m, n, k, 1.f, a, lda, b, ldb, beta, c, ldc) != dnnl_success)
        failed = true;
}
// p (n, T) = softmax(q k^T * scale) by rows, for n queries of one head
static inline void probabilities(const float* q, const float* k, float* p, int64_t n, int64_t T,
                                 int64_t d, int64_t ld) {
    const float scale = 1.f / std::sqrt((float)d);
    gemm('N', 'T', n, T, d, q, ld, k, ld, 0.f, p, T);
    for (int64_t i = 0; i < n; i++) {
        float* row = p + i * T;
        float top = row[0], sum = 0.f;
        for (int64_t j = 1; j < T; j++) top = std::max(top, row[j]);
        for (int64_t j = 0; j < T; j++) sum += row[j] = std::exp((row[j] - top) * scale);
        const float inverse = 1.f / sum;
        for (int64_t j = 0; j < T; j++) row[j] *= inverse;
    }
}
"""  # native: the CPU operators, see above

# There are no more threads than pairs. Their buffers are allocated before the threads start, so
# that a lack of memory raises an exception that can be caught.
SETUP = """
    const int64_t B = in0->shape[0], T = in0->shape[1], ld = in0->shape[2];
    const int64_t K = {heads}, d = ld / K, rows = std::min<int64_t>(T, {rows});
    const int threads = (int)std::min<int64_t>(B * K, omp_get_max_threads());
    std::unique_ptr<float[]> maps(new float[threads * {maps} * rows * T]);
"""  # native: CPU operator

# The loop around the work on one (image, head) and n rows of its map from row i on. `o` is the
# offset of the pair in (B, T, D) arrays, and `at` the offset of these rows.
LOOP = """
    #pragma omp parallel num_threads(threads)
    {
        float* p = maps.get() + omp_get_thread_num() * {maps} * rows * T;
        #pragma omp for schedule(dynamic, 1)
        for (int64_t pair = 0; pair < B * K; pair++) {
            const int64_t o = (pair / K) * T * ld + (pair % K) * d;
            for (int64_t i = 0; i < T; i += rows) {
                const int64_t n = std::min(rows, T - i), at = o + i * ld;
                const float beta = i == 0 ? 0.f : 1.f;  // what is summed over rows starts at 0
                probabilities(in0_p + at, in1_p + o, p, n, T, d, ld);
                {body}
            }
        }
    }
    if (failed.exchange(false))
        throw std::runtime_error("oneDNN: a matrix product failed; is memory short?");
"""  # native: CPU operator

FORWARD = """
                gemm('N', 'N', n, d, T, p, T, in2_p + o, ld, 0.f, out0_p + at, ld);
"""  # native: CPU operator

# With P = softmax(S), S = q k^T * scale and g the gradient of the output:
# dv = P^T g, dP = g v^T, dS = P (dP - sum_j dP P) * scale, dq = dS k, dk = dS^T q.
BACKWARD = """
                const float scale = 1.f / std::sqrt((float)d);
                float* ds = p + rows * T;
                gemm('T', 'N', T, d, n, p, T, in3_p + at, ld, beta, out2_p + o, ld);
                gemm('N', 'T', n, T, d, in3_p + at, ld, in2_p + o, ld, 0.f, ds, T);
                for (int64_t r = 0; r < n; r++) {
                    float *pr = p + r * T, *dr = ds + r * T, dot = 0.f;
                    for (int64_t j = 0; j < T; j++) dot += dr[j] * pr[j];
                    for (int64_t j = 0; j < T; j++) dr[j] = pr[j] * (dr[j] - dot) * scale;
                }
                gemm('N', 'N', n, d, T, ds, T, in1_p + o, ld, 0.f, out0_p + at, ld);
                gemm('T', 'N', T, d, n, ds, T, in0_p + at, ld, beta, out1_p + o, ld);
"""  # native: CPU operator

PROPAGATE = """
                gemm('N', 'N', 1, T, n, in2_p + pair * T + i, T, p, T, beta, out0_p + pair * T, T);
"""  # native: CPU operator


def run_kernel(  # native: CPU operator
    source: str, shapes: list, inputs: list[Var], heads: int
) -> list[Var]:
    """Run one of the kernels above; one float32 output per shape."""
    maps = 2 if source is BACKWARD else 1  # buffers of each thread
    code = (SETUP + LOOP).replace("{body}", source)
    for name, value in (("heads", heads), ("maps", maps), ("rows", ROWS)):
        code = code.replace(f"{{{name}}}", str(value))
    return run_cpu(code, shapes, inputs, HEADER, f"-I{onednn_include()}")


def at_least_float32(x: Var) -> Var:
    """Half precision becomes float32; float32 and float64 stay: any shape."""
    return to_float32(x)  # jittor: bfloat16 is the only half precision here


def split_heads(x: Var, heads: int) -> Var:
    """(B, T, D) -> (B, K, T, d)."""
    batch, tokens, width = x.shape
    return x.reshape(batch, tokens, heads, width // heads).transpose(1, 2)


def join_heads(x: Var) -> Var:  # native: for FusedAttention
    """(B, K, T, d) -> (B, T, D)."""
    return x.transpose(1, 2).flatten(2)


def attention_map(q: Var, k: Var) -> Var:  # native: for FusedAttention
    """softmax(q kᵀ / √d): q, k (B, K, T, d) -> (B, K, T, T)."""
    return nn.softmax(q @ k.transpose(-2, -1) * number(q.shape[-1] ** -0.5, q), dim=-1)


class FusedAttention(Function):  # native: PyTorch has such an operator
    """softmax(q kᵀ / √d) v as one operator, which saves q, k and v."""

    def execute(self, q: Var, k: Var, v: Var, heads: int) -> Var:
        self.save_for_backward(q, k, v, heads)
        if cuda_ops.supports_attention(q, heads):
            return cuda_ops.attend(q, k, v, heads)
        like = q
        q, k, v = (at_least_float32(x) for x in (q, k, v))
        if on_cpu(q):
            out = run_kernel(FORWARD, [q.shape], [q, k, v], heads)[0]
            return cast_like_no_grad(out, like)
        q, k, v = (split_heads(x, heads) for x in (q, k, v))
        return cast_like_no_grad(join_heads(attention_map(q, k) @ v), like)

    def grad(self, grad: Var) -> tuple:
        q, k, v, heads = self.take_saved()
        if cuda_ops.supports_attention(q, heads):
            grad = cast_like_no_grad(grad, q)
            return (*cuda_ops.attend_grad(q, k, v, grad, heads), None)
        like = q
        q, k, v, grad = (at_least_float32(x) for x in (q, k, v, grad))
        if on_cpu(q):
            grads = run_kernel(BACKWARD, [q.shape] * 3, [q, k, v, grad], heads)
            return (*(cast_like_no_grad(x, like) for x in grads), None)
        # detached: otherwise the graph of this gradient would keep all maps alive
        q, k, v, grad = (split_heads(x.detach(), heads) for x in (q, k, v, grad))
        p, dp = attention_map(q, k), grad @ v.transpose(-2, -1)
        ds = p * (dp - (dp * p).sum(-1, keepdims=True)) * number(q.shape[-1] ** -0.5, q)
        products = ds @ k, ds.transpose(-2, -1) @ q, p.transpose(-2, -1) @ grad
        return (*(cast_like_no_grad(join_heads(x), like) for x in products), None)


def attention(q: Var, k: Var, v: Var, heads: int) -> Var:
    """softmax(q kᵀ / √d) v per head; stores no T x T map: q, k, v (B, T, D) -> (B, T, D)."""
    return FusedAttention.apply(q, k, v, heads)  # jittor: see above


def cls_scores(q: Var, k: Var, heads: int) -> Var:
    """Scores of the class token before the softmax, row 0 of q kᵀ / √d, in float32 or float64.

    q, k (B, T, D) -> (B, K, T).
    """
    q, k = (split_heads(at_least_float32(x), heads) for x in (q, k))
    # jittor block for 1 line: exact in float64
    scale = number(q.shape[-1] ** -0.5, q)
    return (q[:, :, :1] * k).sum(-1) * scale


def propagate(row: Var, q: Var, k: Var, heads: int) -> Var:  # native: C++ on CPU and CUDA
    """row · softmax(q kᵀ / √d) per head: row (B, K, T); q, k (B, T, D) -> (B, K, T)."""
    if cuda_ops.supports_attention(q, heads):
        return cuda_ops.propagate(row, q, k, heads)
    q, k = at_least_float32(q), at_least_float32(k)
    if on_cpu(q):
        return run_kernel(PROPAGATE, [row.shape], [q, k, row], heads)[0]
    q, k = split_heads(q, heads), split_heads(k, heads)
    return (row.unsqueeze(-2) @ attention_map(q, k)).squeeze(-2)
