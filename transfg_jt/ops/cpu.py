"""Layer norm as one operator on the CPU, and how to run C++ there.

Jittor 1.3.11's own CPU kernels use one thread, and a chain of them reads and writes memory once
for each. The operators here take float32 on the CPU. CUDA has its own (cuda.py), and float64 uses
plain formulas, which stand where they are used. PyTorch has such operators, so this file has no
twin.

Shapes: R rows (all axes but the last), D width.
"""

import jittor as jt
from jittor import Var

HEADER = """
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <omp.h>
"""
# Jittor compiles with -Ofast, which assumes that no number is NaN; then a comparison may lose one.
KEEPING_NAN = HEADER + '#pragma GCC optimize("no-finite-math-only")\n'

# (x - mean) / sqrt(variance + eps) * weight + bias, the variance in a second pass. Mean and
# 1 / sqrt(...) of each row are outputs (Ba, Kiros and Hinton 2016, arXiv 1607.06450, equation 4).
NORM = """
    const int64_t D = in1->num, R = in0->num / D;
    #pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < R; r++) {
        const float* x = in0_p + r * D;
        float sum = 0.f, squares = 0.f;
        for (int64_t i = 0; i < D; i++) sum += x[i];
        const float mean = sum / D;
        for (int64_t i = 0; i < D; i++) squares += (x[i] - mean) * (x[i] - mean);
        const float scale = 1.f / std::sqrt(squares / D + {eps}f);
        for (int64_t i = 0; i < D; i++)
            out0_p[r * D + i] = (x[i] - mean) * scale * in1_p[i] + in2_p[i];
        out1_p[r] = mean;
        out2_p[r] = scale;
    }
"""

# With y = (x - mean) scale and h = g weight: dx = scale (h - mean(h) - y mean(h y)). The gradients
# of weight and bias are sums over rows of g y and g: each thread sums its rows, then the threads'
# sums are added.
NORM_GRAD = """
    const int64_t D = in1->num, R = in0->num / D;
    const int threads = omp_get_max_threads();
    std::unique_ptr<double[]> sums(new double[threads * 2 * D]());
    #pragma omp parallel num_threads(threads)
    {
        double *dw = sums.get() + omp_get_thread_num() * 2 * D, *db = dw + D;
        #pragma omp for schedule(static)
        for (int64_t r = 0; r < R; r++) {
            const float *x = in0_p + r * D, *g = in4_p + r * D;
            const float mean = in2_p[r], scale = in3_p[r];
            float of_h = 0.f, of_hy = 0.f;
            for (int64_t i = 0; i < D; i++) {
                const float y = (x[i] - mean) * scale, h = g[i] * in1_p[i];
                of_h += h;
                of_hy += h * y;
            }
            of_h /= D;
            of_hy /= D;
            for (int64_t i = 0; i < D; i++) {
                const float y = (x[i] - mean) * scale;
                out0_p[r * D + i] = scale * (g[i] * in1_p[i] - of_h - y * of_hy);
                dw[i] += g[i] * y;
                db[i] += g[i];
            }
        }
    }
    for (int64_t i = 0; i < D; i++) {
        double w = 0, b = 0;
        for (int t = 0; t < threads; t++) {
            w += sums[t * 2 * D + i];
            b += sums[t * 2 * D + D + i];
        }
        out1_p[i] = w;
        out2_p[i] = b;
    }
"""


def on_cpu(x: Var) -> bool:
    """Whether the C++ operators support x: float32 on the CPU."""
    return not jt.flags.use_cuda and x.dtype == "float32"


def run_cpu(
    source: str,
    shapes: list,
    inputs: list[Var],
    header: str = HEADER,
    include: str = "",
    data: dict[str, float] | None = None,
) -> list[Var]:
    """Run C++ on arrays `in0_p`, ... into float32 arrays `out0_p`, ... of the given shapes.

    The source reads the numbers of `data` as `data["name"]`. They are no part of the compiled
    operator, so other numbers compile nothing again.

    Signals wait meanwhile, so that no thread that OpenMP starts here ever runs a signal's handler:
    oneDNN will use these threads too (setup/include/transfg_signals.h).
    """
    header = f"#include <transfg_signals.h>\n{header}"
    source = f"transfg::SignalsWait wait;\n{source}"
    with jt.flag_scope(compile_options={f"FLAGS: {include} -fopenmp ": 1}):
        return jt.code(
            shapes,
            ["float32"] * len(shapes),
            inputs,
            cpu_header=header,
            cpu_src=source,
            data=data or {},
        )


def norm(x: Var, weight: Var, bias: Var, eps: float) -> list[Var]:
    """Layer norm of (..., D), and for its backward pass mean and 1 / deviation, (...)."""
    shapes = [x.shape, x.shape[:-1], x.shape[:-1]]
    return run_cpu(NORM.replace("{eps}", repr(eps)), shapes, [x, weight, bias])


def norm_grad(x: Var, weight: Var, mean: Var, scale: Var, grad: Var) -> list[Var]:
    """The gradients of input (..., D), weight (D,) and bias (D,)."""
    shapes = [x.shape, weight.shape, weight.shape]
    return run_cpu(NORM_GRAD, shapes, [x, weight, mean, scale, grad])
