"""The part of each listed image that is used: its box, or all but a banner at its foot."""

from collections.abc import Sequence
from contextlib import suppress
from math import ceil, floor, isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transfg_core.data.bad_image import BadImage
from transfg_core.data.decoding import image_size
from transfg_core.errors import UserError

Corners = tuple[float, float, float, float]  # left, top, right, bottom in pixels

MOST_SIZES = 200  # images whose size is compared with their box
TOLERANCE = 2  # pixels
MOST_PIXELS = 2**30  # of a corner; no image is as wide


def box_regions(
    boxes: Sequence[Corners], paths: Sequence[str], places: Sequence[str]
) -> NDArray[np.int32]:
    """Regions (N, 4) of whole pixels around boxes, as `Samples.regions`; not yet clipped.

    Args:
        boxes: the box of each image.
        paths: the files of the images.
        places: the place of each image in its list, for messages.

    Raises:
        UserError: a box is empty or no box, or passes MOST_PIXELS; or most boxes pass the border
            of their image.
    """
    for box, place in zip(boxes, places, strict=True):
        left, top, right, bottom = box
        if not (all(map(isfinite, box)) and left < right and top < bottom and right > 0 < bottom):
            raise UserError(
                f"{place}: expected a box of at least one pixel, found left {left:g}, top {top:g}, "
                f"right {right:g}, bottom {bottom:g}; correct the file, or leave data.box_crop out"
            )
        if max(map(abs, box)) > MOST_PIXELS:
            raise UserError(
                f"{place}: expected corners of a box of at most {MOST_PIXELS} pixels, found "
                f"{max(box, key=abs):g}; correct the file, or leave data.box_crop out"
            )
    regions = np.array(
        [(floor(x0), floor(y0), ceil(x1), ceil(y1)) for x0, y0, x1, y1 in boxes], np.int32
    ).reshape(-1, 4)
    _refuse_resized_images(regions, paths)
    return regions


def _refuse_resized_images(regions: NDArray[np.int32], paths: Sequence[str]) -> None:
    """Refuse boxes that pass the border of most images, by a sample: the images were resized."""
    sizes: dict[int, tuple[int, int]] = {}
    for row in range(0, len(paths), -(-len(paths) // MOST_SIZES) or 1):
        with suppress(BadImage):
            sizes[row] = image_size(paths[row])
    past = [
        row
        for row, (height, width) in sizes.items()
        if regions[row, 2] > width + TOLERANCE or regions[row, 3] > height + TOLERANCE
    ]
    if 2 * len(past) > len(sizes):
        (height, width), (_, _, right, bottom) = sizes[past[0]], regions[past[0]].tolist()
        raise UserError(
            f"{paths[past[0]]}: expected the data set's box inside the image, found {width} x "
            f"{height} pixels and a box up to column {right}, row {bottom} ({len(past)} of "
            f"{len(sizes)} images are so); images that were resized do not fit the boxes: take the "
            "original ones, or leave data.box_crop out"
        )


def footless_regions(images: int, rows: int) -> NDArray[np.int32]:
    """Regions (N, 4) that leave out the last rows of each image."""
    return np.tile(np.array([[0, 0, 0, -rows]], np.int32), (images, 1))


def no_boxes(name: str, root: Path) -> UserError:
    """The error for `data.box_crop` where the files in this folder hold no boxes."""
    return UserError(
        f"data.box_crop: expected boxes in {root}, but this form of {name} has none; leave "
        "data.box_crop out"
    )
