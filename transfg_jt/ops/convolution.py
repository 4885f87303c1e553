"""Two-dimensional convolution, in float32 on the CPU as one operator of oneDNN.

Jittor 1.3.11's own convolution is an operator of oneDNN too, but with a bias whose gradient is
summed one by one, and on CUDA it needs cuDNN 8. In float64 and on CUDA, a convolution here is a
linear layer on unfolded patches. In bfloat16 on the CPU the operator gets rounded arrays. PyTorch
has such an operator, so this file has no twin. It is longer than most for its three C++ sources.

Shapes: B batch, C and F channels, H and W input, h and w output, (k, l) kernel.
"""

import jittor as jt
from jittor import Var, nn

from transfg_jt.ops.bfloat16 import is_bfloat16, round_to_bfloat16
from transfg_jt.ops.cpu import on_cpu, run_cpu
from transfg_jt.ops.custom_grad import Function
from transfg_jt.ops.exact import linear
from transfg_jt.setup.onednn import onednn_include

Pair = tuple[int, int]

# Arrays are row-major, (B, C, H, W) and (F, C, k, l). oneDNN chooses the layouts in which a kernel
# larger than 1 x 1 computes fastest; `run` copies an array where its own layout is another. A 1 x 1
# kernel is a matrix product on the arrays as they are.
HEADER = r"""
#include <unordered_map>
#include <vector>
#include <dnnl.hpp>
namespace convolution {
using dnnl::memory;
using dnnl::convolution_forward;
using dnnl::convolution_backward_data;
using dnnl::convolution_backward_weights;
static dnnl::engine& cpu() {
    static dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    return engine;
}
static memory::desc layout(const memory::dims& dims, memory::format_tag tag) {
    return memory::desc(dims, memory::data_type::f32, tag);
}
template <class T> static memory::dims dims_of(T* x) {
    return {x->shape[0], x->shape[1], x->shape[2], x->shape[3]};
}
struct Sizes {
    memory::dims x, weight, y, stride, padding;
};
template <class Desc, class... Kind> static Desc describe(const Sizes& sizes, Kind... kind) {
    const bool product = sizes.weight[2] == 1 && sizes.weight[3] == 1;
    const auto tag = product ? memory::format_tag::abcd : memory::format_tag::any;
    return Desc(kind..., dnnl::algorithm::convolution_direct, layout(sizes.x, tag),
                layout(sizes.weight, memory::format_tag::any), layout(sizes.y, tag), sizes.stride,
                sizes.padding, sizes.padding);
}
static convolution_forward::primitive_desc forward(const Sizes& sizes) {
    return {describe<convolution_forward::desc>(sizes, dnnl::prop_kind::forward_training), cpu()};
}
struct Array {
    int argument;
    float* data;
    memory::dims dims;
    memory::desc wanted;
    memory given() const {
        return memory(layout(dims, memory::format_tag::abcd), cpu(), data);
    }
    memory used() const {
        return given().get_desc() == wanted ? given() : memory(wanted, cpu());
    }
};
static void copy(dnnl::stream& stream, memory from, memory to) {
    if (from.get_desc() != to.get_desc()) dnnl::reorder(from, to).execute(stream, from, to);
}
static void run(const dnnl::primitive& primitive, const std::vector<Array>& inputs,
                const Array& output) {
    dnnl::stream stream(cpu());
    std::unordered_map<int, memory> arguments;
    for (const Array& input : inputs) {
        arguments[input.argument] = input.used();
        copy(stream, input.given(), arguments[input.argument]);
    }
    const memory result = arguments[output.argument] = output.used();
    primitive.execute(stream, arguments);
    copy(stream, result, output.given());
    stream.wait();
}
}  // namespace convolution
"""

# What all three operators begin with; {x}, {weight} and {y} are the names of their arrays.
SIZES = """
    using namespace convolution;
    const memory::dim down = data["down"], right = data["right"];
    const memory::dim above = data["above"], left = data["left"];
    const Sizes sizes{dims_of({x}), dims_of({weight}), dims_of({y}), {down, right}, {above, left}};
    const auto first = convolution::forward(sizes);
"""

