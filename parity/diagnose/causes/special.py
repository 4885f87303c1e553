"""Functions that NumPy lacks: softmax, log softmax, erf and the logistic function, in float64."""

import math

import numpy as np

from parity.diagnose.causes.pair import Array

_erf = np.frompyfunc(math.erf, 1, 1)


def softmax(x: Array, axis: int = -1) -> Array:
    """exp(x) / Σ exp(x) along one axis; same shape."""
    powers = np.exp(x - x.max(axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis, keepdims=True))


def log_softmax(x: Array, axis: int = -1) -> Array:
    """log(softmax(x)) along one axis; same shape."""
    x = x - x.max(axis, keepdims=True)
    return np.asarray(x - np.log(np.exp(x).sum(axis, keepdims=True)))


def erf(x: Array) -> Array:
    """The error function of each element; same shape."""
    return np.asarray(_erf(x), np.float64)


def expit(x: Array) -> Array:
    """1 / (1 + exp(-x)) of each element, without overflow; same shape."""
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1.0, small) / (1.0 + small))
