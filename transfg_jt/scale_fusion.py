"""The weights of SwinFC's feature fusion: what one map lacks and another has, in Jittor.

Source: Xiang, Chen and Yang 2023 (doi 10.3778/j.issn.1002-8331.2211-0456), equations 7 to 11.
Twin: `transfg_torch/scale_fusion.py`.

Shapes: B batch, N and S positions of two maps, F channels.
"""

from jittor import Var, nn

from transfg_jt.attention import HEADER
from transfg_jt.ops.cpu import on_cpu, run_cpu
from transfg_jt.ops.custom_grad import Function
from transfg_jt.ops.exact import number, softmax_grad
from transfg_jt.setup.onednn import onednn_include

# Columns that a thread holds at a time: their rows are whole cache lines.
TILE = 64  # native: CPU operator

# Jittor 1.3.11 multiplies batches of matrices without oneDNN and with one thread. So on the CPU the
# weights of one image after the other are computed in C++: the product with oneDNN on all threads,
# then both softmaxes, first over rows, then over columns in tiles, which overwrites the product
# (`m`). Sums over many positions are in float64, one for each thread.
SETUP = """
    const int64_t B = in0->shape[0], N = in0->shape[1], F = in0->shape[2], S = in1->shape[1];
    const int64_t most = std::max(N, S), tiles = (S + {tile} - 1) / {tile};
    const int threads = omp_get_max_threads();
    std::unique_ptr<float[]> scores(new float[{maps} * N * S]), line(new float[threads * S]);
    std::unique_ptr<double[]> sums(new double[threads * most]);
    float *m = scores.get(), *g = m + ({maps} - 1) * N * S;  // g: the gradient of m, in the second
    // OpenMP may give fewer threads than it was asked for: the sums of the others stay zero
    const auto clear = [&] { std::fill(sums.get(), sums.get() + threads * most, 0.); };
    for (int64_t b = 0; b < B; b++) {
        gemm('N', 'T', N, S, F, in0_p + b * N * F, F, in1_p + b * S * F, F, 0.f, m, S);
        {body}
    }
    if (failed.exchange(false))
        throw std::runtime_error("oneDNN: a matrix product failed; is memory short?");
"""  # native: CPU operator

# Softmax of -m over each row, as p (S,).
ROWS = """
        clear();
        #pragma omp parallel num_threads(threads)
        {
            float* p = line.get() + omp_get_thread_num() * S;
            double* sum = sums.get() + omp_get_thread_num() * most;
            #pragma omp for schedule(static)
            for (int64_t n = 0; n < N; n++) {
                const float *row = m + n * S, least = *std::min_element(row, row + S);
                float total = 0.f;
                for (int64_t s = 0; s < S; s++) total += p[s] = std::exp(least - row[s]);
                for (int64_t s = 0; s < S; s++) p[s] /= total;
                {row}
            }
        }
"""  # native: CPU operator

# Softmax of -m over each column, in m itself, column by column of a tile.
COLUMNS = """
        clear();
        #pragma omp parallel num_threads(threads)
        {
            double* sum = sums.get() + omp_get_thread_num() * most;
            #pragma omp for schedule(static)
            for (int64_t tile = 0; tile < tiles; tile++) {
                const int64_t first = tile * {tile}, width = std::min<int64_t>({tile}, S - first);
                float least[{tile}], total[{tile}] = {}, dot[{tile}] = {};
                std::copy(m + first, m + first + width, least);
                for (int64_t n = 1; n < N; n++)
                    for (int64_t s = 0; s < width; s++)
                        least[s] = std::min(least[s], m[n * S + first + s]);
                for (int64_t n = 0; n < N; n++)
                    for (int64_t s = 0; s < width; s++) {
                        float& p = m[n * S + first + s];
                        total[s] += p = std::exp(least[s] - p);
                    }
                for (int64_t n = 0; n < N; n++)
                    for (int64_t s = 0; s < width; s++) {
                        float& p = m[n * S + first + s];
                        p /= total[s];
                        {column}
                    }
                {tile_end}
            }
        }
"""  # native: CPU operator

MEAN = """
        for (int64_t i = 0; i < {count}; i++) {
            double total = 0;
            for (int t = 0; t < threads; t++) total += sums[t * most + i];
            {out}[b * {count} + i] = total / {other};
        }
"""  # native: CPU operator

