"""Elementwise functions, and what may stand in their place."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from parity.diagnose.causes.pair import Array
from parity.diagnose.causes.special import erf, expit

Activation = Callable[[Array], Array]


def gelu_tanh(x: Array) -> Array:
    """The approximation by tanh."""
    return np.asarray(0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))))


def gelu(x: Array) -> Array:
    """x Φ(x)."""
    return np.asarray(0.5 * x * (1 + erf(x / np.sqrt(2))))


def leaky(x: Array, slope: float) -> Array:
    """x above zero, slope · x below."""
    return np.asarray(np.where(x > 0, x, slope * x))


def clamp(x: Array, low: float, high: float) -> Array:
    """x, at least `low` and at most `high`."""
    return np.clip(x, low, high)


def short_gelu(x: Array) -> Array:
    """x Φ(x) with √½ as a float32 number."""
    return np.asarray(0.5 * x * (1 + erf(x * float(np.float32(0.5**0.5)))))


# code -> (name, function); the names of GELU and ReLU as operations are their codes
ACTIVATIONS: dict[str, tuple[str, Activation]] = {
    "gelu": ("GELU by erf", gelu),
    "tanh": ("GELU in its tanh form", gelu_tanh),
    "sigmoid": ("GELU as x · sigmoid(1.702 x)", lambda x: x * expit(1.702 * x)),
    "relu": ("ReLU", lambda x: np.maximum(x, 0)),
    "relu6": ("ReLU6", partial(clamp, low=0.0, high=6.0)),
    "silu": ("SiLU", lambda x: x * expit(x)),
    "logistic": ("the sigmoid", expit),
    "hyperbolic": ("tanh", np.tanh),
    "elu": ("ELU", lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0)))),
    "softplus": ("softplus", lambda x: np.logaddexp(x, 0)),
    "hard swish": ("hard swish", lambda x: x * np.clip(x + 3, 0, 6) / 6),
    "hard sigmoid": ("hard sigmoid, (x + 3) / 6", lambda x: np.clip(x + 3, 0, 6) / 6),
    "old hard sigmoid": ("hard sigmoid, 0.2 x + 0.5", lambda x: np.clip(0.2 * x + 0.5, 0, 1)),
    "leaky relu": ("leaky ReLU with slope 0.01", partial(leaky, slope=0.01)),
    "slope": ("leaky ReLU with slope 0.1", partial(leaky, slope=0.1)),
    "slope ": ("leaky ReLU with slope 0.2", partial(leaky, slope=0.2)),
    "left out": ("no activation", lambda x: x),
}


def activations(right: str) -> Iterator[tuple[str, str, Activation]]:
    """Code, sentence and function: the activation as defined, then others in its place."""
    name, function = ACTIVATIONS[right]
    yield "as defined", f"{name}, as defined, gives B", function
    for code, (other, instead) in ACTIVATIONS.items():
        if code != right:
            yield code.strip(), f"{other} instead of {name}", instead
