"""ReLU, residual sums and max pools of feature maps, as operators that save little.

Jittor 1.3.11's own CPU kernels use one thread. Its ReLU saves its input beside its output, which
the next layer saves anyway, and its max pool refuses small maps. Both lose NaN. The operators here
take float32 and bfloat16 on the CPU; elsewhere plain formulas run. PyTorch has such operators, so
this file has no twin.

Shapes: B batch, F channels, H and W input, h and w output.
"""

import jittor as jt
from jittor import Var

from transfg_jt.ops.bfloat16 import cast_like, cast_like_no_grad, is_bfloat16, to_float32
from transfg_jt.ops.convolution import Pair, output_size, pair
from transfg_jt.ops.cpu import KEEPING_NAN, on_cpu, run_cpu
from transfg_jt.ops.custom_grad import Function

RELU = """
    #pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < in0->num; i++) out0_p[i] = in0_p[i] < 0 ? 0.f : in0_p[i];
"""

ADD_RELU = """
    #pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < in0->num; i++) {
        const float sum = in0_p[i] + in1_p[i];
        out0_p[i] = sum < 0 ? 0.f : sum;
    }
"""

# inputs: the result, and its gradient
RELU_GRAD = """
    #pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < in0->num; i++) out0_p[i] = in0_p[i] <= 0 ? 0.f : in1_p[i];
"""

# A row of windows at a time: `best` is a window's largest value, `where` the place of its first
# maximum, row by row, or of its last NaN. What lies outside of the map never counts.
POOL = """
    const int64_t H = in0->shape[2], W = in0->shape[3], planes = in0->shape[0] * in0->shape[1];
    const int64_t h = {small}->shape[2], w = {small}->shape[3];
    const int64_t k = data["rows"], l = data["columns"], down = data["down"];
    const int64_t right = data["right"], above = data["above"], left = data["left"];
    #pragma omp parallel
    {
        std::unique_ptr<float[]> largest(new float[w]);
        std::unique_ptr<int32_t[]> places(new int32_t[w]);
        float* const best = largest.get();
        int32_t* const where = places.get();
        #pragma omp for schedule(static)
        for (int64_t plane = 0; plane < planes; plane++) {
            const float* x = in0_p + plane * H * W;
            float* out = out0_p + plane * {stride};
            {start}
            for (int64_t i = 0; i < h; i++) {
                std::fill(where, where + w, -1);
                const int64_t top = i * down - above;
                for (int64_t r = std::max<int64_t>(top, 0); r < std::min(top + k, H); r++)
                    for (int64_t c = 0; c < l; c++) {
                        // windows j whose column c lies in the map
                        const int64_t first = c < left ? (left - c + right - 1) / right : 0;
                        const int64_t end = std::min((W - 1 + left - c + right) / right, w);
                        const int32_t place = r * W - left + c, step = right;
                        #pragma omp simd
                        for (int32_t j = first; j < (int32_t)end; j++) {
                            const float value = x[place + j * step];
                            const bool take = where[j] < 0 || value > best[j] || value != value;
                            best[j] = take ? value : best[j];
                            where[j] = take ? place + j * step : where[j];
                        }
                    }
                {finish}
            }
        }
    }
"""
FORWARD = {
    "small": "out0",
    "stride": "h * w",
    "start": "",
    "finish": "std::copy(best, best + w, out + i * w);",
}
BACKWARD = {
    "small": "in1",
    "stride": "H * W",
    "start": "std::fill(out, out + H * W, 0.f);",
    "finish": "for (int64_t j = 0; j < w; j++) out[where[j]] += in1_p[(plane * h + i) * w + j];",
}


class Relu(Function):
    """max(x, 0) on the CPU: any shape; saves the result."""

    def execute(self, x: Var) -> Var:
        out = cast_like_no_grad(run_cpu(RELU, [x.shape], [x.float32()], KEEPING_NAN)[0], x)
        self.save_for_backward(out)
        return out

    def grad(self, grad: Var) -> Var:
        return relu_grad(*self.take_saved(), grad)


