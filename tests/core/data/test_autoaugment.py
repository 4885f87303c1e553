"""AutoAugment's ImageNet policy: the table, each operation by hand, and the draws."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from transfg_core.data import autoaugment
from transfg_core.data.autoaugment import OPERATIONS, POLICY, apply, auto_augment

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 36, 3), dtype=np.uint8)
IMAGE = Image.fromarray(PIXELS)


def after(name, level, negative=False):
    return np.array(apply(IMAGE, name, level, negative)).astype(int)


def test_the_policy():
    assert len(POLICY) == 25
    steps = [step for pair in POLICY for step in pair]
    assert {name for name, _, _ in steps} == set(OPERATIONS)
    assert all(0 <= level <= 9 and 0 <= chance <= 1 for _, chance, level in steps)
    totals = {}  # operation: how often, sum of probabilities, sum of levels
    for name, chance, level in steps:
        often, chances, levels = totals.get(name, (0, 0, 0))
        totals[name] = (often + 1, round(chances + chance, 1), levels + level)
    assert totals == {
        "posterize": (5, 2.8, 32),
        "rotate": (6, 3.6, 45),
        "solarize": (7, 3.6, 36),
        "autocontrast": (2, 1.2, 10),
        "equalize": (17, 11.2, 102),
        "color": (6, 3.8, 18),
        "invert": (3, 1.8, 16),
        "contrast": (2, 2.0, 16),
        "sharpness": (1, 0.4, 7),
        "shear_x": (1, 0.6, 5),
    }


@pytest.mark.parametrize(("level", "bits"), list(enumerate([8, 8, 7, 7, 6, 6, 5, 5, 4, 4])))
def test_posterize(level, bits):
    assert (after("posterize", level) == PIXELS >> (8 - bits) << (8 - bits)).all()


@pytest.mark.parametrize(("level", "threshold"), [(0, 256), (5, 114), (7, 57), (9, 0)])
def test_solarize(level, threshold):
    assert (after("solarize", level) == np.where(threshold > PIXELS, PIXELS, 255 - PIXELS)).all()


def test_invert():
    assert (after("invert", 4) == 255 - PIXELS.astype(int)).all()


@pytest.mark.parametrize(("negative", "factor"), [(False, 1.4), (True, 0.6)])
def test_color_and_contrast(negative, factor):
    grey = PIXELS @ [0.299, 0.587, 0.114]
    for name, base in (("color", grey[..., None]), ("contrast", np.round(grey.mean()))):
        expected = np.clip(base + factor * (PIXELS - base), 0, 255)
        assert np.abs(after(name, 4, negative) - expected).max() <= 1.5, name


def test_sharpness_blurs_or_sharpens():
    def roughness(pixels):
        return np.abs(np.diff(pixels, axis=1)).mean()

    blurred, sharp = (roughness(after("sharpness", 7, negative)) for negative in (True, False))
    assert blurred < roughness(PIXELS.astype(int)) < sharp


def test_autocontrast_and_equalize_fill_the_range():
    dull = Image.fromarray(PIXELS // 4 + 60)
    for name in ("autocontrast", "equalize"):
        result = np.array(apply(dull, name, 5))
        assert (result.min((0, 1)) == 0).all() and (result.max((0, 1)) == 255).all(), name


@pytest.mark.parametrize("negative", [False, True])
def test_shear_moves_rows_and_fills_with_grey(negative):
    white = Image.new("RGB", (80, 41), "white")
    pixels = np.array(apply(white, "shear_x", 9, negative))  # slope 0.3: 12 of the last row's 80
    grey = pixels[40] == 128
    assert 11 <= grey.all(1).sum() <= 13
    assert grey[0 if negative else -1].all() and not grey[-1 if negative else 0].any()
    assert (pixels[0] == 255).all()


@pytest.mark.parametrize("negative", [False, True])
def test_rotate_turns_and_fills_with_grey(negative):
    half = Image.new("RGB", (101, 101), "white")
    half.paste((0, 0, 0), (0, 0, 50, 101))
    pixels = np.array(apply(half, "rotate", 9, negative))  # 30 degrees, counter-clockwise if > 0
    assert (pixels[0, 0] == 128).all()
    edge = [int(np.argmax(pixels[row, :, 0] == 255)) for row in (30, 70)]  # where white begins
    slope = (edge[1] - edge[0]) / 40
    assert abs(slope - (-1 if negative else 1) * np.tan(np.pi / 6)) < 0.05


def test_level_zero_of_a_magnitude_changes_nothing():
    for name in ("shear_x", "rotate", "color", "contrast", "sharpness", "posterize", "solarize"):
        assert (after(name, 0) == PIXELS).all(), name


def test_draws(monkeypatch):
    """Each sub-policy equally often, each step by its probability, either sign by half."""
    seen, signs = Counter(), Counter()

    def record(image, name, level, negative):
        seen[name, level] += 1
        signs[negative] += 1
        return image

    monkeypatch.setattr(autoaugment, "apply", record)
    rng, count = np.random.default_rng(0), 10000
    for _ in range(count):
        auto_augment(IMAGE, rng)
    expected = Counter()
    for pair in POLICY:
        for name, chance, level in pair:
            expected[name, level] += chance * count / len(POLICY)
    assert ("equalize", 7) in seen
    for key, number in expected.items():
        assert abs(seen[key] - number) < 5 * np.sqrt(number) + 1, key
    assert abs(signs[True] - signs[False]) < 5 * np.sqrt(sum(signs.values()))


def test_same_draws_from_the_same_generator():
    one, same = (np.random.default_rng(7) for _ in range(2))
    for _ in range(30):
        left, right = auto_augment(IMAGE, one), auto_augment(IMAGE, same)
        assert left.size == IMAGE.size and left.mode == "RGB"
        assert left.tobytes() == right.tobytes()
    assert one.random() == same.random()
