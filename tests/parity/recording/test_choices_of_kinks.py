"""Choices at kinks by NumPy: against loops, and the function on the branch of a choice."""

import numpy as np
import pytest

from parity.recording.choices import (
    ELEMENTWISE,
    choose,
    coefficients,
    corners,
    flat_indices,
    near_ties,
    pool_axes,
)
from parity.recording.following import Handed

X = 5 * np.random.default_rng(0).standard_normal((3, 4, 5))

# kind, settings, the function
FUNCTIONS = [
    ("relu", {}, lambda x: np.maximum(x, 0)),
    ("relu6", {}, lambda x: np.clip(x, 0, 6)),
    ("leaky relu", {"slope": 0.1}, lambda x: np.where(x > 0, x, 0.1 * x)),
    ("clamp", {"min": -1.0, "max": 2.0}, lambda x: np.clip(x, -1, 2)),
    ("clamp", {"min": None, "max": 2.0}, lambda x: np.minimum(x, 2)),
    ("clamp", {"min": -1.0, "max": None}, lambda x: np.maximum(x, -1)),
    ("hard sigmoid", {}, lambda x: np.clip(x / 6 + 0.5, 0, 1)),
    ("hard swish", {}, lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    ("abs", {}, np.abs),
]


def test_every_kind_is_tried():
    assert {kind for kind, *_ in FUNCTIONS} == set(ELEMENTWISE)


@pytest.mark.parametrize(("kind", "settings", "function"), FUNCTIONS)
def test_the_pieces_make_the_function(kind, settings, function):
    choice = choose(kind, settings, [X])
    constant, slope, square = coefficients(kind, settings, choice)
    np.testing.assert_allclose(constant + slope * X + square * X**2, function(X), atol=1e-12)
    at = np.array(corners(kind, settings))
    assert (choose(kind, settings, [at]) == np.arange(len(at))).all()  # the lower side


def windows_by_loops(plane, kernel, stride, padding, dilation, shape):
    """Flat index of each window's first largest element."""
    found = np.empty(shape, np.int64)
    height, width = plane.shape
    for i, j in np.ndindex(*shape):
        best = -np.inf
        for a, b in np.ndindex(kernel, kernel):
            row = i * stride - padding + a * dilation
            column = j * stride - padding + b * dilation
            if 0 <= row < height and 0 <= column < width and plane[row, column] > best:
                best = plane[row, column]
                found[i, j] = row * width + column
    return found


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "ceil_mode", "shape"),
    [
        (3, 2, 1, 1, False, (6, 7)),
        (3, 2, 0, 1, True, (5, 6)),
        (2, 2, 0, 1, False, (5, 6)),
        (3, 1, 1, 2, False, (9, 11)),
        (2, 3, 0, 1, True, (4, 5)),  # the last window reaches out of the input
    ],
)
def test_windows_of_a_pool(kernel, stride, padding, dilation, ceil_mode, shape):
    x = np.maximum(np.random.default_rng(1).standard_normal((2, 3, 11, 13)), 0)  # zeros: ties
    numbers = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    axes = pool_axes((11, 13), {**numbers, "ceil_mode": ceil_mode})
    assert tuple(axis["out"] for axis in axes) == shape
    found = choose("max pool", {"axes": axes}, [x])
    values = x.reshape(-1)[flat_indices("max pool", {"axes": axes}, x.shape, found)]
    for plane in np.ndindex(2, 3):
        expected = windows_by_loops(x[plane], kernel, stride, padding, dilation, shape)
        np.testing.assert_array_equal(found[plane], expected)
        np.testing.assert_array_equal(values[plane], x[plane].reshape(-1)[expected])


def test_adaptive_windows_have_unequal_sizes():
    x = np.random.default_rng(2).standard_normal((1, 1, 7))
    found = choose("adaptive max pool", {"axes": pool_axes((7,), {"size": 3})}, [x])
    expected = [np.argmax(x[0, 0, :3]), 2 + np.argmax(x[0, 0, 2:5]), 4 + np.argmax(x[0, 0, 4:])]
    assert found[0, 0].tolist() == expected


def test_indices_along_an_axis():
    x = np.random.default_rng(3).standard_normal((4, 5, 6))
    for kind, function in (("max", np.max), ("min", np.min)):
        index = choose(kind, {"axis": 1}, [x])
        values = x.reshape(-1)[flat_indices(kind, {"axis": 1}, x.shape, index)]
        np.testing.assert_array_equal(values[:, 0], function(x, 1))
    settings = {"axis": -1, "k": 2, "largest": False}
    index = choose("top-k", settings, [x])
    values = x.reshape(-1)[flat_indices("top-k", settings, x.shape, index)]
    np.testing.assert_array_equal(values, np.sort(x, -1)[..., :2])


def test_only_ties_are_followed():
    x = np.array([-2.0, -1e-5, 1e-5, 2.0])
    own = choose("relu", {}, [x])
    assert near_ties("relu", {}, [x], own, 1 - own).tolist() == [False, True, True, False]
    row = np.array([[1.0, 1.0 - 1e-6, 0.2]])
    own = choose("max", {"axis": 1}, [row])
    for other, near in ((1, True), (2, False), (3, False), (-1, False)):
        given = np.full_like(own, other)
        assert near_ties("max", {"axis": 1}, [row], own, given).all() == near


def test_choices_go_to_the_same_name_else_to_the_next_of_the_kind():
    one, other, third = (np.full(3, n, np.uint8) for n in range(3))
    handed = Handed(
        "b", {"choices": {"a": ("relu", one), "b": ("relu", other), "c": ("abs", third)}}
    )
    assert handed.take("choices", "b", "relu", (3,)) is other
    assert handed.take("choices", "x", "relu", (3,)) is one
    assert handed.take("choices", "y", "relu", (3,)) is None  # each once
    assert handed.take("choices", "c", "relu", (3,)) is None  # another kind
    assert handed.take("choices", "c", "abs", (4,)) is None  # another shape
    assert handed.take("training choices", "c", "abs", (3,)) is None  # another stage
    assert handed.take("choices", "c", "abs", (3,)) is third
    assert len(handed.free) == 4
