"""Where the windows of a Swin Transformer lie on a map of tokens: NumPy indices for both twins.

Source: Liu et al. 2021 (arXiv 2103.14030), section 3.2 and figure 4. What the paper leaves open
follows others. A map that is not larger than the window along an axis is one window along it, as in
timm; the authors' image classification asks for square maps, where this is the same. A map that the
window does not divide is padded below and at the right, then shifted, and the padding is attended
to, as in the authors' object detection.

Shapes: U tokens of the padded map, row by row; n windows of N tokens; w side of a full window.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]


@dataclass(frozen=True)
class Windows:
    """The windows of one block: `rows` x `columns` tokens, windows of up to `window` each way.

    A `shifted` block moves its windows by half a window down and to the right, cyclically, along
    the axes that have more than one window.
    """

    rows: int
    columns: int
    window: int
    shifted: bool

    @property
    def sides(self) -> tuple[int, int]:
        """Rows and columns of a window: those of the map where the map is not larger."""
        return min(self.rows, self.window), min(self.columns, self.window)

    @property
    def padded(self) -> tuple[int, int]:
        """Rows and columns of the map after padding to whole windows."""
        height, width = self.sides
        return -(-self.rows // height) * height, -(-self.columns // width) * width

    @property
    def shift(self) -> tuple[int, int]:
        """Rows and columns by which the windows move: half a window, 0 along one window."""
        half = self.window // 2 if self.shifted else 0
        return half * (self.rows > self.window), half * (self.columns > self.window)

    @property
    def count(self) -> int:
        """The number n of windows."""
        return self.padded[0] * self.padded[1] // (self.sides[0] * self.sides[1])

    @cached_property
    def order(self) -> Index:
        """The tokens of each window, as places in the padded map: (n, N)."""
        places = np.arange(np.prod(self.padded)).reshape(self.padded)
        return self._by_window(np.roll(places, tuple(-step for step in self.shift), (0, 1)))

    @cached_property
    def regions(self) -> Index:
        """A number for each token of each window; only equal ones attend to each other: (n, N).

        A window across the border of the map, after the cyclic shift, holds tokens from opposite
        sides of the map (figure 4).
        """
        rows, columns = (
            np.arange(side) >= side - step  # whether it comes from the other side
            for side, step in zip(self.padded, self.shift, strict=True)
        )
        return self._by_window(2 * rows[:, None] + columns)

    @cached_property
    def offsets(self) -> Index:
        """Row of the bias table for each query and key of a window: (N, N).

        The table has a row for each offset (rows, columns) from key to query, from -(w - 1) to
        w - 1 each, row by row. A clipped window uses its middle.
        """
        height, width = self.sides
        row, column = (place.reshape(-1) for place in np.indices((height, width)))
        down = row[:, None] - row + self.window - 1
        right = column[:, None] - column + self.window - 1
        return np.asarray(down * (2 * self.window - 1) + right)

    def _by_window(self, values: Index) -> Index:
        """Values on the shifted map, by window: (rows, columns) -> (n, N)."""
        (height, width), (rows, columns) = self.sides, self.padded
        grid = values.reshape(rows // height, height, columns // width, width)
        return np.asarray(grid.transpose(0, 2, 1, 3).reshape(-1, height * width), np.int64)