FORWARD = """
    convolution::run(convolution_forward(first),
        {{DNNL_ARG_SRC, in0_p, sizes.x, first.src_desc()},
         {DNNL_ARG_WEIGHTS, in1_p, sizes.weight, first.weights_desc()}},
        {DNNL_ARG_DST, out0_p, sizes.y, first.dst_desc()});
"""

BY_INPUT = """
    const convolution_backward_data::primitive_desc desc(
        describe<convolution_backward_data::desc>(sizes), cpu(), first);
    convolution::run(convolution_backward_data(desc),
        {{DNNL_ARG_DIFF_DST, in0_p, sizes.y, desc.diff_dst_desc()},
         {DNNL_ARG_WEIGHTS, in1_p, sizes.weight, desc.weights_desc()}},
        {DNNL_ARG_DIFF_SRC, out0_p, sizes.x, desc.diff_src_desc()});
"""

BY_WEIGHT = """
    const convolution_backward_weights::primitive_desc desc(
        describe<convolution_backward_weights::desc>(sizes), cpu(), first);
    convolution::run(convolution_backward_weights(desc),
        {{DNNL_ARG_DIFF_DST, in0_p, sizes.y, desc.diff_dst_desc()},
         {DNNL_ARG_SRC, in1_p, sizes.x, desc.src_desc()}},
        {DNNL_ARG_DIFF_WEIGHTS, out0_p, sizes.weight, desc.diff_weights_desc()});
"""


def run_onednn(
    source: str, names: tuple[str, str, str], shape: list, inputs: list[Var], how: tuple
) -> Var:
    """Run one of the sources above; `names` are the operator's names of x, weight and result."""
    for name, array in zip(("x", "weight", "y"), names, strict=True):
        source = source.replace(f"{{{name}}}", array)
    (down, right), (above, left) = how
    data = {"down": down, "right": right, "above": above, "left": left}
    return run_cpu(source, [shape], inputs, HEADER, f"-I{onednn_include()}", data)[0]


class FusedConvolution(Function):
    """A convolution in float32 on the CPU; saves input and weight.

    The two gradients are operators of their own, so that one that nobody reads is not computed.
    """

    def execute(self, x: Var, weight: Var, stride: Pair, padding: Pair) -> Var:
        how = stride, padding
        self.save_for_backward(x, weight, how)
        return convolve(x, weight, how)

    def grad(self, grad: Var) -> tuple:
        return *gradients(grad, *self.take_saved()), None, None


class Bfloat16Convolution(Function):
    """A convolution of bfloat16 on the CPU, plus a bias if one is given; in float32 inside.

    It rounds where `exact.Bfloat16Linear` does, and saves the input and the rounded weight.
    """

    def execute(self, x: Var, weight: Var, bias: Var | None, stride: Pair, padding: Pair) -> Var:
        w, how = round_to_bfloat16(weight), (stride, padding)
        self.save_for_backward(x, w, how)
        self.has_bias = bias is not None
        y = convolve(x.float32(), w.float32(), how)
        if bias is not None:
            y = y + round_to_bfloat16(bias).float32().reshape(1, -1, 1, 1)
        return round_to_bfloat16(y)

    def grad(self, grad: Var) -> tuple:
        x, w, how = self.take_saved()
        flow = round_to_bfloat16(grad).float32()
        values = list(gradients(flow, x.float32(), w.float32(), how))
        if self.has_bias:
            values.append(sum_over_positions(flow))
        # in float32, so that Jittor sums the gradients of a shared input in float32
        rounded = [round_to_bfloat16(value).float32() for value in values]
        return *rounded, *[None] * (5 - len(rounded))


def convolve(x: Var, weight: Var, how: tuple[Pair, Pair]) -> Var:
    """The convolution of float32 on the CPU, without a gradient; `how`: stride and padding."""
    shape = [x.shape[0], weight.shape[0], *output_size(x, weight.shape[2:], *how)]
    return run_onednn(SIZES + FORWARD, ("in0", "in1", "out0"), shape, [x, weight], how)


