"""Results of known mistakes in linear layers, also of fused ones."""

from collections.abc import Callable, Iterator

import numpy as np

from parity.diagnose.causes.facts import input_of, weight_and_bias
from parity.diagnose.causes.hypothesis import Hypothesis
from parity.diagnose.causes.pair import Array, Context, Pair
from parity.diagnose.causes.products import short_products


def linear(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """x wᵀ + bias over the last axis."""
    x = input_of(tap, context, pair)
    weight, *biases = weight_and_bias(tap, context)
    bias = biases[0] if biases else np.zeros(1)
    if x.shape[-1] != weight.shape[1]:
        return

    def result(value: Array) -> Array:
        return np.asarray(value[:, pair.channels] if value.ndim > 2 else value)

    yield Hypothesis(
        "as defined", "the linear layer as defined gives B", result(x @ weight.T + bias)
    )
    if biases:
        yield Hypothesis(
            "no bias", "the bias of the linear layer is not added", result(x @ weight.T)
        )
        yield Hypothesis("bias", "the bias is added twice", result(x @ weight.T + 2 * bias))
    if weight.shape[0] == weight.shape[1]:
        text = "the weight of the linear layer is transposed"
        yield Hypothesis("transposed", text, result(x @ weight + bias))
    read = weight.reshape(weight.shape[::-1]).T
    text = "the weight is read as (in, out) without being transposed"
    yield Hypothesis("layout", text, result(x @ read.T + bias))
    if len(weight) % 3 == 0 and len(weight) >= 9:
        yield from fused(x, weight, bias, result)
    yield from short_products(lambda short: result(short(x) @ short(weight).T + bias))


def fused(
    x: Array, weight: Array, bias: Array, result: Callable[[Array], Array]
) -> Iterator[Hypothesis]:
    """Three matrices in one, in another order: q, k, v."""
    thirds = np.arange(len(weight)).reshape(3, -1)
    whole = x @ weight.T + bias
    names = "qkv"
    for order in ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        words = ", ".join(names[i] for i in order)
        text = f"the three parts of the fused matrix are in another order: {words} for q, k, v"
        yield Hypothesis("qkv order", text, result(whole[..., thirds[list(order)].ravel()]))
