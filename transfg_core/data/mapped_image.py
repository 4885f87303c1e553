"""A decoded image in a memory map: the part of Pillow's interface that the transforms use."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FLIP = Image.Transpose.FLIP_LEFT_RIGHT
PIXEL = "V3"  # three bytes that are moved together


class MappedImage:
    """Pixels (H, W, 3) uint8. Cutting and flipping copy nothing; `array` makes the one copy."""

    def __init__(self, pixels: NDArray[np.uint8], flipped: bool = False) -> None:
        self.pixels, self.flipped = pixels, flipped
        self.height, self.width = pixels.shape[:2]

    def crop(self, box: tuple[int, int, int, int]) -> MappedImage:
        """The pixels in left, top, right, bottom, all inside of an image that is not flipped."""
        left, top, right, bottom = box
        assert not self.flipped and 0 <= left <= right <= self.width
        assert 0 <= top <= bottom <= self.height
        return MappedImage(self.pixels[top:bottom, left:right])

    def transpose(self, method: Image.Transpose) -> MappedImage:
        """The image flipped from left to right."""
        assert method == FLIP
        return MappedImage(self.pixels, not self.flipped)

    def array(self) -> NDArray[np.uint8]:
        """A copy of the pixels: (H, W, 3), contiguous."""
        result = np.empty(self.pixels.shape, np.uint8)
        if self.flipped:  # twice as fast as a copy of single bytes
            result.view(PIXEL)[:, ::-1] = self.pixels.view(PIXEL)
        else:
            result[:] = self.pixels
        return result


Source = Image.Image | MappedImage


def as_pillow(image: Source) -> Image.Image:
    """The image as one of Pillow."""
    return image if isinstance(image, Image.Image) else Image.fromarray(image.array())


def as_array(image: Source) -> NDArray[np.uint8]:
    """A copy of the pixels: (H, W, 3) uint8, contiguous."""
    return image.array() if isinstance(image, MappedImage) else np.array(image)
