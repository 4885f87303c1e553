"""Elementwise functions, and what may stand in their place."""

from collections.abc import Callable, Iterator

import numpy as np

from parity.diagnose.causes.pair import Array
from parity.diagnose.causes.special import erf, expit


def gelu_tanh(x: Array) -> Array:
    """The approximation by tanh."""
    return np.asarray(0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))))


def gelu(x: Array) -> Array:
    """x Φ(x)."""
    return np.asarray(0.5 * x * (1 + erf(x / np.sqrt(2))))


Activation = Callable[[Array], Array]
# code -> (name, function); the name of an operation is the code of its right function
ACTIVATIONS: dict[str, tuple[str, Activation]] = {
    "gelu": ("GELU by erf", gelu),
    "tanh": ("GELU in its tanh form", gelu_tanh),
    "sigmoid": ("GELU as x · sigmoid(1.702 x)", lambda x: x * expit(1.702 * x)),
    "relu": ("ReLU", lambda x: np.maximum(x, 0)),
    "silu": ("SiLU", lambda x: x * expit(x)),
    "leaky relu": ("leaky ReLU with slope 0.01", lambda x: np.where(x > 0, x, 0.01 * x)),
    "left out": ("no activation", lambda x: x),
}


def activations(right: str) -> Iterator[tuple[str, str, Activation]]:
    """Code, sentence and function: the activation as defined, then others in its place."""
    name, function = ACTIVATIONS[right]
    yield "as defined", f"{name}, as defined, gives B", function
    for code, (other, instead) in ACTIVATIONS.items():
        if code != right:
            yield code, f"{other} instead of {name}", instead
