"""Resize position embeddings from one grid of patches to another.

Letters: T tokens, D width.
"""

import math

import numpy as np
from scipy import ndimage

from transfg_core.backend import Array


def resize_pos_embed(
    embedding: Array, grid: tuple[int, int], source: tuple[int, int] | None = None
) -> Array:
    """Resize a grid of positions bilinearly with aligned corners; the class token's row stays.

    (1, T, D) -> (1, rows * columns + 1, D). `source` is the embedding's grid; None means square.

    TransFG's published program calls `ndimage.zoom(order=1)` with the default border mode, which
    sets the last row and column to zero at some sizes: where the step is rounded up (24 to 22,
    16 to 30). The mode `nearest` gives the right values there, and the same values elsewhere.
    """
    if source is None:
        side = square_side(embedding.shape[1])
        assert side is not None, embedding.shape
        source = (side, side)
    width = embedding.shape[2]
    old = embedding[0, 1:].reshape(*source, width)
    zoom = (grid[0] / source[0], grid[1] / source[1], 1)
    resized = ndimage.zoom(old, zoom, order=1, mode="nearest")
    assert resized.shape == (*grid, width), (resized.shape, grid)  # zoom rounds the sizes itself
    return np.concatenate([embedding[:, :1], resized.reshape(1, -1, width)], axis=1)


def square_side(tokens: int) -> int | None:
    """Side of the square grid that follows the class token: 197 -> 14; None if it is not square."""
    side = math.isqrt(max(tokens - 1, 0))
    return side if side and side * side + 1 == tokens else None
