"""Settings that fit a data set, by rules that the text states."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from transfg_core.config.sections import Config
from transfg_core.inspection.balance import Balance

# Resize 600 and crop 448 (TransFG), 512 and 384 (SwinFC), 400 and 304 (iNat2017): the crop is the
# multiple of the patch that is nearest to three quarters.
LARGEST = 600
CROP_SHARE = 3 / 4
PATCH = 16  # of ViT-B/16, which TransFG starts from
ROUND = 8  # pixels; the resized side is a multiple
ELONGATED, ELONGATED_SHARE = 2.0, 0.05  # above this share, a square would distort too many images
EPOCHS = 100  # 10,000 updates of 64 images on CUB-200-2011 are 107 epochs (He et al. 2022)
WARMUP = 0.05  # of the updates: 500 of 10,000
UNEVEN = 3.0  # the largest class over the smallest, from which data.balance is suggested


class Sizes(NamedTuple):
    """`resize` is (height, width), or the shorter side; `crop` is (height, width)."""

    resize: tuple[int, int] | int
    crop: tuple[int, int]
    reason: str


def suggest_sizes(sizes: NDArray[np.int32], config: Config, assumed: bool) -> Sizes:
    """Resize and crop for images of these sizes (n, 2), n > 0.

    The patch is that of the configuration, or without one (`assumed`) PATCH.

    The side is the median of the shorter sides, at most LARGEST, so that half of the images or more
    are not enlarged. It is a square as in the papers, unless more than ELONGATED_SHARE of the
    images are longer than ELONGATED times their shorter side.
    """
    shorter, longer = sizes.min(axis=1), sizes.max(axis=1)
    patch = PATCH if assumed else int(getattr(config.model, "patch", ROUND))
    smallest = max(patch, config.model.smallest_image[0])
    median = int(np.percentile(shorter, 50, method="nearest"))
    crop = _multiple(CROP_SHARE * min(median, LARGEST), patch, smallest)
    side = max(min(median, LARGEST) // ROUND * ROUND, crop)
    elongated = float((longer > ELONGATED * shorter).mean())
    reason = (
        f"the median shorter side is {median}; at most {LARGEST}, as in the papers; the crop is "
        f"the multiple of {patch} nearest to three quarters of it"
    )
    if elongated > ELONGATED_SHARE:
        reason += (
            f"; {100 * elongated:.3g} % of the images are more than {ELONGATED:g} times as long as "
            "wide, so the shorter side is resized and the aspect ratio kept"
        )
        return Sizes(side, (crop, crop), reason)
    return Sizes((side, side), (crop, crop), reason)


def _multiple(value: float, of: int, smallest: int) -> int:
    return max(math.floor(value / of + 0.5), -(-smallest // of)) * of


def snippet(config: Config, sizes: Sizes, balance: Balance, assumed: bool) -> dict[str, Any]:
    """Keys for a configuration; without one (`assumed`), the length is EPOCHS."""
    images = int(balance.counts.sum())
    train = config.train
    epochs = EPOCHS if assumed else train.epochs
    batch = train.batch_size
    updates = train.steps if epochs is None else math.ceil(epochs * images / batch)
    length: dict[str, Any] = {"steps": train.steps} if epochs is None else {"epochs": epochs}
    data = config.data
    resize = list(sizes.resize) if isinstance(sizes.resize, tuple) else sizes.resize
    return {
        "data": {
            "name": data.name,
            "root": data.root,
            "split": data.split,
            "resize": resize,
            "crop": list(sizes.crop),
            "normalise": data.normalise,
            "balance": data.balance or balance.ratio >= UNEVEN,
        },
        "optim": {"warmup": round(WARMUP * updates)},
        "train": length | {"batch_size": batch},
    }