class AddRelu(Function):
    """max(x + y, 0) on the CPU: any shape; saves the result."""

    def execute(self, x: Var, y: Var) -> Var:
        inputs = [x.float32(), y.float32()]
        out = cast_like_no_grad(run_cpu(ADD_RELU, [x.shape], inputs, KEEPING_NAN)[0], x)
        self.save_for_backward(out)
        return out

    def grad(self, grad: Var) -> tuple[Var, Var]:
        by_sum = relu_grad(*self.take_saved(), grad)
        return by_sum, by_sum


def relu_grad(out: Var, grad: Var) -> Var:
    """The gradient of ReLU's input from its result: any shape, on the CPU."""
    inputs = [out.float32(), grad.float32()]
    return cast_like_no_grad(run_cpu(RELU_GRAD, [out.shape], inputs, KEEPING_NAN)[0], out)


def has_operators(x: Var) -> bool:
    """Whether the operators here take x: float32 or bfloat16 on the CPU."""
    return on_cpu(x) or (is_bfloat16(x) and not jt.flags.use_cuda)


def relu(x: Var) -> Var:
    """max(x, 0): any shape."""
    return Relu.apply(x) if has_operators(x) else cast_like(positive(to_float32(x)), x)


def add_relu(x: Var, y: Var) -> Var:
    """max(x + y, 0): any shape; in bfloat16 the sum is rounded once, as in PyTorch."""
    if has_operators(x):
        return AddRelu.apply(x, y)
    return cast_like(positive(to_float32(x) + to_float32(y)), x)


def positive(x: Var) -> Var:
    """max(x, 0): any shape. On CUDA it keeps NaN, which Jittor's own ReLU takes for 0."""
    return jt.ternary(x <= 0, jt.zeros_like(x), x)


class FusedMaxPool(Function):
    """A max pool on the CPU; saves its input, in which it looks for maxima again.

    It computes in float32; the sums of a bfloat16 gradient are rounded once.
    """

    def execute(self, x: Var, how: tuple[Pair, Pair, Pair]) -> Var:
        self.save_for_backward(x, how)
        shape = [*x.shape[:2], *output_size(x, *how)]
        return cast_like_no_grad(self.run(FORWARD, shape, [x.float32()], how), x)

    def grad(self, grad: Var) -> tuple:
        x, how = self.take_saved()
        by_x = self.run(BACKWARD, x.shape, [x.float32(), grad.float32()], how)
        return cast_like_no_grad(by_x, x), None

    def run(self, parts: dict[str, str], shape: list, inputs: list[Var], how: tuple) -> Var:
        """One of the two loops, with its parts filled in."""
        source = POOL
        for name, text in parts.items():
            source = source.replace(f"{{{name}}}", text)
        names = ("rows", "columns", "down", "right", "above", "left")
        numbers = [float(number) for numbers in how for number in numbers]
        data = dict(zip(names, numbers, strict=True))
        return run_cpu(source, [shape], inputs, "#include <algorithm>\n" + KEEPING_NAN, data=data)[
            0
        ]


def max_pool2d(x: Var, kernel: int | Pair, stride: int | Pair, padding: int | Pair = 0) -> Var:
    """The largest value under each window: (B, F, H, W) -> (B, F, h, w).

    The gradient goes to the first of several equal maxima, row by row, as in PyTorch.
    """
    how = pair(kernel), pair(stride), pair(padding)
    if has_operators(x):
        return FusedMaxPool.apply(x, how)
    (rows, columns), stride, padding = how
    wide, shape = to_float32(x), [*x.shape[:2], *output_size(x, *how), rows, columns]
    where = [f"i{2 + axis}*{stride[axis]}+i{4 + axis}-{padding[axis]}" for axis in range(2)]
    windows = wide.reindex(shape, ["i0", "i1", *where], overflow_value=-3e38)
    _, largest = jt.arg_reduce(windows.reshape(*shape[:4], -1), "max", 4, False)
    return cast_like(largest, x)
