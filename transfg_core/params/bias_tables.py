"""Resize tables of relative position biases from one window to another.

A table of a window of w x w patches has (2w - 1)² rows, one for each offset of two patches: the
vertical offset from 1 - w to w - 1, then the horizontal one (Liu et al. 2021, arXiv 2103.14030,
section 3.2). Letters: w window, K heads.
"""

import math

import numpy as np
from numpy.typing import NDArray

from transfg_core.backend import Array
from transfg_core.models.rows import Shape

A = -0.75  # of the cubic kernel; PyTorch's `interpolate(mode="bicubic")` has this value


def resize_bias_table(table: Array, rows: int) -> Array:
    """((2v - 1)², K) -> ((2w - 1)², K), bicubic, in float64; `rows` is (2w - 1)².

    As the official program does when it loads weights: the table is an image of 2v - 1 pixels each
    way, one channel per head, and pixels have half-pixel centres (`align_corners=False`).
    """
    side, new = table_side(table.shape[0]), table_side(rows)
    assert side is not None and new is not None, (table.shape, rows)
    weights = bicubic_weights(side, new)
    grid = table.astype(np.float64).reshape(side, side, -1)
    resized: Array = np.einsum("ya,xb,abk->yxk", weights, weights, grid).reshape(new * new, -1)
    return resized


def window_to_resize(name: str, found: Shape, expected: Shape) -> int | None:
    """The window of a file's table, if the parameter is a table that differs in its window alone.

    None for other parameters, for other heads, and for rows that no window has.
    """
    if not name.endswith(".bias_table") or len(found) != 2 or found[1:] != expected[1:]:
        return None
    return window_of(found[0]) if found != expected else None


def table_side(rows: int) -> int | None:
    """2w - 1 for the rows of a table: 169 -> 13; None if no window has so many rows."""
    side = math.isqrt(max(rows, 0))
    return side if side * side == rows and side % 2 else None


def window_of(rows: int) -> int | None:
    """The window of a table's rows: 169 -> 7; None if no window has so many."""
    side = table_side(rows)
    return None if side is None else (side + 1) // 2


def bicubic_weights(old: int, new: int) -> NDArray[np.float64]:
    """(new, old): row n has the weights of the old points that make the new point n.

    Four neighbours count, by the cubic convolution of Keys (1981, equation 4 with a = `A`). Beyond
    the border the outermost point is repeated.
    """
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    weights = np.zeros((new, old))
    for shift in range(-1, 3):
        points = np.floor(centres).astype(int) + shift
        values = _kernel(np.abs(centres - points))
        np.add.at(weights, (np.arange(new), np.clip(points, 0, old - 1)), values)
    return weights


def _kernel(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' kernel at distances from 0 to 2."""
    near = (A + 2) * x**3 - (A + 3) * x**2 + 1
    far = A * x**3 - 5 * A * x**2 + 8 * A * x - 4 * A
    return np.where(x <= 1, near, far)
