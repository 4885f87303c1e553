"""Random erasing: where the box lies, how large it is, and what it is filled with."""

import numpy as np
import pytest
from PIL import Image

from transfg_core.config.erasing import ErasingConfig
from transfg_core.config.sections import NORMALISATION, DataConfig
from transfg_core.data.random_erasing import erased_box, random_erasing
from transfg_core.data.transforms import normalise, train_transform

MEAN = NORMALISATION["imagenet"][0]
WHITE = np.full((40, 60, 3), 255, dtype=np.uint8)


def erased(config, rng, pixels=WHITE):
    pixels = pixels.copy()
    random_erasing(pixels, config, MEAN, rng)
    return pixels


def test_boxes_fill_scale_and_aspect_and_reach_every_edge():
    config, rng = ErasingConfig(scale=(0.1, 0.3), aspect=(0.5, 1.5)), np.random.default_rng(0)
    boxes = np.array([erased_box((200, 300), config, rng) for _ in range(4000)])
    left, top, right, bottom = boxes.T
    width, height = right - left, bottom - top
    area, aspect = width * height / 60_000, height / width
    assert 0.099 < area.min() < 0.102 and 0.298 < area.max() < 0.302
    assert 0.49 < aspect.min() < 0.51 and 1.48 < aspect.max() < 1.52
    assert abs(area.mean() - 0.2) < 0.005
    assert abs(np.log(aspect).mean() - np.log(0.75) / 2) < 0.02  # uniform in the logarithm
    assert left.min() == top.min() == 0 and right.max() == 300 and bottom.max() == 200
    # places are uniform in what is left beside the box
    assert abs((left / (300 - width)).mean() - 0.5) < 0.02
    assert abs((top / (200 - height)).mean() - 0.5) < 0.02


def test_a_box_that_never_fits_leaves_the_image():
    config = ErasingConfig(probability=1, scale=(1.0, 1.0), aspect=(1.0, 1.0))
    assert erased_box((20, 20), config, np.random.default_rng(0)) is None
    assert (erased(config, np.random.default_rng(0)) == WHITE).all()


@pytest.mark.parametrize("value", ["zero", "mean", "noise"])
def test_values(value):
    config = ErasingConfig(probability=1, scale=(0.2, 0.2), value=value)
    pixels = erased(config, np.random.default_rng(1))
    changed = (pixels != 255).any(-1)
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    box = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert abs(box.shape[0] * box.shape[1] / 2400 - 0.2) < 0.02
    if value == "noise":
        assert len(np.unique(box)) > 200 and abs(box.mean() - 127.5) < 6
        assert abs(np.corrcoef(box.reshape(-1, 3).T) - np.eye(3)).max() < 0.2
    else:
        assert changed.sum() == box.shape[0] * box.shape[1]
        assert (box == (0 if value == "zero" else [124, 116, 104])).all()


def test_the_mean_is_zero_after_normalisation():
    """To half a level of 8 bits: torchvision and timm erase with 0 after normalisation."""
    config = ErasingConfig(probability=1, scale=(0.3, 0.3), value="mean")
    for name, (mean, deviation) in NORMALISATION.items():
        pixels = WHITE.copy()
        random_erasing(pixels, config, mean, np.random.default_rng(2))
        values = normalise(pixels[None], DataConfig(normalise=name))[0]
        box = values[:, (pixels != 255).any(-1)]
        assert box.size and np.abs(box).max() <= 0.5 / 255 / min(deviation) + 1e-6


def test_probability_and_the_same_draws():
    data = DataConfig(crop=(40, 60), flip=False, random_erasing={"probability": 0.3})
    image, rng = Image.fromarray(WHITE), np.random.default_rng(4)
    count = sum((train_transform(image, data, rng) != 255).any() for _ in range(500))
    assert 110 < count < 190
    one, same = (train_transform(image, data, np.random.default_rng(s)) for s in (5, 5))
    assert (one == same).all()


def test_erasing_comes_last():
    """So no colour or rotation changes the box."""
    data = DataConfig(
        crop=(40, 60), auto_augment=True, color_jitter=(0.9, 0.9, 0.9, 0.5), rotation=40.0,
        random_erasing={"probability": 1, "scale": (0.4, 0.4), "aspect": (1, 1), "value": "zero"},
    )  # fmt: skip
    image = Image.fromarray(np.random.default_rng(0).integers(60, 256, (40, 60, 3), np.uint8))
    for seed in range(20):
        black = (train_transform(image, data, np.random.default_rng(seed)) == 0).all(-1)
        sides = [np.flatnonzero(black.mean(axis) > 0.45) for axis in (1, 0)]
        assert [len(side) for side in sides] == [31, 31]
        assert black[sides[0][0] : sides[0][-1] + 1, sides[1][0] : sides[1][-1] + 1].all()
