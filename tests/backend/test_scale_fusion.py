"""The weights of SwinFC's feature fusion against NumPy, from the paper's equations 7 to 11."""

import numpy as np
import pytest
from reference import relative, softmax


def maps_between(x, y):
    """Equations 8 and 10: softmax(-M) over y's positions and over x's, M = x yᵀ (B, N, S)."""
    unlike = -np.einsum("bnf,bsf->bns", x, y)
    over_x = softmax(unlike.swapaxes(1, 2)).swapaxes(1, 2)
    return over_x, softmax(unlike)


def weights(x, y):
    """Mean over the other map's positions: (B, N), (B, S)."""
    over_x, over_y = maps_between(x, y)
    return over_x.mean(2), over_y.mean(1)


def gradients(x, y, by_x, by_y):
    """Through both softmaxes, written out."""
    over_x, over_y = maps_between(x, y)
    first = by_x[:, :, None] / y.shape[1]
    first = over_x * (first - (over_x * first).sum(1, keepdims=True))
    second = by_y[:, None] / x.shape[1]
    second = over_y * (second - (over_y * second).sum(2, keepdims=True))
    of_product = -(first + second)
    return of_product @ y, of_product.swapaxes(1, 2) @ x


@pytest.fixture(params=[(2, 7, 5, 3), (1, 150, 131, 9)], ids=["small", "several tiles"])
def arrays(request):
    batch, rows, columns, width = request.param
    rng = np.random.default_rng(3)
    shapes = (batch, rows, width), (batch, columns, width), (batch, rows), (batch, columns)
    return [rng.standard_normal(shape) for shape in shapes]


@pytest.mark.parametrize("plain", [False, True])
def test_equals_numpy(twin, arrays, plain, monkeypatch):
    """In float32; if `plain`, in PyTorch's float64 and by Jittor's formula for float64."""
    kind = "f8" if plain and twin.name == "torch" else "f4"
    if plain and twin.name == "jittor":
        monkeypatch.setattr(twin.module("scale_fusion"), "on_cpu", lambda x: False)
    x, y, by_x, by_y = arrays
    lacking, bound = twin.module("scale_fusion").lacking_weights, 2e-6 if kind == "f4" else 1e-13
    found = twin.run(lacking, x.astype(kind), y.astype(kind))
    a, b = twin.tensor(by_x.astype(kind)), twin.tensor(by_y.astype(kind))

    def weighted(x, y):
        first, second = lacking(x, y)
        return (first * a).sum() + (second * b).sum()

    found += tuple(twin.gradients(weighted, [x.astype(kind), y.astype(kind)]))
    expected = weights(x, y) + gradients(x, y, by_x, by_y)
    for value, true in zip(found, expected, strict=True):
        assert value.dtype == kind and relative(value, true) < bound


def test_far_from_zero(twin):
    """Products of some thousands: no exponential overflows, and the weights are almost one-hot."""
    rng = np.random.default_rng(4)
    x, y = (rng.uniform(0, 30, (1, n, 12)).astype("f4") for n in (6, 4))
    found = twin.run(twin.module("scale_fusion").lacking_weights, x, y)
    for value, true in zip(found, weights(x.astype("f8"), y.astype("f8")), strict=True):
        assert np.isfinite(value).all() and np.abs(value - true).max() < 1e-3
