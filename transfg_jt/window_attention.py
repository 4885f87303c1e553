"""Attention within the windows of a map, with a learned bias for each offset.

Source: Liu et al. 2021, Swin Transformer (arXiv 2103.14030), section 3.2 and equation 4;
transfg_core/models/windows.py says which tokens a window holds.
Twin: `transfg_torch/window_attention.py`.

Queries, keys and values lie in the order of the map, row by row, heads side by side.
Shapes: B batch, U tokens of the padded map, D width, K heads, d = D / K; n windows of N tokens; W
rows of the bias table.
"""

from math import prod

import jittor as jt
import numpy as np
from jittor import Var, nn

from transfg_core.models.windows import Windows
from transfg_jt.attention import HEADER, at_least_float32
from transfg_jt.ops.bfloat16 import cast_like_no_grad
from transfg_jt.ops.cpu import on_cpu, run_cpu
from transfg_jt.ops.custom_grad import Function
from transfg_jt.ops.exact import number
from transfg_jt.setup.onednn import onednn_include

APART = -1e30  # added to scores between regions: their softmax is exactly 0

# On the CPU window attention is one operator, for the reasons in attention.py. A thread takes the
# windows of all images head by head, copies the tokens of one window and head into small arrays,
# and multiplies them with oneDNN's sgemm. So no map and no copy of a whole batch is stored. The
# backward pass recomputes the maps. Each thread sums the gradient of the scores over its windows of
# a head, before it adds the sum to its rows of the table.
GATHER = """
// x (N, d) = tokens `order` of one head, times `scale`
static inline void gather(const float* from, float* x, const int* order, int64_t N, int64_t d,
                          int64_t ld, float scale) {
    for (int64_t i = 0; i < N; i++)
        for (int64_t c = 0; c < d; c++) x[i * d + c] = from[order[i] * ld + c] * scale;
}
static inline void scatter(const float* x, float* to, const int* order, int64_t N, int64_t d,
                           int64_t ld, float scale) {
    for (int64_t i = 0; i < N; i++)
        for (int64_t c = 0; c < d; c++) to[order[i] * ld + c] = x[i * d + c] * scale;
}
// p (N, N) = softmax(q k^T + bias) by rows, within regions
static inline void window_map(const float* q, const float* k, const float* bias,
                              const int* regions, float* p, int64_t N, int64_t d) {
    gemm('N', 'T', N, N, d, q, d, k, d, 0.f, p, N);
    for (int64_t i = 0; i < N; i++) {
        float *row = p + i * N, top = {apart}f, sum = 0.f;
        const float* added = bias + i * N;
        const int own = regions[i];
        for (int64_t j = 0; j < N; j++) {
            row[j] = regions[j] == own ? row[j] + added[j] : {apart}f;
            top = std::max(top, row[j]);
        }
        for (int64_t j = 0; j < N; j++) sum += row[j] = std::exp(row[j] - top);
        const float inverse = 1.f / sum;
        for (int64_t j = 0; j < N; j++) row[j] *= inverse;
    }
}
""".replace("{apart}", str(APART))  # native: CPU operator

# {tiles} arrays of N tokens and {maps} of N x N numbers for each thread; `bias` is the first of
# these. {enter} and {leave} run where a thread begins and ends with the windows of a head.
LOOP = """
    const int64_t K = in0->shape[1], n = in1->shape[0], N = in1->shape[1];
    const int64_t B = in4->shape[0], U = in4->shape[1], ld = in4->shape[2], d = ld / K;
    const float scale = 1.f / std::sqrt((float)d);
    const int threads = (int)std::min<int64_t>(K * B * n, omp_get_max_threads());
    const int64_t share = {tiles} * N * d + {maps} * N * N;
    std::unique_ptr<float[]> buffers(new float[threads * share]);
    {before}
    #pragma omp parallel num_threads(threads)
    {
        float *tiles = buffers.get() + omp_get_thread_num() * share;
        float *bias = tiles + {tiles} * N * d, *p = bias + N * N;
        float *q = tiles, *k = q + N * d, *v = k + N * d;
        int64_t head = -1;
        #pragma omp for schedule(static)
        for (int64_t item = 0; item < K * B * n; item++) {
            const int64_t h = item / (B * n), image = item / n % B, window = item % n;
            if (h != head) {
                {leave}
                head = h;
                for (int64_t e = 0; e < N * N; e++) bias[e] = in0_p[in2_p[e] * K + h];
                {enter}
            }
            const int *order = in1_p + window * N, *regions = in3_p + window * N;
            const int64_t o = image * U * ld + h * d;
            gather(in4_p + o, q, order, N, d, ld, scale);
            gather(in5_p + o, k, order, N, d, ld, 1.f);
            window_map(q, k, bias, regions, p, N, d);
            {body}
        }
        {leave}
    }
    {after}
    if (failed.exchange(false))
        throw std::runtime_error("oneDNN: a matrix product failed; is memory short?");
"""  # native: CPU operator

