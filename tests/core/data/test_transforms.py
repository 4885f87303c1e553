"""From an image to a crop: against arithmetic by hand and NumPy written another way."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from transfg_core.config.sections import NORMALISATION, DataConfig
from transfg_core.data.bad_image import BadImage
from transfg_core.data.decoding import read_image
from transfg_core.data.transforms import (
    boxes_through_eval,
    eval_transform,
    normalise,
    train_transform,
)
from transfg_core.errors import UserError


def coordinates(height, width):
    """An image whose red is the column, green the row: a crop shows where it was taken."""
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([columns, rows, columns ^ rows], -1).astype(np.uint8))


def triangle(pixels, size, axis):
    """Bilinear reduction or enlargement along one axis, in float64: a triangle filter (n,)."""
    scale = pixels.shape[axis] / size
    support = max(scale, 1.0)
    centres = (np.arange(size)[:, None] + 0.5) * scale - 0.5
    weights = np.maximum(0, 1 - np.abs(np.arange(pixels.shape[axis]) - centres) / support)
    weights /= weights.sum(1, keepdims=True)
    return np.moveaxis(np.tensordot(weights, pixels, (1, axis)), 0, axis)


@pytest.mark.parametrize(
    ("stored", "resize", "crop", "top", "left"),
    [
        ((50, 80), None, (20, 31), 15, 24),  # 24.5 rounds to even
        ((51, 80), None, (20, 30), 16, 25),  # 15.5 rounds to even
        ((20, 31), None, (20, 31), 0, 0),
    ],
)
def test_centre_crop(stored, resize, crop, top, left):
    pixels = eval_transform(coordinates(*stored), DataConfig(resize=resize, crop=crop))
    assert pixels.shape == (*crop, 3) and pixels.dtype == np.uint8
    assert pixels[0, 0, :2].tolist() == [left, top]
    assert pixels[-1, -1, :2].tolist() == [left + crop[1] - 1, top + crop[0] - 1]


@pytest.mark.parametrize(
    ("stored", "resize", "size"),
    [
        ((37, 61), (24, 40), (24, 40)),
        ((37, 61), 24, (24, 39)),  # 24 * 61 / 37 = 39.57
        ((61, 37), 24, (39, 24)),
        ((20, 30), 30, (30, 45)),
        ((30, 30), 40, (40, 40)),
    ],
)
def test_resize_is_a_triangle_filter(stored, resize, size):
    pixels = np.random.default_rng(0).integers(0, 256, (*stored, 3), dtype=np.uint8)
    result = eval_transform(Image.fromarray(pixels), DataConfig(resize=resize, crop=size))
    across = np.floor(triangle(pixels.astype(float), size[1], 1) + 0.5)  # Pillow rounds here too
    assert np.abs(triangle(across, size[0], 0) - result).max() <= 1.6  # a tie, rounded twice


@pytest.mark.parametrize("key", ["train", "eval"])
def test_smaller_than_the_crop(key):
    data, image = DataConfig(crop=(20, 30)), coordinates(25, 29)
    with pytest.raises(UserError, match=r"\[20, 30\].*\[25, 29\]; set data.resize"):
        if key == "train":
            train_transform(image, data, np.random.default_rng(0))
        else:
            eval_transform(image, data)


def test_random_crop_reaches_every_place_and_flips_half():
    data = DataConfig(crop=(20, 30), flip=True)
    rng = np.random.default_rng(1)
    image, seen, flips = coordinates(22, 31), set(), 0
    for _ in range(400):
        pixels = train_transform(image, data, rng).astype(int)
        flipped = pixels[0, 0, 0] > pixels[0, -1, 0]
        flips += flipped
        pixels = pixels[:, ::-1] if flipped else pixels
        assert pixels.shape == (20, 30, 3)
        assert (np.diff(pixels[..., 0], axis=1) == 1).all()
        seen.add((pixels[0, 0, 1], pixels[0, 0, 0]))
    assert seen == {(top, left) for top in range(3) for left in range(2)}
    assert 160 < flips < 240


def test_training_is_a_function_of_the_generator():
    data = DataConfig(crop=(20, 30), auto_augment=True, rotation=15.0)
    image = coordinates(50, 70)
    one, same, other = (train_transform(image, data, np.random.default_rng(s)) for s in (5, 5, 6))
    assert (one == same).all() and (one != other).any()


def test_random_resized_crop():
    data = DataConfig(crop=(24, 16), random_resized_crop=(0.2, 0.5), flip=False)
    image, rng = coordinates(200, 120), np.random.default_rng(2)
    areas, aspects = [], []
    for _ in range(200):
        pixels = train_transform(image, data, rng).astype(float)
        assert pixels.shape == (24, 16, 3)
        width = np.diff(pixels[12, 4:12, 0]).mean() * 16  # a slope of columns per pixel
        height = np.diff(pixels[6:18, 8, 1]).mean() * 24
        areas.append(width * height / (200 * 120))
        aspects.append(width / height)
    assert 0.15 < min(areas) < 0.25 and 0.42 < max(areas) < 0.55
    assert 0.7 < min(aspects) < 0.85 and 1.15 < max(aspects) < 1.45


@pytest.mark.parametrize(("stored", "shape"), [((4, 200), "wide"), ((200, 4), "tall")])
def test_random_resized_crop_falls_back_to_the_centre(stored, shape):
    data = DataConfig(crop=(8, 8), random_resized_crop=(1.0, 1.0), flip=False)
    pixels = train_transform(coordinates(*stored), data, np.random.default_rng(0))
    assert abs(int(pixels[4, 4, 0 if shape == "wide" else 1]) - 100) <= 2


def test_rotation_keeps_the_size_and_fills_with_grey():
    data = DataConfig(crop=(40, 60), rotation=90.0, flip=False)
    white = Image.new("RGB", (60, 40), "white")
    pixels = train_transform(white, data, np.random.default_rng(3))
    assert pixels.shape == (40, 60, 3) and pixels.min() == 128 and pixels.max() == 255


@settings(max_examples=25, deadline=None)
@given(
    st.integers(40, 90),
    st.integers(40, 90),
    st.sampled_from([None, 45, (45, 70), (70, 45)]),
    st.integers(0, 30),
    st.integers(0, 30),
)
def test_boxes_follow_the_pixels(height, width, resize, x, y):
    """A white rectangle stays inside its box, give or take a blurred pixel."""
    data = DataConfig(resize=resize, crop=(40, 39))
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[y : y + 10, x : x + 8] = 255
    box = np.array([[x, y, x + 8, y + 10]], dtype=np.float32)
    moved = boxes_through_eval(box, (height, width), data)
    assert moved.shape == (1, 4) and moved.dtype == np.float32
    rows, columns = np.nonzero(eval_transform(Image.fromarray(pixels), data)[..., 0] > 127)
    x0, y0, x1, y1 = np.clip(moved[0], 0, [39, 40, 39, 40])
    assert len(rows) or (x1 - x0) * (y1 - y0) < 12
    if len(rows):
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert np.abs(np.array(found) - [x0, y0, x1, y1]).max() <= 1


@pytest.mark.parametrize("name", NORMALISATION)
def test_normalise(name):
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    result = normalise(images, DataConfig(normalise=name))
    mean, std = NORMALISATION[name]
    expected = np.moveaxis((images / 255.0 - mean) / std, -1, 1)
    assert result.dtype == np.float32 and result.flags.c_contiguous
    assert np.abs(result - expected).max() < 1e-6
    # In float32 step by step, as every PyTorch pipeline does it: equal to the last bit.
    value = np.float32(images[1, 2, 3, 1]) / np.float32(255)
    assert result[1, 1, 2, 3] == (value - np.float32(mean[1])) / np.float32(std[1])


@pytest.mark.parametrize(
    ("region", "expected"),
    [
        ((3, 1, 7, 5), (3, 1, 7, 5)),
        ((-2, -9, 99, 7), (0, 0, 12, 7)),  # clipped to the border
        ((0, 0, 0, -3), (0, 0, 12, 7)),  # from the right and lower border
    ],
)
def test_only_the_region_of_an_image_is_read(tmp_path, region, expected):
    pixels = np.arange(10 * 12 * 3, dtype=np.uint8).reshape(10, 12, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    left, top, right, bottom = expected
    image = read_image(tmp_path / "a.png", region=region)
    assert (np.array(image) == pixels[top:bottom, left:right]).all()
    assert image.size == (right - left, bottom - top)


@pytest.mark.parametrize("region", [(12, 0, 20, 5), (3, 4, 3, 9), (0, 0, 0, -10), (-5, 1, -12, 2)])
def test_a_region_outside_of_the_image_is_named(tmp_path, region):
    Image.new("RGB", (12, 10)).save(tmp_path / "a.png")
    with pytest.raises(BadImage, match=r"a\.png.*12 x 10 pixels and none.*correct the data set's"):
        read_image(tmp_path / "a.png", region=region)
