"""Results of known mistakes in activations, softmax, dropout and channel shuffle.

One function for each operation, as `hypothesis.py` describes; the settings are the manifest's.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from parity.diagnose.causes.activations import ACTIVATIONS, Activation, clamp, leaky, short_gelu
from parity.diagnose.causes.facts import Operation, input_of, operation_of
from parity.diagnose.causes.hypothesis import Absent, Hypothesis, tap_of
from parity.diagnose.causes.pair import Array, Context, Pair
from parity.diagnose.causes.special import log_softmax, softmax

# operation -> code of its right function
RIGHT = {
    "relu": "relu",
    "relu6": "relu6",
    "silu": "silu",
    "sigmoid": "logistic",
    "hard swish": "hard swish",
    "hard sigmoid": "hard sigmoid",
}


def right_function(made: Operation) -> tuple[str, str, Activation]:
    """Code, name and function of an activation by its settings."""
    name = made.operation
    if name == "gelu":
        code = "tanh" if made.settings.get("form") == "tanh" else "gelu"
        return code, *ACTIVATIONS[code]
    if name == "leaky relu":
        slope = made.number("slope", 0.01)
        return f"{slope:g}", f"leaky ReLU with slope {slope:g}", partial(leaky, slope=slope)
    if name == "clamp":
        low, high = made.number("min", -np.inf), made.number("max", np.inf)
        return "clamp", f"clamp to {low:g} and {high:g}", partial(clamp, low=low, high=high)
    if name not in RIGHT:
        raise Absent(name)
    return RIGHT[name], *ACTIVATIONS[RIGHT[name]]


def functions(made: Operation) -> Iterator[tuple[str, str, Activation]]:
    """Code, sentence and function: the activation as defined, then others in its place."""
    right, name, function = right_function(made)
    yield "as defined", f"{name}, as defined, gives B", function
    for code, (other, instead) in ACTIVATIONS.items():
        if code != right and other != name:
            yield code.strip(), f"{other} instead of {name}", instead
    if right == "gelu":
        yield "float32 constant", "the √½ of GELU was float32 for a moment", short_gelu


def activation(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """A function of each element."""
    x = input_of(tap, context, pair)
    x = x[:, pair.channels] if x.ndim > 1 else x
    for code, text, function in functions(operation_of(tap, context)):
        yield Hypothesis(code, text, function(x))


def activation_gradient(
    forward: str, cotangent: str, context: Context, pair: Pair
) -> Iterator[Hypothesis]:
    """The gradient by an activation's input: the cotangent times the slope.

    The slope comes from central differences.
    """
    x, after = input_of(forward, context, pair), tap_of(context, cotangent)[pair.images]
    x, after = (value[:, pair.channels] if value.ndim > 1 else value for value in (x, after))
    for code, text, function in functions(operation_of(forward, context)):
        slope = (function(x + 1e-5) - function(x - 1e-5)) / 2e-5
        yield Hypothesis(code, f"in the gradient: {text}", after * slope)


def over_axis(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """A softmax or a log softmax along one axis."""
    made, x = operation_of(tap, context), input_of(tap, context)
    axis = int(made.number("axis", -1)) % x.ndim
    kinds: dict[str, Callable[..., Any]] = {"softmax": softmax, "log softmax": log_softmax}
    name = made.operation if made.operation in kinds else "softmax"

    def cut(value: Array) -> Array:
        value = value[pair.images]
        return np.asarray(value[:, pair.channels] if value.ndim > 1 else value)

    yield Hypothesis("as defined", f"the {name} as defined gives B", cut(kinds[name](x, axis)))
    for wrong in set(range(x.ndim)) - {axis}:
        text = f"the {name} runs over axis {wrong} instead of {axis}"
        yield Hypothesis("softmax axis", text, cut(kinds[name](x, wrong)))
    (other,) = kinds.keys() - {name}
    yield Hypothesis("softmax", f"{other} instead of {name}", cut(kinds[other](x, axis)))
    yield Hypothesis("left out", f"there is no {name}", cut(x))


def channel_shuffle(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """The channels (axis 1) in the order of a transposed (G, C / G) grid."""
    x, made = input_of(tap, context, pair), operation_of(tap, context)
    groups, channels = int(made.number("groups", 1)), x.shape[1]
    if groups < 1 or channels % groups:
        return

    def shuffled(rows: int) -> Array:
        place = np.arange(channels).reshape(rows, -1).T.ravel()
        return np.asarray(x[:, place][:, pair.channels])

    yield Hypothesis("as defined", "the channel shuffle as defined gives B", shuffled(groups))
    text = f"the channel shuffle is transposed: {channels // groups} groups instead of {groups}"
    yield Hypothesis("shuffle", text, shuffled(channels // groups))
    yield Hypothesis("left out", "the channels are not shuffled", x[:, pair.channels])


def identity(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """What evaluation mode makes of dropout: the input itself."""
    x = input_of(tap, context, pair)
    yield Hypothesis(
        "as defined", "the input itself gives B", x[:, pair.channels] if x.ndim > 1 else x
    )