FORWARD = {  # native: CPU operator
    "tiles": "3",
    "maps": "2",
    "body": """
            gather(in6_p + o, v, order, N, d, ld, 1.f);
            gemm('N', 'N', N, d, N, p, N, v, d, 0.f, q, d);
            scatter(q, out0_p + o, order, N, d, ld, 1.f);
""",
}

# The formulas of attention.py; the gradient of the bias is that of the scores.
BACKWARD = {  # native: CPU operator
    "tiles": "5",
    "maps": "4",
    "before": """
    const int64_t W = in0->shape[0];
    std::unique_ptr<double[]> tables(new double[threads * W * K]());
""",
    "enter": "std::fill(p + 2 * N * N, p + 3 * N * N, 0.f);",
    "body": """
            float *g = v + N * d, *result = g + N * d, *ds = p + N * N, *total = ds + N * N;
            gather(in6_p + o, v, order, N, d, ld, 1.f);
            gather(in7_p + o, g, order, N, d, ld, 1.f);
            gemm('T', 'N', N, d, N, p, N, g, d, 0.f, result, d);
            scatter(result, out2_p + o, order, N, d, ld, 1.f);
            gemm('N', 'T', N, N, d, g, d, v, d, 0.f, ds, N);
            for (int64_t i = 0; i < N; i++) {
                float *pr = p + i * N, *dr = ds + i * N, *tr = total + i * N, dot = 0.f;
                for (int64_t j = 0; j < N; j++) dot += dr[j] * pr[j];
                for (int64_t j = 0; j < N; j++) tr[j] += dr[j] = pr[j] * (dr[j] - dot);
            }
            gemm('N', 'N', N, d, N, ds, N, k, d, 0.f, result, d);
            scatter(result, out0_p + o, order, N, d, ld, scale);
            gemm('T', 'N', N, d, N, ds, N, q, d, 0.f, result, d);  // q is scaled
            scatter(result, out1_p + o, order, N, d, ld, 1.f);
""",
    "leave": """
                double* table = tables.get() + omp_get_thread_num() * W * K;
                if (head >= 0)
                    for (int64_t e = 0; e < N * N; e++)
                        table[in2_p[e] * K + head] += p[2 * N * N + e];
""",
    "after": """
    for (int64_t e = 0; e < W * K; e++) {
        double sum = 0;
        for (int t = 0; t < threads; t++) sum += tables[t * W * K + e];
        out3_p[e] = sum;
    }
""",
}

MEANS = {  # native: CPU operator
    "tiles": "2",
    "maps": "2",
    "body": """
            float* means = out0_p + (image * K + h) * U;
            for (int64_t j = 0; j < N; j++) {
                float sum = 0.f;
                for (int64_t i = 0; i < N; i++) sum += p[i * N + j];
                means[order[j]] = sum / N;
            }
""",
}


def run_kernel(  # native: CPU operator
    kernel: dict[str, str], shapes: list, table: Var, windows: Windows, inputs: list[Var]
) -> list[Var]:
    """Run one of the kernels above; one float32 output per shape."""
    code = LOOP
    for name in ("before", "enter", "body", "leave", "after", "tiles", "maps"):
        code = code.replace(f"{{{name}}}", kernel.get(name, ""))
    indices = (windows.order, windows.offsets, windows.regions)
    constants = [jt.array(index.astype(np.int32)) for index in indices]
    include = f"-I{onednn_include()}"
    return run_cpu(code, shapes, [table, *constants, *inputs], HEADER + GATHER, include)


