"""Random brightness, contrast, saturation and hue, and conversion to grey, with Pillow.

The result for given factors is that of torchvision's Pillow path (`ColorJitter`,
`RandomGrayscale`), bit for bit.
"""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageEnhance

Strengths = tuple[float, float, float, float]  # brightness, contrast, saturation, hue


def _brightness(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(factor)


def _contrast(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(factor)


def _saturation(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Color(image).enhance(factor)


def _hue(image: Image.Image, turn: float) -> Image.Image:
    """Turn the hue by a share of the circle, in 255 steps that are truncated towards zero."""
    hue, saturation, value = image.convert("HSV").split()
    steps = int(turn * 255) % 256
    hue = hue.point([(level + steps) % 256 for level in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


ADJUSTMENTS: tuple[Callable[[Image.Image, float], Image.Image], ...] = (
    _brightness,
    _contrast,
    _saturation,
    _hue,
)


def color_jitter(image: Image.Image, strengths: Strengths, rng: np.random.Generator) -> Image.Image:
    """Adjust an RGB image by random factors in random order.

    Factors are uniform in [max(0, 1 - s), 1 + s]; the hue turns by a share of the circle in
    [-s, s]. A strength of 0 leaves its property alone. The function always takes the same draws:
    the order, then one factor for each strength.
    """
    order = rng.permutation(len(ADJUSTMENTS))
    *others, hue = strengths
    factors = [rng.uniform(max(0.0, 1 - s), 1 + s) for s in others] + [rng.uniform(-hue, hue)]
    used = [k for k in order.tolist() if strengths[k]]
    return adjust(image, used, factors)


def adjust(image: Image.Image, order: Sequence[int], factors: Sequence[float]) -> Image.Image:
    """Apply the adjustments (indices into ADJUSTMENTS) in this order, each with its factor."""
    for index in order:
        image = ADJUSTMENTS[index](image, factors[index])
    return image


def to_grey(image: Image.Image) -> Image.Image:
    """RGB with three equal channels: Pillow's luma, 0.299 R + 0.587 G + 0.114 B (ITU-R 601-2)."""
    return image.convert("L").convert("RGB")
