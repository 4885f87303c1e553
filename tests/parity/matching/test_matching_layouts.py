"""Layouts: recognised by numbers, named, applied and undone."""

import numpy as np
import pytest

from parity.errors import ParityError
from parity.matching.layouts import Layout, check, layout_by_shape, layout_of

RNG = np.random.default_rng(3)
KERNEL = RNG.standard_normal((6, 5, 3, 2)).astype(np.float32)  # OIHW
MATRIX = RNG.standard_normal((6, 4)).astype(np.float32)
SQUARE = RNG.standard_normal((4, 4)).astype(np.float32)
MAP = RNG.standard_normal((2, 6, 3, 5))  # NCHW
QKV = RNG.standard_normal((24, 8))  # two heads or four


def by_head(value, heads):
    """(3 d, ...) from three parts to the three of each head."""
    return value.reshape(3, heads, -1, *value.shape[1:]).swapaxes(0, 1).reshape(value.shape)


CASES = {
    "same": (KERNEL, KERNEL),
    "HWIO": (KERNEL.transpose(2, 3, 1, 0), KERNEL),
    "WIO": (KERNEL[..., 0].transpose(2, 1, 0), KERNEL[..., 0]),
    "(in, out)": (MATRIX.T, MATRIX),
    "channels last": (np.moveaxis(MAP, 1, -1), MAP),
    "channels first": (MAP, np.moveaxis(MAP, 1, -1)),
    "reshape": (MATRIX.reshape(3, 2, 4), MATRIX),
    "axes 1 0 3 2": (KERNEL.transpose(1, 0, 3, 2), KERNEL),
    "qkv order k q v": (np.concatenate([QKV[8:16], QKV[:8], QKV[16:]]), QKV),
    "qkv by head 2": (by_head(QKV, 2), QKV),
    "qkv by head 4": (by_head(QKV, 4), QKV),
    "(in, out), then qkv by head 4": (by_head(QKV, 4).T, QKV),
    "(in, out), then qkv order v k q": (np.concatenate([QKV[16:], QKV[8:16], QKV[:8]]).T, QKV),
}


@pytest.mark.parametrize("name", CASES)
def test_every_layout_is_recognised_applied_and_undone(name):
    value, reference = CASES[name]
    assert layout_of(value, reference) == Layout(name)
    assert np.array_equal(Layout(name).apply(value, reference.shape), reference)
    assert np.array_equal(Layout(name).undo(reference, value.shape), value)
    assert check(name, "x").name == name


def test_square_matrices_are_told_by_their_numbers_alone():
    assert layout_of(SQUARE.T, SQUARE) == Layout("(in, out)")
    assert layout_of(SQUARE, SQUARE) == Layout("same")
    assert layout_by_shape((4, 4), (4, 4)) is None


def test_a_bias_and_activations_of_query_key_and_value():
    bias = RNG.standard_normal(24)
    assert layout_of(by_head(bias, 2), bias) == Layout("qkv by head 2")
    activations = RNG.standard_normal((2, 5, 12))
    parts = np.split(activations, 3, axis=-1)
    value = np.concatenate([parts[1], parts[2], parts[0]], axis=-1)
    found = layout_of(value, activations, exact=False)
    assert found and found.name == "qkv order k v q"
    assert np.array_equal(found.apply(value, activations.shape), activations)


def test_tokens_and_maps():
    """(N, H W, C) for (N, C, H, W)."""
    tokens = np.moveaxis(MAP, 1, -1).reshape(2, 15, 6)
    assert layout_of(tokens, MAP) == Layout("channels last")
    assert np.array_equal(Layout("channels last").undo(MAP, tokens.shape), tokens)


def test_flax_heads():
    """Kernels of query (in, heads, size) and of the output (heads, size, in) for (out, in)."""
    weight = RNG.standard_normal((12, 8))
    query = weight.T.reshape(8, 3, 4)
    assert layout_of(query, weight) == Layout("(in, out)")
    output = weight.T.reshape(2, 4, 12)
    assert np.array_equal(Layout("(in, out)").apply(output, weight.shape), weight)


def test_computed_numbers_need_only_be_near():
    value = np.moveaxis(MAP, 1, -1) * (1 + 1e-5 * RNG.standard_normal((2, 3, 5, 6)))
    assert layout_of(value, MAP) is None
    assert layout_of(value, MAP, exact=False) == Layout("channels last")


@pytest.mark.parametrize(
    "value",
    [
        KERNEL[:, ::-1],  # BGR for RGB is no layout
        KERNEL * np.float32(1.001),
        np.sort(KERNEL, axis=None).reshape(KERNEL.shape),
        KERNEL[:5],
        np.full_like(KERNEL, np.nan),
        np.zeros(0),
    ],
)
def test_other_numbers_are_no_layout(value):
    assert layout_of(value, KERNEL) is None and layout_of(value, KERNEL, exact=False) is None


def test_shapes_alone_show_a_layout_only_if_one_fits():
    assert layout_by_shape((4, 6), (6, 4)) == Layout("(in, out)")
    assert layout_by_shape((3, 2, 5, 6), (6, 5, 3, 2)) == Layout("HWIO")
    assert layout_by_shape((2, 3, 5, 6), (2, 6, 3, 5)) == Layout("channels last")
    assert layout_by_shape((6, 4), (6, 4)) is None
    assert layout_by_shape((6, 5), (6, 4)) is None


def test_wrong_layouts_are_refused():
    with pytest.raises(ParityError, match="found 'NHWC'"):
        check("NHWC", "kernel")
    with pytest.raises(ParityError, match=r"layouts: \(in, out\): expected shape \(3, 3\)"):
        Layout("(in, out)").apply(MATRIX, (3, 3))
    with pytest.raises(ParityError, match="layouts: HWIO: cannot turn shape"):
        Layout("HWIO").apply(MATRIX, (4, 6))
    with pytest.raises(ParityError, match="by head"):
        Layout("qkv by head 5").apply(QKV, QKV.shape)