def split_windows(x: Var, heads: int, windows: Windows) -> Var:  # native: for float64 and CUDA
    """(B, U, D) -> (B, n, K, N, d), without a gradient."""
    batch, _, width = x.shape
    x = x.detach()[:, jt.array(windows.order.reshape(-1))]
    return x.reshape(batch, windows.count, -1, heads, width // heads).transpose(2, 3)


def join_windows(x: Var, windows: Windows) -> Var:  # native: as above
    """(B, n, K, N, d) -> (B, U, D), without a gradient."""
    batch, _, heads, _, head = x.shape
    rows = x.detach().transpose(2, 3).reshape(batch, -1, heads * head)
    return rows[:, jt.array(windows.order.reshape(-1).argsort())]


def score_bias(table: Var, windows: Windows) -> Var:  # native: for float64 and CUDA
    """What is added to the scores: (W, K) -> (n, K, N, N), or (1, K, N, N) if all are equal."""
    size = prod(windows.sides)
    bias = table[jt.array(windows.offsets.reshape(-1))].transpose(0, 1).reshape(1, -1, size, size)
    regions = windows.regions
    apart = regions[:, None, :, None] != regions[:, None, None, :]
    return bias + jt.array(APART * apart).cast(table.dtype) if apart.any() else bias


def window_maps(q: Var, k: Var, bias: Var) -> Var:  # native: for float64 and CUDA
    """softmax(q kᵀ / √d + bias) of b images.

    q, k (b, n, K, N, d), bias (n or 1, K, N, N) -> (b, n, K, N, N).
    """
    scores = q @ k.transpose(-2, -1) * number(q.shape[-1] ** -0.5, q)
    return nn.softmax(scores + bias, dim=-1)


class FusedWindowAttention(Function):  # native: PyTorch has only the forward pass
    """Window attention, which saves queries, keys and values and recomputes maps."""

    def execute(self, q: Var, k: Var, v: Var, table: Var, windows: Windows) -> Var:
        self.save_for_backward(q, k, v, table, windows)
        like, heads = q, table.shape[1]
        q, k, v = (at_least_float32(x) for x in (q, k, v))
        if on_cpu(q):
            out = run_kernel(FORWARD, [q.shape], table, windows, [q, k, v])[0]
            return cast_like_no_grad(out, like)
        q, k, v = (split_windows(x, heads, windows) for x in (q, k, v))
        maps = window_maps(q, k, score_bias(table.detach(), windows))
        return cast_like_no_grad(join_windows(maps @ v, windows), like)

    def grad(self, grad: Var) -> tuple:
        q, k, v, table, windows = self.take_saved()
        like, heads = q, table.shape[1]
        q, k, v, grad = (at_least_float32(x) for x in (q, k, v, grad))
        if on_cpu(q):
            shapes = [*[q.shape] * 3, table.shape]
            *grads, by_table = run_kernel(BACKWARD, shapes, table, windows, [q, k, v, grad])
            return (*(cast_like_no_grad(x, like) for x in grads), by_table, None)
        q, k, v, grad = (split_windows(x, heads, windows) for x in (q, k, v, grad))
        p = window_maps(q, k, score_bias(table.detach(), windows))
        dp = grad @ v.transpose(-2, -1)
        ds = p * (dp - (dp * p).sum(-1, keepdims=True))
        scale = number(q.shape[-1] ** -0.5, q)
        products = ds @ k * scale, ds.transpose(-2, -1) @ q * scale, p.transpose(-2, -1) @ grad
        rows = ds.sum(0).sum(0).reshape(heads, -1).transpose(0, 1)
        offsets = jt.array(windows.offsets.reshape(-1))
        by_table = rows.reindex_reduce("add", table.shape, ["@e0(i0)", "i1"], extras=[offsets])
        grads = (cast_like_no_grad(join_windows(x, windows), like) for x in products)
        return (*grads, by_table, None)


def window_attention(q: Var, k: Var, v: Var, table: Var, windows: Windows) -> Var:
    """softmax(q kᵀ / √d + bias) v per window and head (equation 4); stores no map.

    q, k, v (B, U, D), table (W, K) -> (B, U, D). A token attends only to tokens of its own window
    and region (`Windows.regions`).
    """
    return FusedWindowAttention.apply(q, k, v, table, windows)


def column_means(  # native: the CPU's operator is in C++
    q: Var, k: Var, table: Var, windows: Windows
) -> Var:
    """Mean attention that each token receives from the tokens of its window, without a gradient.

    q, k (B, U, D), table (W, K) -> (B, K, U), in float32 or float64.
    """
    heads = table.shape[1]
    with jt.no_grad():
        q, k = at_least_float32(q), at_least_float32(k)
        if on_cpu(q):
            shape = [q.shape[0], heads, q.shape[1]]
            return run_kernel(MEANS, [shape], table, windows, [q, k])[0]
        q, k = (split_windows(x, heads, windows) for x in (q, k))
        maps = window_maps(q, k, score_bias(table, windows))
        means = (maps.sum(-2) / number(float(maps.shape[-1]), maps)).unsqueeze(-1)
        return join_windows(means, windows).transpose(1, 2)