FORWARD = (
    ROWS.replace("{row}", "for (int64_t s = 0; s < S; s++) sum[s] += p[s];")
    + MEAN.replace("{count}", "S").replace("{other}", "N").replace("{out}", "out1_p")
    + COLUMNS.replace("{column}", "sum[n] += p;").replace("{tile_end}", "")
    + MEAN.replace("{count}", "N").replace("{other}", "S").replace("{out}", "out0_p")
)  # native: CPU operator

# With p = softmax(-m) and d the gradient of p: the gradient of m is -p (d - sum of d p).
BACKWARD = (
    ROWS.replace(
        "{row}",
        """float dot = 0.f;
                const float* d = in3_p + b * S;
                for (int64_t s = 0; s < S; s++) dot += d[s] * p[s];
                for (int64_t s = 0; s < S; s++) g[n * S + s] = p[s] * (dot - d[s]) / N;""",
    )
    + COLUMNS.replace("{column}", "dot[s] += in2_p[b * N + n] * p;").replace(
        "{tile_end}",
        """for (int64_t n = 0; n < N; n++)
                    for (int64_t s = 0; s < width; s++) {
                        const int64_t at = n * S + first + s;
                        g[at] += m[at] * (dot[s] - in2_p[b * N + n]) / S;
                    }""",
    )
    + """
        gemm('N', 'N', N, F, S, g, S, in1_p + b * S * F, F, 0.f, out0_p + b * N * F, F);
        gemm('T', 'N', S, F, N, g, S, in0_p + b * N * F, F, 0.f, out1_p + b * S * F, F);
"""
)  # native: CPU operator


def run_kernel(source: str, shapes: list, inputs: list[Var]) -> list[Var]:  # native: CPU operator
    """Run one of the kernels above; one float32 output per shape."""
    maps = 2 if source is BACKWARD else 1
    source = SETUP.replace("{body}", source).replace("{maps}", str(maps))
    source = source.replace("{tile}", str(TILE))
    return run_cpu(source, shapes, inputs, HEADER, f"-I{onednn_include()}")


def unlike(x: Var, y: Var) -> Var:
    """-x yᵀ, large where two positions have little in common: (B, N, F), (B, S, F) -> (B, N, S)."""
    return -(x @ y.transpose(1, 2))


class LackingWeights(Function):  # native: a base class of each framework
    """See `lacking_weights`; saves x and y, and computes the maps of N x S again."""

    def execute(self, x: Var, y: Var) -> tuple[Var, Var]:
        self.save_for_backward(x, y)
        if on_cpu(x):
            return tuple(run_kernel(FORWARD, [x.shape[:2], y.shape[:2]], [x, y]))
        scores = unlike(x, y)
        # sums, since Jittor's mean has float32 constants
        by_x = nn.softmax(scores, dim=1).sum(2) / number(y.shape[1], x)
        return by_x, nn.softmax(scores, dim=2).sum(1) / number(x.shape[1], x)

    def grad(self, by_x: Var, by_y: Var) -> tuple[Var, Var]:
        x, y = self.take_saved()
        if on_cpu(x):
            return tuple(run_kernel(BACKWARD, [x.shape, y.shape], [x, y, by_x, by_y]))
        # detached: otherwise the graph of this gradient would keep all maps alive
        x, y, by_x, by_y = (value.detach() for value in (x, y, by_x, by_y))
        scores = unlike(x, y)
        by_x, by_y = by_x.unsqueeze(2), by_y.unsqueeze(1)
        grad = softmax_grad(nn.softmax(scores, dim=1), by_x / number(y.shape[1], x), 1)
        grad += softmax_grad(nn.softmax(scores, dim=2), by_y / number(x.shape[1], x), 2)
        return -(grad @ y), -(grad.transpose(1, 2) @ x)


def lacking_weights(x: Var, y: Var) -> tuple[Var, Var]:
    """Weights of the positions of x and of y: x (B, N, F), y (B, S, F) -> (B, N), (B, S).

    With M = x yᵀ (B, N, S), each position of x reads softmax(-M) over y's positions from y. Only
    the mean over x's positions is needed: y's weights are the mean over N of softmax(-M) over S.
    In the same way x's weights are the mean over S of softmax(-M) over N. Each sums to 1.
    """
    by_x, by_y = LackingWeights.apply(x, y)
    return by_x, by_y
