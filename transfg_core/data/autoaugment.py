"""AutoAugment, the ImageNet policy (Cubuk et al. 2019, table 9) with Pillow.

A sub-policy is two steps (operation, probability, level). One of 25 sub-policies is drawn for each
image, and each step is applied with its probability. This module has only the operations that the
policy names. Magnitudes follow the paper's ten levels; an operation with a direction takes either
sign with probability 1/2. Pixels that move in from outside the image are mid-grey. Shear is
bicubic and rotation nearest-neighbour, as in the published program of TransFG.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

FILL = (128, 128, 128)
LEVELS = 10

Step = tuple[str, float, int]

POLICY: tuple[tuple[Step, Step], ...] = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 5)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 4), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 7)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 2)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 8), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("color", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 2)),
    (("equalize", 0.0, 7), ("equalize", 0.8, 8)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("color", 1.0, 2)),
    (("color", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 8)),
    (("shear_x", 0.6, 5), ("equalize", 1.0, 9)),
    (("color", 0.4, 0), ("equalize", 0.6, 3)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 5)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
)


def _shear_x(image: Image.Image, magnitude: float) -> Image.Image:
    return image.transform(
        image.size,
        Image.Transform.AFFINE,
        (1, magnitude, 0, 0, 1, 0),
        Image.Resampling.BICUBIC,
        fillcolor=FILL,
    )


def _rotate(image: Image.Image, magnitude: float) -> Image.Image:
    return image.rotate(magnitude, Image.Resampling.NEAREST, fillcolor=FILL)


def _color(image: Image.Image, magnitude: float) -> Image.Image:
    return ImageEnhance.Color(image).enhance(1 + magnitude)


def _contrast(image: Image.Image, magnitude: float) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(1 + magnitude)


def _sharpness(image: Image.Image, magnitude: float) -> Image.Image:
    return ImageEnhance.Sharpness(image).enhance(1 + magnitude)


def _posterize(image: Image.Image, magnitude: float) -> Image.Image:
    return ImageOps.posterize(image, round(magnitude))


def _solarize(image: Image.Image, magnitude: float) -> Image.Image:
    return ImageOps.solarize(image, magnitude)  # type: ignore[arg-type]  # accepts any number


def _autocontrast(image: Image.Image, magnitude: float) -> Image.Image:
    return ImageOps.autocontrast(image)


def _equalize(image: Image.Image, magnitude: float) -> Image.Image:
    return ImageOps.equalize(image)


def _invert(image: Image.Image, magnitude: float) -> Image.Image:
    return ImageOps.invert(image)


# operation: (function, magnitude at level 0, magnitude at level 9, takes either sign).
# The magnitude is a slope for shear, degrees for rotation, the kept bits for posterize, the
# threshold of inversion (exclusive) for solarize, and factor - 1 for colour, contrast, sharpness.
OPERATIONS: dict[str, tuple[Callable[[Image.Image, float], Image.Image], float, float, bool]] = {
    "shear_x": (_shear_x, 0.0, 0.3, True),
    "rotate": (_rotate, 0.0, 30.0, True),
    "color": (_color, 0.0, 0.9, True),
    "contrast": (_contrast, 0.0, 0.9, True),
    "sharpness": (_sharpness, 0.0, 0.9, True),
    "posterize": (_posterize, 8.0, 4.0, False),
    "solarize": (_solarize, 256.0, 0.0, False),
    "autocontrast": (_autocontrast, 0.0, 0.0, False),
    "equalize": (_equalize, 0.0, 0.0, False),
    "invert": (_invert, 0.0, 0.0, False),
}


def auto_augment(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Draw a sub-policy and apply it to an RGB image; the size stays the same.

    The function always takes five draws, so later draws do not depend on the outcome.
    """
    steps = POLICY[int(rng.integers(len(POLICY)))]
    for name, probability, level in steps:
        applied, negative = rng.random() < probability, rng.random() < 0.5
        if applied:
            image = apply(image, name, level, negative)
    return image


def apply(image: Image.Image, name: str, level: int, negative: bool = False) -> Image.Image:
    """Apply an operation at a level from 0 to 9; `negative` reverses its direction, if any."""
    function, first, last, signed = OPERATIONS[name]
    magnitude = first + (last - first) * level / (LEVELS - 1)
    return function(image, -magnitude if signed and negative else magnitude)
