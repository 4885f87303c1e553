"""What known mistakes in the model's operations would have computed, from A's own inputs.

One function per operation. It gets the tap's name and what is known of A, and yields hypotheses:
code, sentence, value in float64. The first is the operation as docs/architecture.md defines it: if
that gives B and not A, it is A that is wrong. `causes.py` says which taps each one is for, and
compares. Needs NumPy and SciPy alone.

Letters: B batch, T tokens, D width, K heads, d = D / K, C classes, P patch, S stride.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.special import erf, expit, log_softmax, softmax

from parity.causes.pair import Array, Context, Pair
from parity.causes.relations import FORMATS, rounded_to

EPS = 1e-6
OTHER_EPS = (0.0, 1e-12, 1e-8, 1e-7, 1e-5, 1e-4, 1e-3)
ONE_PASS = 64 * 2.0**-24  # times 1 + (mean / std)²: how far float32 moves a one-pass variance


class Hypothesis(NamedTuple):
    """What B is if the sentence is true; `fitted` numbers of it were taken from B."""

    code: str
    text: str
    value: Array
    fitted: int = 0


class Absent(Exception):
    """The context lacks an input: no further hypothesis can be computed."""


def tap_of(context: Context, name: str) -> Array:
    """An activation of A in float64."""
    if name not in context.taps:
        raise Absent(name)
    return context.taps[name].astype(np.float64)


def param_of(context: Context, name: str) -> Array:
    """A parameter in float64."""
    if name not in context.params:
        raise Absent(name)
    return context.params[name].astype(np.float64)


def module_of(tap: str) -> str:
    """The parameters' prefix of a tap's module: block03.attn.query -> blocks.3.attn.query."""
    if tap == "logits":
        return "head"
    return re.sub(r"^block(\d+)", lambda found: f"blocks.{int(found[1])}", tap)


def last_block(context: Context) -> str:
    """The tap of the last encoder block."""
    return max((tap for tap in context.taps if re.fullmatch(r"block\d+", tap)), default="embed")


def source_of(tap: str, context: Context) -> str:
    """The tap that an operation reads: block03.norm1 -> block02."""
    outer, _, inner = tap.partition(".")
    number = int(outer[5:]) if re.fullmatch(r"block\d+", outer) else 0
    entry = f"block{number - 1:02d}" if number else "embed"
    hidden = f"{outer}.mlp.hidden"
    sources = {
        "norm1": "part_tokens" if outer == "part_layer" else entry,
        "attn.query": f"{outer}.norm1",
        "attn.key": f"{outer}.norm1",
        "attn.value": f"{outer}.norm1",
        "attn.out": f"{outer}.attn.mix",
        "mid": "part_tokens" if outer == "part_layer" else entry,
        "norm2": f"{outer}.mid",
        "mlp.fc1": f"{outer}.norm2",
        "mlp.gelu": f"{outer}.mlp.fc1",
        "mlp.fc2": hidden if hidden in context.taps else f"{outer}.mlp.gelu",
    }
    ends = {"part_norm": "part_layer", "norm": last_block(context), "logits": "features"}
    return sources[inner] if inner else ends[tap]


def layer_norm(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """(x - mean) / √(variance + eps) · weight + bias over the last axis."""
    x = tap_of(context, source_of(tap, context))
    weight, bias = (param_of(context, f"{module_of(tap)}.{kind}") for kind in ("weight", "bias"))
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)

    def normal(eps: float, spread: Array) -> Array:
        return np.asarray((x - mean) / np.sqrt(np.maximum(spread + eps, 1e-300)))

    plain = normal(EPS, variance)
    yield Hypothesis("as defined", "layer norm as defined gives B", plain * weight + bias)
    for eps in OTHER_EPS:
        text = f"layer norm with eps {eps:g} instead of {EPS:g}"
        yield Hypothesis("eps", text, normal(eps, variance) * weight + bias)
    width = x.shape[-1]
    unbiased = variance * width / (width - 1)
    text = "layer norm with the unbiased variance"
    yield Hypothesis("unbiased", text, normal(EPS, unbiased) * weight + bias)
    text = "eps is added to the standard deviation"
    outside = (x - mean) / (np.sqrt(variance) + EPS)
    yield Hypothesis("eps outside", text, outside * weight + bias)
    text = "weight and bias of the layer norm are 1 and 0: not loaded or not applied"
    yield Hypothesis("not loaded", text, plain)
    yield Hypothesis("no weight", "the layer norm's weight is not applied", plain + bias)
    yield Hypothesis("no bias", "the layer norm's bias is not applied", plain * weight)
    yield Hypothesis("no mean", "the mean is not subtracted", (x * weight) * scale(variance) + bias)
    text = "the layer norm is left out"
    yield Hypothesis("left out", text, x)
    yield from one_pass(mean, variance, plain * weight, bias, pair)


def scale(variance: Array) -> Array:
    """1 / √(variance + eps)."""
    return np.asarray(1 / np.sqrt(variance + EPS))


def one_pass(
    mean: Array, variance: Array, core: Array, bias: Array, pair: Pair
) -> Iterator[Hypothesis]:
    """E[x²] - E[x]² in float32: each row is off by its own factor, of the size that cancellation
    makes. Which factor depends on the order of the sum, so it is fitted."""
    if pair.noise < 1e-8 or pair.found.shape != core.shape:
        return
    factor = ((pair.found - bias) * core).sum(-1, keepdims=True)
    factor /= (core * core).sum(-1, keepdims=True)
    ratio = mean * mean / (variance + EPS)
    if np.median(ratio) > 9 and (np.abs(factor - 1) <= ONE_PASS * (1 + ratio)).all():
        text = "variance as E[x²] - E[x]² in float32, which cancels: mean / std is "
        text += f"{np.sqrt(np.median(ratio)):.0f}"
        yield Hypothesis("one-pass", text, core * factor + bias, factor.size)


def gelu_tanh(x: Array) -> Array:
    """The approximation by tanh."""
    return np.asarray(0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))))


def gelu(x: Array) -> Array:
    """x Φ(x)."""
    return np.asarray(0.5 * x * (1 + erf(x / np.sqrt(2))))


ACTIVATIONS = (
    ("as defined", "GELU as defined, by erf, gives B", gelu),
    ("tanh", "GELU in its tanh form", gelu_tanh),
    ("sigmoid", "GELU as x · sigmoid(1.702 x)", lambda x: x * expit(1.702 * x)),
    ("relu", "ReLU instead of GELU", lambda x: np.maximum(x, 0)),
    ("silu", "SiLU instead of GELU", lambda x: x * expit(x)),
    ("left out", "no activation between the linear layers", lambda x: x),
)


def activation(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """GELU, from mlp.fc1."""
    x = tap_of(context, source_of(tap, context))
    for code, text, function in ACTIVATIONS:
        yield Hypothesis(code, text, function(x))


def activation_gradient(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """d/*.mlp.fc1: the gradient after GELU times its derivative, by central differences."""
    inner = tap.removeprefix("d/")
    x, after = tap_of(context, inner), tap_of(context, f"d/{inner.removesuffix('fc1')}gelu")
    for code, text, function in ACTIVATIONS:
        slope = (function(x + 1e-5) - function(x - 1e-5)) / 2e-5
        yield Hypothesis(code, f"in the gradient: {text}", after * slope)


def cut_to_tf32(x: Array) -> Array:
    """Float32 without its last 13 bits, as a tensor core reads it."""
    cut = np.ascontiguousarray(x, np.float32).view(np.uint32) & np.uint32(0xFFFFE000)
    return cut.view(np.float32).astype(np.float64)


def linear(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """x wᵀ + bias."""
    x, module = tap_of(context, source_of(tap, context)), module_of(tap)
    weight, bias = (param_of(context, f"{module}.{kind}") for kind in ("weight", "bias"))
    plain = x @ weight.T
    yield Hypothesis("as defined", "the linear layer as defined gives B", plain + bias)
    yield Hypothesis("no bias", f"{module}.bias is not added", plain)
    if weight.shape[0] == weight.shape[1]:
        text = f"{module}.weight is transposed"
        yield Hypothesis("transposed", text, x @ weight + bias)
    yield from short_products(lambda short: short(x) @ short(weight).T + bias)
    if tap == "logits":
        text = "{} of the logits in their place"
        yield Hypothesis("softmax", text.format("softmax"), softmax(plain + bias, -1))
        yield Hypothesis("softmax", text.format("log softmax"), log_softmax(plain + bias, -1))
        return
    for name in siblings(module, weight.shape, context):
        other = param_of(context, f"{name}.weight")
        text = f"{name} is used in place of {module}"
        yield Hypothesis("other weight", f"{text}: weight alone", x @ other.T + bias)
        other_bias = param_of(context, f"{name}.bias")
        yield Hypothesis("other weight", f"{text}: weight and bias", x @ other.T + other_bias)


def siblings(module: str, shape: tuple[int, ...], context: Context) -> list[str]:
    """Modules whose weight could be taken for this one's: in the same place of another block, or
    in another place of the same block."""
    outer, inner = block_and_place(module)
    names = [name.removesuffix(".weight") for name in context.params if name.endswith(".weight")]
    return [
        name
        for name in names
        if (block_and_place(name)[0] == outer) != (block_and_place(name)[1] == inner)
        and context.params[f"{name}.weight"].shape == shape
    ]


def block_and_place(module: str) -> tuple[str, str]:
    """blocks.3.attn.query -> blocks.3 and attn.query."""
    found = re.fullmatch(r"(blocks\.\d+|part_layer)\.(.*)", module)
    return (found[1], found[2]) if found else ("", module)


def short_products(product: Callable[[Callable[[Array], Array]], Array]) -> Iterator[Hypothesis]:
    """A product whose inputs are in a shorter format, summed exactly."""
    for name, bits in FORMATS.items():
        text = f"the inputs of the product are rounded to {name}"
        yield Hypothesis("short product", text, product(partial(rounded_to, bits=bits)))
    text = "the inputs of the product are cut to TF32"
    yield Hypothesis("short product", text, product(cut_to_tf32))


def patches(images: Array, size: int, stride: int) -> Array:
    """(B, 3, H, W) -> (B, N, 3, P, P), row by row."""
    window = (1, images.shape[1], size, size)
    windows = sliding_window_view(images, window)[:, 0, ::stride, ::stride, 0]
    return np.asarray(windows.reshape(len(images), -1, *window[1:]))


def patch_embed(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """A convolution of stride S whose kernel is a patch."""
    images = tap_of(context, "images")
    weight, bias = (param_of(context, f"patch_embed.{kind}") for kind in ("weight", "bias"))
    size = weight.shape[-1]
    stride = context.stride or size

    def embed(x: Array, kernel: Array) -> Array:
        return np.asarray(x.reshape(*x.shape[:2], -1) @ kernel.reshape(len(kernel), -1).T)

    x = patches(images, size, stride)
    plain = embed(x, weight)
    yield Hypothesis("as defined", "the patch embedding as defined gives B", plain + bias)
    yield Hypothesis("no bias", "patch_embed.bias is not added", plain)
    for code, text, kernel in (
        ("transposed", "the kernel is transposed: rows and columns", weight.swapaxes(2, 3)),
        ("channels", "the channels are reversed: BGR for RGB", weight[:, ::-1]),
        ("flipped", "the kernel is flipped: a true convolution", weight[:, :, ::-1, ::-1]),
        ("layout", "the kernel is read as (P, P, 3)", channels_last(weight)),
    ):
        yield Hypothesis(code, text, embed(x, kernel) + bias)
    images_turned = patches(images.swapaxes(2, 3), size, stride)
    text = "height and width of the images are exchanged"
    yield Hypothesis("images turned", text, embed(images_turned, weight) + bias)
    if stride != size:
        text = f"stride {size}, the patch, instead of {stride}"
        yield Hypothesis("stride", text, embed(patches(images, size, size), weight) + bias)
    yield from short_products(lambda short: embed(short(x), short(weight)) + bias)


def channels_last(weight: Array) -> Array:
    """The numbers of (D, 3, P, P) as they lie, taken for (D, P, P, 3)."""
    width, channels, size, _ = weight.shape
    return weight.reshape(width, size, size, channels).transpose(0, 3, 1, 2)
