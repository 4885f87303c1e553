"""Tables of relative positions resized to another window."""

import numpy as np
import pytest

from transfg_core.params.bias_tables import (
    bicubic_weights,
    resize_bias_table,
    table_side,
    window_of,
    window_to_resize,
)

FIRST_ROW = [-1.9847, -2.0767, -1.3322, 0.4577, 2.9765, 7.7210, 11.3724]


def test_the_window_of_a_table():
    assert [window_of((2 * w - 1) ** 2) for w in range(1, 13)] == list(range(1, 13))
    assert window_of(170) is None and window_of(144) is None and window_of(0) is None
    assert table_side(169) == 13


def test_the_same_window_changes_nothing():
    table = np.random.default_rng(0).normal(size=(25, 2))
    assert np.allclose(resize_bias_table(table, 25), table, atol=1e-15)


def test_a_constant_stays_and_rows_do_not_mix_with_heads():
    table = np.tile([1.5, -2.0], (25, 1))
    resized = resize_bias_table(table, 81)
    assert resized.shape == (81, 2)
    assert np.allclose(resized, [1.5, -2.0], atol=1e-14)


def test_every_point_is_a_weighted_mean():
    for old, new in ((5, 9), (9, 5), (13, 23)):
        assert np.allclose(bicubic_weights(old, new).sum(axis=1), 1)


def test_the_vertical_offset_is_the_slow_axis():
    """A table that depends on the vertical offset alone still does after resizing."""
    vertical = np.repeat(np.arange(5.0), 5)[:, None]
    resized = resize_bias_table(vertical, 49).reshape(7, 7)
    assert np.allclose(resized, resized[:, :1]) and np.all(np.diff(resized[:, 0]) > 0)
    horizontal = np.tile(np.arange(5.0), 5)[:, None]
    assert np.allclose(resize_bias_table(horizontal, 49).reshape(7, 7), resized.T)


def test_values_of_pytorch():
    """F.interpolate(x, size=7, mode="bicubic", align_corners=False), x the squares of 0 to 24 on a
    grid of 5: its first row and its centre. tests/torch/test_bias_tables_torch.py has more."""
    table = (np.arange(25.0) ** 2)[:, None]
    resized = resize_bias_table(table, 49).reshape(7, 7)
    assert resized[0] == pytest.approx(FIRST_ROW, abs=1e-4)
    assert resized[3, 3] == pytest.approx(144.0, abs=1e-4)


def test_only_a_table_of_another_window_is_resized():
    assert window_to_resize("stages.0.blocks.0.attn.bias_table", (25, 2), (81, 2)) == 3
    for name, found in (
        ("stages.0.blocks.0.attn.bias_table", (81, 2)),
        ("stages.0.blocks.0.attn.bias_table", (25, 4)),
        ("stages.0.blocks.0.attn.bias_table", (24, 2)),
        ("norm.weight", (25, 2)),
    ):
        assert window_to_resize(name, found, (81, 2)) is None
