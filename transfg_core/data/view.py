"""Where the pixels of an evaluation crop lie in the photograph, and the way back.

A photograph has three frames, each in pixels, x to the right and y down:

    stored     as the file holds its pixels
    upright    turned as the file's EXIF orientation says: as a browser shows it
    crop       what the model sees: the stored pixels, or with `data.exif: apply` the upright ones,
               resized and cut

Boxes are left, top, right, bottom; sizes are (height, width).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from transfg_core.config.sections import DataConfig
from transfg_core.data.decoding import Box, Size
from transfg_core.data.pixels import UPRIGHT, upright_boxes
from transfg_core.data.transforms import eval_geometry

Boxes = NDArray[np.float64]  # (n, 4)
BACK = {6: 8, 8: 6}  # the orientations that are not their own inverse


@dataclass(frozen=True)
class View:
    """The path of one image to its evaluation crop.

    `seen` is the size of the image before `data.resize`, `resized` the size after it, and `crop`
    the box that was cut out of that. `orientation` is the file's (EXIF, 1 to 8); `turned` says that
    the seen image is already the upright one.
    """

    seen: Size
    resized: Size
    crop: Box
    orientation: int
    turned: bool

    @property
    def upright(self) -> Size:
        """Size of the upright image."""
        swapped = self.orientation >= 5 and not self.turned
        return self.seen[::-1] if swapped else self.seen

    @property
    def stored(self) -> Size:
        """Size of the stored image."""
        return self.upright[::-1] if self.orientation >= 5 else self.upright

    def to_seen(self, boxes: Boxes) -> Boxes:
        """Boxes (n, 4) of the crop in pixels of the image before resizing, cut at its border."""
        (height, width), (full_height, full_width) = self.resized, self.seen
        corner = np.array([*self.crop[:2], *self.crop[:2]], np.float64)
        scale = np.array([full_width / width, full_height / height] * 2)
        limit = np.array([full_width, full_height] * 2, np.float64)
        moved: Boxes = np.clip((boxes + corner) * scale, 0, limit)
        return moved

    def to_upright(self, boxes: Boxes) -> Boxes:
        """Boxes (n, 4) of the crop in pixels of the upright image."""
        seen = self.to_seen(boxes)
        return seen if self.turned else upright_boxes(seen, self.seen, self.orientation)[0]

    def to_stored(self, boxes: Boxes) -> Boxes:
        """Boxes (n, 4) of the crop in pixels of the stored image."""
        seen = self.to_seen(boxes)
        back = BACK.get(self.orientation, self.orientation)
        return upright_boxes(seen, self.seen, back)[0] if self.turned else seen

    def upright_image(self, seen: Image.Image) -> Image.Image:
        """The seen image, or a map of its shape, turned upright."""
        turns = {} if self.turned else UPRIGHT
        turn = turns.get(self.orientation)
        return seen if turn is None else seen.transpose(turn)

    def spread(self, values: NDArray[np.floating[Any]], size: Size) -> NDArray[np.float32]:
        """Values over the crop as a map over the upright image: (h, w) -> `size`.

        The values cover the crop evenly, in any resolution. Between their centres the map is
        bilinear; outside of the crop, which the model never saw, it is not-a-number.
        """
        swapped = self.orientation >= 5 and not self.turned
        height, width = size[::-1] if swapped else size
        left, top, right, bottom = self.crop
        grid = Image.fromarray(np.ascontiguousarray(values, np.float32))
        # the crop's size on the map; values that are finer than that are averaged first
        across = max(1, round(width * (right - left) / self.resized[1]))
        down = max(1, round(height * (bottom - top) / self.resized[0]))
        if across < grid.width or down < grid.height:
            finest = (min(across, grid.width), min(down, grid.height))
            grid = grid.resize(finest, Image.Resampling.BOX)
        # a pixel of the map, in shares of the seen image, then in pixels of the grid
        x_scale = self.resized[1] / (right - left) * grid.width
        y_scale = self.resized[0] / (bottom - top) * grid.height
        affine = (
            *(x_scale / width, 0, -left / (right - left) * grid.width),
            *(0, y_scale / height, -top / (bottom - top) * grid.height),
        )
        spread = grid.transform(
            (width, height),
            Image.Transform.AFFINE,
            affine,
            Image.Resampling.BILINEAR,
            fillcolor=float("nan"),
        )
        return np.asarray(self.upright_image(spread))


def view_of(image: Image.Image, orientation: int, data: DataConfig) -> View:
    """The view of an image as `decode_image` returns it.

    Raises:
        UserError: the image is smaller than the crop.
    """
    seen = (image.height, image.width)
    resized, crop = eval_geometry(seen, data)
    return View(seen, resized, crop, orientation, data.exif == "apply")
