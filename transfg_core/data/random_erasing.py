"""Random erasing (Zhong et al. 2020, arXiv 1708.04896, algorithm 1), on pixels of 8 bits.

It comes last, before normalisation. The box for given draws is that of torchvision's
`RandomErasing`.
"""

import math

import numpy as np
from numpy.typing import NDArray

from transfg_core.config.erasing import ErasingConfig

ATTEMPTS = 10  # as in torchvision and timm; then the image stays whole

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels


def random_erasing(
    pixels: NDArray[np.uint8],
    config: ErasingConfig,
    mean: tuple[float, ...],
    rng: np.random.Generator,
) -> None:
    """Erase a random box of an image (H, W, 3) in place, with the configured probability.

    `mean` has the channel means in [0, 1] that `value: mean` fills with, rounded to 8 bits.
    """
    if rng.random() >= config.probability:
        return
    box = erased_box(pixels.shape[:2], config, rng)
    if box is None:
        return
    left, top, right, bottom = box
    view = pixels[top:bottom, left:right]
    if config.value == "noise":
        view[:] = rng.integers(0, 256, view.shape, dtype=np.uint8)
    else:
        view[:] = np.rint(np.multiply(mean, 255)) if config.value == "mean" else 0


def erased_box(
    size: tuple[int, ...], config: ErasingConfig, rng: np.random.Generator
) -> Box | None:
    """A random box inside (height, width); None if no attempt gave one smaller than the image.

    Each attempt draws the share of the area in `scale`, and the aspect ratio (height over width)
    in `aspect`, uniform in its logarithm.
    """
    height, width = size
    low, high = (math.log(value) for value in config.aspect)
    for _ in range(ATTEMPTS):
        area = height * width * rng.uniform(*config.scale)
        aspect = math.exp(rng.uniform(low, high))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if h < height and w < width:
            top = int(rng.integers(height - h + 1))
            left = int(rng.integers(width - w + 1))
            return left, top, left + w, top + h
    return None