def gradients(grad: Var, x: Var, weight: Var, how: tuple[Pair, Pair]) -> tuple[Var, Var]:
    """The gradients of `convolve`'s input and weight, from that of its result."""
    names = ("out0", "in1", "in0")
    by_input = run_onednn(SIZES + BY_INPUT, names, x.shape, [grad, weight], how)
    names = ("in1", "out0", "in0")
    return by_input, run_onednn(SIZES + BY_WEIGHT, names, weight.shape, [grad, x], how)


def sum_over_positions(x: Var) -> Var:
    """The sum of each channel in float64, axis by axis: (B, F, h, w) -> (F,), in x's type."""
    return x.float64().sum(3).sum(2).sum(0).cast(x.dtype)


class AddBias(jt.Function):
    """x (B, F, h, w) + bias (F,); the gradient of the bias is summed in float64, axis by axis."""

    def execute(self, x: Var, bias: Var) -> Var:
        return x + bias.reshape(1, -1, 1, 1)

    def grad(self, grad: Var) -> tuple[Var, Var]:
        return grad, sum_over_positions(grad)


def output_size(x: Var, kernel: Pair, stride: Pair, padding: Pair) -> Pair:
    """Rows and columns of what a window of the kernel's size makes: (B, C, H, W) -> h, w."""
    rows, columns = (
        (side + 2 * border - length) // step + 1
        for side, border, length, step in zip(x.shape[2:], padding, kernel, stride, strict=True)
    )
    return rows, columns


def unfold(x: Var, weight: Var, stride: Pair, padding: Pair) -> Var:
    """The patches that the kernel covers, zero outside of x: (B, C, H, W) -> (B, h w, C k l)."""
    rows, columns = output_size(x, weight.shape[2:], stride, padding)
    shape = [x.shape[0], rows, columns, *weight.shape[1:]]
    where = [f"i{1 + axis}*{stride[axis]}+i{4 + axis}-{padding[axis]}" for axis in range(2)]
    patches = x.reindex(shape, ["i0", "i3", *where])
    return patches.reshape(x.shape[0], rows * columns, -1)


def conv2d_tokens(x: Var, weight: Var, bias: Var | None, stride: Pair, padding: Pair) -> Var:
    """A convolution as a linear layer on patches: (B, C, H, W) -> (B, h w, F), row by row."""
    patches = unfold(x, weight, stride, padding)
    return linear(patches, weight.reshape(weight.shape[0], -1), bias)


def conv2d(
    x: Var,
    weight: Var,
    bias: Var | None = None,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
) -> Var:
    """Cross-correlation: (B, C, H, W), (F, C, k, l) and (F,) -> (B, F, h, w), in x's precision.

    The arguments are those of `torch.nn.functional.conv2d`, without groups and dilation.
    """
    stride, padding = pair(stride), pair(padding)
    if on_cpu(x):
        y = FusedConvolution.apply(x, weight, stride, padding)
        return y if bias is None else AddBias.apply(y, bias)
    if is_bfloat16(x) and not jt.flags.use_cuda:
        return Bfloat16Convolution.apply(x, weight, bias, stride, padding)
    flat = conv2d_tokens(x, weight, bias, stride, padding)
    size = output_size(x, weight.shape[2:], stride, padding)
    return flat.transpose(1, 2).reshape(x.shape[0], weight.shape[0], *size)


def pair(value: int | Pair) -> Pair:
    """One number for both axes, or one for each: (rows, columns)."""
    return (value, value) if isinstance(value, int) else value


class Conv2d(nn.Conv2d):
    """A convolution with zero padding: (B, C, H, W) -> (B, F, h, w).

    The arguments are those of `torch.nn.Conv2d`, without groups and dilation.
    """

    def __init__(
        self,
        channels: int,
        features: int,
        kernel: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        bias: bool = True,
    ) -> None:
        super().__init__(channels, features, kernel, stride, padding, bias=bias)

    def execute(self, x: Var) -> Var:
        return conv2d(x, self.weight, self.bias, self.stride, self.padding)


class PatchEmbed(Conv2d):
    """Non-overlapping or overlapping patches as tokens: (B, C, H, W) -> (B, N, F), row by row."""

    def execute(self, x: Var) -> Var:
        return conv2d_tokens(x, self.weight, self.bias, self.stride, self.padding)
