"""Mixup and CutMix: every image of a batch is mixed with the image before it.

    mixup    x = s x_i + (1 - s) x_j, of normalised pixels (Zhang et al. 2018, arXiv 1710.09412)
    cutmix   a box of x_i is taken from x_j (Yun et al. 2019, arXiv 1905.04899, algorithm 1)

j is the place before i, and the last place for the first. One share s and one box serve the whole
batch, as in torchvision and timm. For given draws, pixels, box and targets are those of
torchvision's `MixUp` and `CutMix`.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from transfg_core.backend import Array, Batch
from transfg_core.config.sections import DataConfig
from transfg_core.data.transforms import normalise

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels


class Mix(NamedTuple):
    """The share of each image in its mixture, and the box from the partner; None for mixup."""

    share: float
    box: Box | None = None


def draw_mix(size: tuple[int, int], data: DataConfig, rng: np.random.Generator) -> Mix | None:
    """How to mix a batch of images of (height, width) pixels; None leaves it as it is.

    Draws in this order: whether to mix, whether to cut, the share, the centre of the box.
    """
    mixes, cuts = rng.random() < data.mix_prob, rng.random() < data.mix_switch_prob
    if not (data.mixup or data.cutmix) or not mixes:
        return None
    cuts = cuts if data.mixup and data.cutmix else data.cutmix > 0
    alpha = data.cutmix if cuts else data.mixup
    share = float(rng.beta(alpha, alpha))
    if not cuts:
        return Mix(share)
    return cut(size, share, (int(rng.integers(size[0])), int(rng.integers(size[1]))))


def cut(size: tuple[int, int], share: float, centre: tuple[int, int]) -> Mix:
    """The box around (row, column) whose sides are √(1 - share) of the image's, clipped to it.

    The share becomes that of the area outside the box.
    """
    half = 0.5 * math.sqrt(1 - share)
    reach = [int(half * side) for side in size]
    top, left = (max(c - r, 0) for c, r in zip(centre, reach, strict=True))
    bottom, right = (min(c + r, side) for c, r, side in zip(centre, reach, size, strict=True))
    outside = 1 - (right - left) * (bottom - top) / (size[0] * size[1])
    return Mix(outside, (left, top, right, bottom))


def mix_batch(batch: Batch, mix: Mix, data: DataConfig, classes: int) -> Batch:
    """The mixed batch, with targets (B, classes) float32; `batch` is left as it is.

    Images are (B, H, W, 3) uint8, or normalised, (B, 3, H, W) float32. Mixup returns normalised
    ones. The label of an image becomes that of the larger share.
    """
    images, labels = batch.images, batch.labels
    partners = np.roll(labels, 1)
    targets = np.zeros((len(labels), classes), np.float32)
    targets[np.arange(len(labels)), labels] = 1
    targets = blend(targets, mix.share)
    if mix.box is None:
        images = images if images.dtype == np.float32 else normalise(images, data)
        images = blend(images, mix.share)
    else:
        left, top, right, bottom = mix.box
        rows, columns = slice(top, bottom), slice(left, right)
        place = np.s_[:, rows, columns] if images.dtype == np.uint8 else np.s_[:, :, rows, columns]
        mixed = images.copy()
        mixed[place] = np.roll(images[place], 1, axis=0)
        images = mixed
    return Batch(images, labels if mix.share >= 0.5 else partners, targets)


def blend(values: Array, share: float) -> NDArray[np.float32]:
    """share · v_i + (1 - share) · v_j along the first axis, in float32."""
    mixed: NDArray[np.float32] = np.roll(values, 1, axis=0)
    mixed *= np.float32(1 - share)
    mixed += values * np.float32(share)
    return mixed
