"""Results of known mistakes in the model's operations, computed from A's own inputs.

Each operation has one function. It gets the tap's name and A's context, and yields hypotheses:
code, sentence, value in float64. The first hypothesis is the operation as docs/spec.md
defines it: if it gives B but not A, then A is wrong. `__init__.py` lists which operation
each function is for, and compares. It needs only NumPy and SciPy.

Letters: B batch, T tokens, D width, K heads, d = D / K, C classes, P patch, S stride.
"""

import re
from collections.abc import Iterator

import numpy as np
from scipy.special import log_softmax, softmax

from parity.diagnose.causes.activations import ACTIVATIONS, activations
from parity.diagnose.causes.hypothesis import Absent, Hypothesis, param_of, tap_of
from parity.diagnose.causes.pair import Array, Context, Pair
from parity.diagnose.causes.products import short_products
from transfg_core.models.rows import TapSpec

EPS = 1e-6  # the norms of the Vision Transformer
OTHER_EPS = (0.0, 1e-12, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
ONE_PASS = 64 * 2.0**-24  # times 1 + (mean / std)²: error of a one-pass variance in float32


def row_of(tap: str, context: Context) -> TapSpec:
    """The row of the architecture's table that describes a tap."""
    if tap not in context.made_by:
        raise Absent(tap)
    row = context.made_by[tap]
    assert isinstance(row, TapSpec)
    return row


def input_of(tap: str, context: Context, number: int = 0) -> Array:
    """An input of a tap, in float64: the tap, or the images, that it reads."""
    return tap_of(context, row_of(tap, context).reads[number])


def params_of(tap: str, context: Context) -> Iterator[Array]:
    """The parameters of a tap's operation, in float64."""
    return (param_of(context, name) for name in row_of(tap, context).params)


def module_of(tap: str, context: Context) -> str:
    """The module of a tap's operation: block03.attn.query -> blocks.3.attn.query."""
    return row_of(tap, context).params[0].rpartition(".")[0]


def layer_norm(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """(x - mean) / √(variance + eps) · weight + bias over the last axis."""
    x = input_of(tap, context)
    weight, bias = params_of(tap, context)
    right = row_of(tap, context).eps
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)

    def normal(eps: float, spread: Array) -> Array:
        return np.asarray((x - mean) / np.sqrt(np.maximum(spread + eps, 1e-300)))

    plain = normal(right, variance)
    yield Hypothesis("as defined", "layer norm as defined gives B", plain * weight + bias)
    for eps in OTHER_EPS:
        text = f"layer norm with eps {eps:g} instead of {right:g}"
        yield Hypothesis("eps", text, normal(eps, variance) * weight + bias)
    width = x.shape[-1]
    unbiased = variance * width / (width - 1)
    text = "layer norm with the unbiased variance"
    yield Hypothesis("unbiased", text, normal(right, unbiased) * weight + bias)
    text = "eps is added to the standard deviation"
    outside = (x - mean) / (np.sqrt(variance) + right)
    yield Hypothesis("eps outside", text, outside * weight + bias)
    text = "weight and bias of the layer norm are 1 and 0: not loaded or not applied"
    yield Hypothesis("not loaded", text, plain)
    yield Hypothesis("no weight", "the layer norm's weight is not applied", plain + bias)
    yield Hypothesis("no bias", "the layer norm's bias is not applied", plain * weight)
    yield Hypothesis(
        "no mean", "the mean is not subtracted", (x * weight) * scale(variance, right) + bias
    )
    text = "the layer norm is left out"
    yield Hypothesis("left out", text, x)
    yield from one_pass(mean, variance + right, plain * weight, bias, pair)


def scale(variance: Array, eps: float) -> Array:
    """1 / √(variance + eps)."""
    return np.asarray(1 / np.sqrt(variance + eps))


def one_pass(
    mean: Array, variance: Array, core: Array, bias: Array, pair: Pair
) -> Iterator[Hypothesis]:
    """E[x²] - E[x]² in float32: each row is off by its own factor, of the size that cancellation
    makes. The factor depends on the order of the sum, so it is fitted."""
    if pair.noise < 1e-8 or pair.found.shape != core.shape:
        return
    factor = ((pair.found - bias) * core).sum(-1, keepdims=True)
    factor /= (core * core).sum(-1, keepdims=True)
    ratio = mean * mean / variance
    if np.median(ratio) > 9 and (np.abs(factor - 1) <= ONE_PASS * (1 + ratio)).all():
        text = "variance as E[x²] - E[x]² in float32, which cancels: mean / std is "
        text += f"{np.sqrt(np.median(ratio)):.0f}"
        yield Hypothesis("one-pass", text, core * factor + bias, factor.size)


def activation(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """GELU or ReLU."""
    x = input_of(tap, context)
    for code, text, function in activations(row_of(tap, context).operation):
        yield Hypothesis(code, text, function(x))


def activation_gradient(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """The gradient before an activation: the gradient after it, times its slope.

    The slope comes from central differences.
    """
    before = tap.removeprefix("d/")
    output = next(
        (
            name
            for name, row in context.made_by.items()
            if row.operation in ACTIVATIONS and row.reads == (before,)
        ),
        None,
    )
    if output is None:
        return
    x, after = tap_of(context, before), tap_of(context, f"d/{output}")
    for code, text, function in activations(context.made_by[output].operation):
        slope = (function(x + 1e-5) - function(x - 1e-5)) / 2e-5
        yield Hypothesis(code, f"in the gradient: {text}", after * slope)


def linear(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """x wᵀ + bias."""
    x, module = input_of(tap, context), module_of(tap, context)
    weight, *biases = params_of(tap, context)
    bias: Array | float = biases[0] if biases else 0.0
    plain = x @ weight.T
    yield Hypothesis("as defined", "the linear layer as defined gives B", plain + bias)
    if biases:
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
        if biases:
            other_bias = param_of(context, f"{name}.bias")
            yield Hypothesis("other weight", f"{text}: weight and bias", x @ other.T + other_bias)


def siblings(module: str, shape: tuple[int, ...], context: Context) -> list[str]:
    """Modules whose weight could be mistaken for this one's: at the same place in another block, or
    at another place in the same block."""
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
    match = re.fullmatch(r"((?:stages\.\d+\.)?blocks\.\d+|part_layer)\.(.*)", module)
    return (match[1], match[2]) if match else ("", module)
