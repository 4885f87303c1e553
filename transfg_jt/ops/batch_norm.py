"""Batch norm as operators over channels on the CPU, with its variance in a second pass.

Jittor 1.3.11's own computes the variance as E[x²] - E[x]², which cancels, and a chain of its
kernels reads memory once for each, with one thread. PyTorch has such an operator, so this file has
no twin.

Source: Ioffe and Szegedy 2015 (arXiv 1502.03167), algorithm 1 and the gradients after it. Shapes: B
batch, F channels, then any number of positions.
"""

import jittor as jt
from jittor import Var

from transfg_jt.ops.cpu import on_cpu, run_cpu
from transfg_jt.ops.custom_grad import Function
from transfg_jt.ops.exact import number

# P positions of each channel in each image; a thread takes whole channels
SIZES = """
    const int64_t B = in0->shape[0], F = in0->shape[1], P = in0->num / (B * F), count = B * P;
"""

# Mean and biased variance of each channel, summed in float64.
MOMENTS = """
    #pragma omp parallel for schedule(static)
    for (int64_t f = 0; f < F; f++) {
        double sum = 0, squares = 0;
        for (int64_t b = 0; b < B; b++) {
            const float* x = in0_p + (b * F + f) * P;
            for (int64_t i = 0; i < P; i++) sum += x[i];
        }
        const float mean = sum / count;
        for (int64_t b = 0; b < B; b++) {
            const float* x = in0_p + (b * F + f) * P;
            for (int64_t i = 0; i < P; i++) squares += (x[i] - mean) * (x[i] - mean);
        }
        out0_p[f] = mean;
        out1_p[f] = squares / count;
    }
"""

# (x - mean) / sqrt(variance + eps) * weight + bias; inputs: x, weight, bias, mean, variance
NORMALISE = """
    const float eps = data["eps"];
    #pragma omp parallel for schedule(static)
    for (int64_t f = 0; f < F; f++) {
        const float mean = in3_p[f], bias = in2_p[f];
        const float scale = in1_p[f] / std::sqrt(in4_p[f] + eps);
        for (int64_t b = 0; b < B; b++) {
            const float* x = in0_p + (b * F + f) * P;
            float* y = out0_p + (b * F + f) * P;
            for (int64_t i = 0; i < P; i++) y[i] = (x[i] - mean) * scale + bias;
        }
    }
"""

# With y = (x - mean) / sqrt(variance + eps): the gradients of weight and bias are the sums of g y
# and g, and dx = weight / sqrt(variance + eps) (g - mean(g) - y mean(g y)). Without the two means,
# where mean and variance are constants. Inputs: x, weight, mean, variance, g
GRADIENTS = """
    const float eps = data["eps"];
    const bool by_batch = data["by_batch"];
    #pragma omp parallel for schedule(static)
    for (int64_t f = 0; f < F; f++) {
        const float mean = in2_p[f], scale = 1.f / std::sqrt(in3_p[f] + eps);
        double of_g = 0, of_gy = 0;
        for (int64_t b = 0; b < B; b++) {
            const float *x = in0_p + (b * F + f) * P, *g = in4_p + (b * F + f) * P;
            for (int64_t i = 0; i < P; i++) {
                of_g += g[i];
                of_gy += g[i] * (x[i] - mean);
            }
        }
        of_gy *= scale;
        out1_p[f] = of_gy;
        out2_p[f] = of_g;
        const float shift = by_batch ? of_g / count : 0, slope = by_batch ? of_gy / count : 0;
        for (int64_t b = 0; b < B; b++) {
            const float *x = in0_p + (b * F + f) * P, *g = in4_p + (b * F + f) * P;
            float* dx = out0_p + (b * F + f) * P;
            for (int64_t i = 0; i < P; i++)
                dx[i] = in1_p[f] * scale * (g[i] - shift - (x[i] - mean) * scale * slope);
        }
    }
"""

Statistics = tuple[Var, Var]  # mean and variance of each channel, (F,)


class FusedBatchNorm(Function):
    """Batch norm in float32 on the CPU; saves input, weight, mean and variance.

    `by_batch` says that mean and variance are those of x, through which a gradient flows.
    """

    def execute(
        self, x: Var, weight: Var, bias: Var, statistics: Statistics, by_batch: bool, eps: float
    ) -> Var:
        data = {"eps": eps, "by_batch": float(by_batch)}
        self.save_for_backward(x, weight, statistics, data)
        inputs = [x, weight, bias, *statistics]
        return run_cpu(SIZES + NORMALISE, [x.shape], inputs, data=data)[0]

    def grad(self, grad: Var) -> tuple:
        x, weight, statistics, data = self.take_saved()
        shapes = [x.shape, weight.shape, weight.shape]
        inputs = [x, weight, *statistics, grad]
        return (*run_cpu(SIZES + GRADIENTS, shapes, inputs, data=data), None, None, None)


def moments(x: Var) -> Statistics:
    """Mean and biased variance of each channel, in float32 on the CPU: (B, F, ...) -> (F,)."""
    channels = [[x.shape[1]]] * 2
    mean, var = run_cpu(SIZES + MOMENTS, channels, [x.detach()])
    return mean.stop_grad(), var.stop_grad()


def batch_norm(
    x: Var, weight: Var, bias: Var, statistics: Statistics | None, eps: float
) -> tuple[Var, Var, Var]:
    """(x - mean) / √(variance + eps) · weight + bias by channels, and the mean and variance.

    These are the given statistics, else the batch's mean and biased variance: (B, F, ...), (F,),
    (F,) -> (B, F, ...), (F,), (F,), in float32 or float64.
    """
    if on_cpu(x):
        used = statistics or moments(x)
        return FusedBatchNorm.apply(x, weight, bias, used, statistics is None, eps), *used
    if statistics is None:
        count = number(x.numel() // x.shape[1], x)
        mean = sum_over_positions(x) / count
        centred = x - across(mean, x)
        var = sum_over_positions(centred * centred) / count
    else:
        mean, var = statistics
        centred = x - across(mean, x)
    scale = weight / jt.sqrt(var + number(eps, var))
    return centred * across(scale, x) + across(bias, x), mean, var


def across(channels: Var, x: Var) -> Var:
    """One value for each channel, to be combined with x: (F,) -> (1, F, 1, ...)."""
    return channels.reshape(1, -1, *[1] * (x.ndim - 2))


def sum_over_positions(x: Var) -> Var:
    """Sum over all axes but the channels, axis by axis: (B, F, ...) -> (F,)."""
    while x.ndim > 2:
        x = x.sum(-1)
    return x.sum(0)
