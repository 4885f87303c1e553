"""Group norm and standardised weights, each as one operator on the CPU.

Jittor 1.3.11's own group norm computes the variance as E[x²] - E[x]², which cancels where the mean
is large, and its CPU kernels use one thread. The operators here take float32 on the CPU; elsewhere
plain formulas run. PyTorch has such operators, so this file has no twin.

Sources: Wu and He 2018 (arXiv 1803.08494); Qiao et al. 2019 (arXiv 1903.10520).
Shapes: B batch, G groups, C channels, H x W positions; F kernels.
"""

import jittor as jt
from jittor import Var

from transfg_jt.ops.bfloat16 import cast_like, to_float32
from transfg_jt.ops.cpu import KEEPING_NAN, on_cpu, run_cpu
from transfg_jt.ops.custom_grad import Function
from transfg_jt.ops.exact import number
from transfg_jt.ops.feature_maps import relu

# A group's channels lie side by side: `count` numbers, of `places` for each channel. Mean and
# 1 / √(variance + eps) of each group are outputs. Rows are summed in float32, their sums in double.
SIZES = """
    const int64_t C = in1->num, batch = in0->shape[0], places = in0->num / (batch * C);
    const int64_t G = {groups}, inner = C / G, count = inner * places;
"""
NORM = """
    #pragma omp parallel for schedule(static)
    for (int64_t group = 0; group < batch * G; group++) {
        const float* x = in0_p + group * count;
        double sum = 0, squares = 0;
        for (int64_t c = 0; c < inner; c++) {
            float part = 0.f;
            for (int64_t i = 0; i < places; i++) part += x[c * places + i];
            sum += part;
        }
        const float mean = sum / count;
        for (int64_t c = 0; c < inner; c++) {
            float part = 0.f;
            for (int64_t i = 0; i < places; i++) {
                const float centred = x[c * places + i] - mean;
                part += centred * centred;
            }
            squares += part;
        }
        const float scale = 1.f / std::sqrt((float)(squares / count) + {eps}f);
        for (int64_t c = 0; c < inner; c++) {
            const int64_t channel = group % G * inner + c;
            const float weight = in1_p[channel] * scale, bias = in2_p[channel];
            for (int64_t i = 0; i < places; i++) {
                const int64_t at = group * count + c * places + i;
                const float y = (in0_p[at] - mean) * weight + bias;
                out0_p[at] = {relu} && y < 0.f ? 0.f : y;
            }
        }
        out1_p[group] = mean;
        out2_p[group] = scale;
    }
"""

# With y = (x - mean) scale and h = g weight: dx = scale (h - mean(h) - y mean(h y)), as for layer
# norm. ReLU's gradient is zero where the output was not positive; the output is computed again.
# The sums over positions are kept for each image, then added for the gradients of weight and bias.
NORM_GRAD = """
    std::unique_ptr<double[]> sums(new double[2 * batch * C]);
    double *of_gy = sums.get(), *of_g = of_gy + batch * C;
    #pragma omp parallel for schedule(static)
    for (int64_t group = 0; group < batch * G; group++) {
        const float *x = in0_p + group * count, *g = in5_p + group * count;
        const float mean = in3_p[group], scale = in4_p[group];
        const int64_t first = group % G * inner, row = group / G * C + first;
        double of_h = 0, of_hy = 0;
        for (int64_t c = 0; c < inner; c++) {
            const float weight = in1_p[first + c], bias = in2_p[first + c];
            float by_g = 0.f, by_gy = 0.f;
            for (int64_t i = c * places; i < (c + 1) * places; i++) {
                const float y = (x[i] - mean) * scale;
                const float passed = {relu} && y * weight + bias <= 0.f ? 0.f : g[i];
                by_g += passed;
                by_gy += passed * y;
            }
            of_g[row + c] = by_g;
            of_gy[row + c] = by_gy;
            of_h += weight * by_g;
            of_hy += weight * by_gy;
        }
        const float mean_h = of_h / count, mean_hy = of_hy / count;
        for (int64_t c = 0; c < inner; c++) {
            const float weight = in1_p[first + c], bias = in2_p[first + c];
            for (int64_t i = c * places; i < (c + 1) * places; i++) {
                const float y = (x[i] - mean) * scale;
                const float passed = {relu} && y * weight + bias <= 0.f ? 0.f : g[i];
                out0_p[group * count + i] = scale * (passed * weight - mean_h - y * mean_hy);
            }
        }
    }
    for (int64_t c = 0; c < C; c++) {
        double weight = 0, bias = 0;
        for (int64_t b = 0; b < batch; b++) {
            weight += of_gy[b * C + c];
            bias += of_g[b * C + c];
        }
        out1_p[c] = weight;
        out2_p[c] = bias;
    }
"""

