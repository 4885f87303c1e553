"""Colour jitter and greyscale: what is drawn, and each adjustment against arithmetic."""

import colorsys
import itertools
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from transfg_core.config.sections import DataConfig
from transfg_core.data import color_jitter as module
from transfg_core.data.color_jitter import ADJUSTMENTS, color_jitter, to_grey
from transfg_core.data.transforms import train_transform

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 36, 3), dtype=np.uint8)
IMAGE = Image.fromarray(PIXELS)


def after(index, factor, image=IMAGE):
    return np.array(ADJUSTMENTS[index](image, factor)).astype(float)


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
def test_factors_blend_with_black_the_mean_grey_and_grey(factor):
    grey = PIXELS @ [0.299, 0.587, 0.114]
    for index, base in enumerate((0.0, np.round(grey.mean()), grey[..., None])):
        expected = np.clip(base + factor * (PIXELS - base), 0, 255)
        assert np.abs(after(index, factor) - expected).max() <= 1.5, index


@pytest.mark.parametrize(("turn", "colour"), [(1 / 3, (0, 255, 0)), (-1 / 3, (0, 0, 255))])
def test_hue_turns_red_into_green_or_blue(turn, colour):
    assert np.abs(after(3, turn, Image.new("RGB", (5, 7), "red")) - colour).max() <= 8


def test_hue_keeps_saturation_and_value():
    pixels = np.clip(PIXELS, 60, 200)
    turned = after(3, 0.21, Image.fromarray(pixels)) / 255
    for old, new in zip((pixels / 255).reshape(-1, 3), turned.reshape(-1, 3), strict=True):
        (h, s, v), (h2, s2, v2) = colorsys.rgb_to_hsv(*old), colorsys.rgb_to_hsv(*new)
        assert abs(s - s2) < 0.03 and abs(v - v2) < 0.01
        if s > 0.3:
            assert abs((h2 - h - 0.21 + 0.5) % 1 - 0.5) < 0.03


def test_grey_is_luma():
    grey = np.array(to_grey(IMAGE))
    assert (grey == grey[..., :1]).all()
    assert np.abs(grey[..., 0] - PIXELS @ [0.299, 0.587, 0.114]).max() <= 1


def test_draws(monkeypatch):
    """Every order equally often; factors fill their ranges; a strength of 0 changes nothing."""
    seen, factors = Counter(), []

    def record(image, order, values):
        seen[tuple(order)] += 1
        factors.append(values)
        return image

    monkeypatch.setattr(module, "adjust", record)
    rng, count = np.random.default_rng(0), 4800
    for _ in range(count):
        color_jitter(IMAGE, (0.2, 1.5, 0.4, 0.1), rng)
    assert set(seen) == set(itertools.permutations(range(4)))
    assert max(abs(n - count / 24) for n in seen.values()) < 5 * np.sqrt(count / 24)
    values, ends = np.array(factors), [(0.8, 1.2), (0.0, 2.5), (0.6, 1.4), (-0.1, 0.1)]
    for column, (low, high) in zip(values.T, ends, strict=True):
        assert low <= column.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < column.max() <= high
    assert abs(np.corrcoef(values.T) - np.eye(4)).max() < 0.08
    color_jitter(IMAGE, (0.0, 0.5, 0.0, 0.0), rng)
    assert list(seen)[-1] == (1,)


def test_later_draws_do_not_depend_on_the_strengths():
    ends = []
    for strengths in ((0.4, 0.4, 0.4, 0.1), (0.0, 0.0, 0.9, 0.0)):
        rng = np.random.default_rng(3)
        color_jitter(IMAGE, strengths, rng)
        ends.append(rng.random())
    assert ends[0] == ends[1]


def test_share_of_grey_images():
    data = DataConfig(crop=(24, 36), flip=False, grayscale=0.3)
    rng = np.random.default_rng(1)
    images = [train_transform(IMAGE, data, rng) for _ in range(500)]
    grey = sum(bool((pixels == pixels[..., :1]).all()) for pixels in images)
    assert 110 < grey < 190
