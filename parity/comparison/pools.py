"""Max pools over two axes: which number of each window was taken."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from parity.comparison.sketch import Array


@dataclass(frozen=True)
class Pool:
    """A max pool with square windows; `first` of its two axes in (N, C, H, W) is 2, in NHWC 1."""

    kernel: int
    stride: int
    padding: int
    first: int = 2

    def size(self, length: int) -> int:
        """The number of windows over an axis of this length."""
        return 1 + (length + 2 * self.padding - self.kernel) // self.stride

    def fits_sizes(self, before: Sequence[int], after: Sequence[int]) -> bool:
        """Whether this pool makes the second shape of the first."""
        if len(before) != 4 or len(after) != 4:
            return False
        axes = (self.first, self.first + 1)
        sizes = [self.size(n) if axis in axes else n for axis, n in enumerate(before)]
        return sizes == list(after)

    def fits(self, x: Array, y: Array) -> bool:
        """Whether y is this pool of x, bit by bit; one plane is looked at first."""
        if not self.fits_sizes(x.shape, y.shape):
            return False
        axes = (self.first, self.first + 1)
        plane = tuple(slice(None) if axis in axes else slice(1) for axis in range(4))
        return all(np.array_equal(pooled(a, self)[0], b) for a, b in ((x[plane], y[plane]), (x, y)))

    def values(self, x: Array, places: Array, index: Array) -> Array:
        """(P,) numbers of x: of the plane of each place, the one with this flat index in it."""
        if not len(places):
            return np.zeros(0)
        width = x.shape[self.first + 1]
        where = [places[:, axis] for axis in range(4)]
        rows, columns = index // width, index % width
        inside = (rows >= 0) & (rows < x.shape[self.first])
        where[self.first], where[self.first + 1] = np.where(inside, rows, 0), columns
        return np.where(inside, x[tuple(where)].astype(np.float64), np.inf)


# The common ones. Any other is compared like a function without corners.
POOLS = tuple(
    Pool(*sizes, first)
    for first in (2, 1)
    for sizes in ((2, 2, 0), (3, 2, 1), (3, 2, 0), (3, 1, 1), (2, 1, 0))
)


def pooled(x: Array, pool: Pool) -> tuple[Array, Array]:
    """The largest number of each window, and its flat index in the plane; the first of equals."""
    axes = (pool.first, pool.first + 1)
    width = [(pool.padding,) * 2 if axis in axes else (0, 0) for axis in range(4)]
    padded = np.pad(x, width, constant_values=-np.inf)
    sizes = [pool.size(x.shape[axis]) for axis in axes]
    grid = [np.arange(size) * pool.stride - pool.padding for size in sizes]
    best: Array | None = None
    index = np.zeros(0, np.int64)
    for down, right in product(range(pool.kernel), repeat=2):
        place = [slice(None)] * 4
        for axis, start, size in zip(axes, (down, right), sizes, strict=True):
            place[axis] = slice(start, start + (size - 1) * pool.stride + 1, pool.stride)
        value = padded[tuple(place)]
        flat = (grid[0] + down)[:, None] * x.shape[axes[1]] + grid[1] + right
        flat = np.broadcast_to(flat.reshape(flat.shape + (1,) * (2 - pool.first)), value.shape)
        if best is None:
            best, index = value.copy(), flat.copy()
            continue
        larger = value > best
        best[larger], index[larger] = value[larger], flat[larger]
    assert best is not None
    return best, index
