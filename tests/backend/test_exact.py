"""GELU and linear layers of the Jittor twin, against NumPy in float64.

test_precision.py tests float64 constants, since a process of Jittor has only one precision.
"""

import numpy as np
import pytest
from reference import gelu, relative
from scipy.special import erf

pytestmark = pytest.mark.only("jittor")


def test_gelu_and_its_derivative(twin):
    x = np.linspace(-9, 9, 20001, dtype=np.float32)
    wide = x.astype(np.float64)
    density = np.exp(-wide * wide / 2) / np.sqrt(2 * np.pi)
    derivative = (1 + erf(wide / np.sqrt(2))) / 2 + wide * density
    function = twin.module("ops.exact").gelu
    (value,) = twin.run(function, x)
    (found,) = twin.gradients(lambda x: function(x).sum(), [x])
    assert np.abs(value - gelu(wide)).max() < 1e-6
    assert np.abs(found - derivative).max() < 1e-6


def test_softmax_and_its_gradient(twin):
    """The gradient of Jittor's own softmax is nine times the bound off."""
    rng = np.random.default_rng(12)
    x, factor = rng.standard_normal((2, 3, 3000, 2)).astype(np.float32)
    x[:, 7] += 3  # the maximum
    wide = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    p = wide / wide.sum(1, keepdims=True)
    expected = p * (factor - (p * factor).sum(1, keepdims=True))
    softmax = twin.module("ops.exact").softmax
    (value,) = twin.run(lambda x: softmax(x, 1), x)
    (found,) = twin.gradients(lambda x: (softmax(x, 1) * twin.tensor(factor)).sum(), [x])
    assert relative(value, p) < 2e-7
    assert relative(found, expected) < 2e-7


def test_linear_layer_and_its_gradients(twin):
    """Jittor's own sum for the bias gradient misses its bound here."""
    rng = np.random.default_rng(11)
    x = rng.standard_normal((4, 5000, 6)).astype(np.float32)
    factor = (rng.random((4, 5000, 7)) + 1).astype(np.float32)
    layer = twin.module("ops.exact").Linear(6, 7)
    weight, bias = (twin.array(p).astype(np.float64) for p in (layer.weight, layer.bias))
    (value,) = twin.run(layer, x)
    assert relative(value, x @ weight.T + bias) < 1e-6

    def total(x, weight, bias):
        layer.weight, layer.bias = weight, bias
        return (layer(x) * twin.tensor(factor)).sum()

    found = twin.gradients(total, [x, weight.astype(np.float32), bias.astype(np.float32)])
    rows = factor.reshape(-1, 7).astype(np.float64)
    expected = [factor @ weight, rows.T @ x.reshape(-1, 6), rows.sum(0)]
    bounds = [1e-6, 1e-5, 1e-7]
    for gradient, right, bound in zip(found, expected, bounds, strict=True):
        assert relative(gradient, right) < bound