SMALLEST = 2e-38  # of variances: near the smallest float32
# (w - mean) / (deviation + eps) of each kernel; mean and deviation are outputs.
STANDARDISE = """
    const int64_t F = in0->shape[0], D = in0->num / F;
    #pragma omp parallel for schedule(static)
    for (int64_t f = 0; f < F; f++) {
        const float* w = in0_p + f * D;
        double sum = 0, squares = 0;  // a mean may be large beside the deviation
        for (int64_t i = 0; i < D; i++) sum += w[i];
        const float mean = sum / D;
        for (int64_t i = 0; i < D; i++) squares += (w[i] - mean) * (w[i] - mean);
        const float deviation = std::sqrt(squares / D), scale = 1.f / (deviation + {eps}f);
        for (int64_t i = 0; i < D; i++) out0_p[f * D + i] = (w[i] - mean) * scale;
        out1_p[f] = mean;
        out2_p[f] = deviation;
    }
"""
STANDARDISE_GRAD = """
    const int64_t F = in0->shape[0], D = in0->num / F;
    #pragma omp parallel for schedule(static)
    for (int64_t f = 0; f < F; f++) {
        const float *w = in0_p + f * D, *g = in3_p + f * D;
        const float mean = in1_p[f], deviation = in2_p[f], spread = deviation + {eps}f;
        float of_g = 0.f, of_gw = 0.f;
        for (int64_t i = 0; i < D; i++) {
            of_g += g[i];
            of_gw += g[i] * (w[i] - mean);
        }
        // a constant kernel has no deviation: 0 / 0
        const float share = deviation > 0 ? of_gw / D / (deviation * spread) : 0.f;
        const float mean_g = of_g / D;
        for (int64_t i = 0; i < D; i++)
            out0_p[f * D + i] = (g[i] - mean_g - (w[i] - mean) * share) / spread;
    }
"""


def filled(source: str, **values: object) -> str:
    """A source with the values in place of their names in braces."""
    for name, value in values.items():
        source = source.replace(f"{{{name}}}", str(value))
    return source


class FusedNorm(Function):
    """Group norm, and ReLU where asked for; saves input, weight, bias, means and scales."""

    def execute(
        self, x: Var, weight: Var, bias: Var, groups: int, eps: float, with_relu: bool
    ) -> Var:
        self.settings = {"groups": groups, "relu": str(with_relu).lower()}
        source = filled(SIZES + NORM, eps=repr(eps), **self.settings)
        statistics = [x.shape[0], groups]
        shapes = [x.shape, statistics, statistics]
        out, mean, scale = run_cpu(source, shapes, [x, weight, bias], KEEPING_NAN)
        self.save_for_backward(x, weight, bias, mean, scale)
        return out

    def grad(self, grad: Var) -> tuple:
        x, weight, *more = self.take_saved()
        source = filled(SIZES + NORM_GRAD, **self.settings)
        shapes = [x.shape, weight.shape, weight.shape]
        return *run_cpu(source, shapes, [x, weight, *more, grad], KEEPING_NAN), None, None, None


def group_norm(
    x: Var, groups: int, weight: Var, bias: Var, eps: float, with_relu: bool = False
) -> Var:
    """Group norm, then ReLU if `with_relu`: (B, C, H, W) -> (B, C, H, W), in the type of x."""
    wide = to_float32(x)
    if on_cpu(wide):
        return cast_like(FusedNorm.apply(wide, weight, bias, groups, eps, with_relu), x)
    rows = wide.reshape(x.shape[0], groups, -1, x.shape[-1])
    count = number(float(rows.shape[2] * rows.shape[3]), wide)
    centred = rows - rows.sum(-1).sum(-1).reshape(*rows.shape[:2], 1, 1) / count
    variance = (centred * centred).sum(-1).sum(-1).reshape(*rows.shape[:2], 1, 1) / count
    y = (centred / jt.sqrt(variance + number(eps, wide))).reshape(x.shape)
    y = cast_like(y * weight.reshape(1, -1, 1, 1) + bias.reshape(1, -1, 1, 1), x)
    return relu(y) if with_relu else y


class FusedStandardise(Function):
    """Standardised kernels; saves the kernels, mean and deviation."""

    def execute(self, weight: Var, eps: float) -> Var:
        self.eps = repr(eps)
        shapes = [weight.shape, weight.shape[:1], weight.shape[:1]]
        out, mean, deviation = run_cpu(filled(STANDARDISE, eps=self.eps), shapes, [weight])
        self.save_for_backward(weight, mean, deviation)
        return out

    def grad(self, grad: Var) -> tuple:
        weight, *more = self.take_saved()
        source = filled(STANDARDISE_GRAD, eps=self.eps)
        return run_cpu(source, [weight.shape], [weight, *more, grad])[0], None


def standardise(weight: Var, eps: float) -> Var:
    """(w - mean) / (deviation + eps) over all axes but the first: any shape."""
    if on_cpu(weight):
        return FusedStandardise.apply(weight, eps)
    flat = weight.reshape(weight.shape[0], -1)
    count = number(float(flat.shape[1]), flat)
    centred = flat - flat.sum(1, keepdims=True) / count
    variance = (centred * centred).sum(1, keepdims=True) / count
    # a constant kernel has variance 0, where the gradient of the root is infinite
    deviation = jt.sqrt(jt.maximum(variance, number(SMALLEST, flat)))
    return (centred / (deviation + number(eps, flat))).reshape(weight.shape)
