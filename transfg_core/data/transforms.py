"""Transforms of one decoded image to pixels, for training and evaluation.

Sizes are (height, width). Resizing uses Pillow's filters. For given draws, all pixels are those of
torchvision's Pillow path, bit for bit: the shorter side is exact and the longer one is truncated to
an integer; a centre crop rounds half to even. Training draws, in this order: crop, flip,
AutoAugment, colour jitter, greyscale, rotation, erasing. What is off draws nothing.

    resize (h, w)          exactly this size; the aspect ratio may change
    resize n               shorter side n
    random_resized_crop    for training, replaces resize and random crop; evaluation uses `resize`
"""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from transfg_core.config.sections import NORMALISATION, DataConfig
from transfg_core.data.autoaugment import FILL, auto_augment
from transfg_core.data.color_jitter import color_jitter, to_grey
from transfg_core.data.decoding import MILLION, Box, Size
from transfg_core.data.mapped_image import Source, as_array, as_pillow
from transfg_core.data.random_erasing import random_erasing
from transfg_core.errors import UserError

ASPECT = (3 / 4, 4 / 3)  # random resized crop, width over height (Szegedy et al. 2015)
ATTEMPTS = 10  # as in torchvision, before the fallback to a centre crop
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def train_transform(image: Source, data: DataConfig, rng: np.random.Generator) -> NDArray[np.uint8]:
    """RGB image -> (H, W, 3) uint8 of size `data.crop`; all random draws come from `rng`.

    Raises:
        UserError: the image is smaller than the crop.
    """
    height, width = data.crop
    if data.random_resized_crop is not None:
        box = _random_resized_box((image.height, image.width), data.random_resized_crop, rng)
        image = as_pillow(image.crop(box)).resize((width, height), FILTERS[data.interpolation])
    else:
        image = resized(image, data)
        top = int(rng.integers(image.height - height + 1))
        left = int(rng.integers(image.width - width + 1))
        image = image.crop((left, top, left + width, top + height))
    if data.flip and rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if data.auto_augment:
        image = auto_augment(as_pillow(image), rng)
    if data.color_jitter is not None:
        image = color_jitter(as_pillow(image), data.color_jitter, rng)
    if data.grayscale and rng.random() < data.grayscale:
        image = to_grey(as_pillow(image))
    if data.rotation:
        angle = float(rng.uniform(-data.rotation, data.rotation))
        image = as_pillow(image).rotate(angle, Image.Resampling.BILINEAR, fillcolor=FILL)
    pixels = as_array(image)
    if data.random_erasing.probability:
        random_erasing(pixels, data.random_erasing, NORMALISATION[data.normalise][0], rng)
    return pixels


def eval_transform(image: Source, data: DataConfig) -> NDArray[np.uint8]:
    """RGB image -> (H, W, 3) uint8 of size `data.crop`, cut from the centre.

    Raises:
        UserError: the image is smaller than the crop.
    """
    _, box = eval_geometry((image.height, image.width), data)
    return as_array(resize_image(image, data).crop(box))


def eval_geometry(size: Size, data: DataConfig) -> tuple[Size, Box]:
    """What `eval_transform` does with an image of this size: its size after `data.resize`, and the
    box that is cut out of it.

    Raises:
        UserError: the image is smaller than the crop.
    """
    resized_size = _resized_size(size, data)
    return resized_size, _centre_box(resized_size, data.crop)


def boxes_through_eval(
    boxes: NDArray[np.float32], image_size: Size, data: DataConfig
) -> NDArray[np.float32]:
    """Map boxes (n, 4) x0, y0, x1, y1 from an image as read to its `eval_transform`.

    `image_size` is (height, width). Nothing is clipped: a box may reach past the crop.
    """
    (height, width), (left, top, _, _) = eval_geometry(image_size, data)
    scale_y, scale_x = height / image_size[0], width / image_size[1]
    scale = np.array([scale_x, scale_y, scale_x, scale_y])
    moved: NDArray[np.float64] = boxes * scale - np.array([left, top, left, top])
    return moved.astype(np.float32)


def normalise(images: NDArray[np.uint8], data: DataConfig) -> NDArray[np.float32]:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32, C-contiguous: (x / 255 - mean) / std."""
    batch, height, width, channels = images.shape
    result = np.empty((batch, channels, height, width), dtype=np.float32)
    means, deviations = np.array(NORMALISATION[data.normalise], dtype=np.float32)
    for image, planes in zip(images, result, strict=True):  # one image at a time fits the cache
        for channel, plane in enumerate(planes):
            np.divide(image[..., channel], np.float32(255), out=plane, dtype=np.float32)
            plane -= means[channel]
            plane /= deviations[channel]
    return result


def resize_image(image: Source, data: DataConfig) -> Source:
    """The image after `data.resize`, also if it is then smaller than the crop."""
    height, width = _size_of_resize((image.height, image.width), data)
    if (height, width) == (image.height, image.width):
        return image
    return as_pillow(image).resize((width, height), FILTERS[data.interpolation])


def _size_of_resize(stored: Size, data: DataConfig) -> Size:
    """Size after `data.resize`: the shorter side exact, the longer one truncated to an integer.

    Raises:
        UserError: a narrow image would become too large.
    """
    if data.resize is None or isinstance(data.resize, tuple):
        return data.resize or stored
    short, (height, width) = data.resize, stored
    long = int(short * max(stored) / min(stored))
    if short * long > data.max_megapixels * MILLION:
        raise UserError(
            f"expected at most data.max_megapixels {data.max_megapixels} after data.resize, found "
            f"{short} x {long} pixels, since the image has {width} x {height} (width x height); "
            "cut the image to its object"
        )
    return (long, short) if width <= height else (short, long)


def _resized_size(stored: Size, data: DataConfig) -> Size:
    """Size after `data.resize`.

    Raises:
        UserError: the result is smaller than the crop.
    """
    height, width = _size_of_resize(stored, data)
    if height < data.crop[0] or width < data.crop[1]:
        raise UserError(
            f"expected at least data.crop {list(data.crop)} (height, width), "
            f"found {[height, width]}; set data.resize or a smaller data.crop"
        )
    return height, width


def resized(image: Source, data: DataConfig) -> Source:
    """The image after `data.resize`.

    Raises:
        UserError: the result is smaller than the crop.
    """
    _resized_size((image.height, image.width), data)
    return resize_image(image, data)


def _centre_box(size: Size, crop: Size) -> Box:
    top, left = (round((full - part) / 2) for full, part in zip(size, crop, strict=True))
    return left, top, left + crop[1], top + crop[0]


def _random_resized_box(size: Size, scale: tuple[float, float], rng: np.random.Generator) -> Box:
    """A random box: its share of the area is drawn in `scale`, its aspect ratio in ASPECT."""
    height, width = size
    for _ in range(ATTEMPTS):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = int(rng.integers(height - h + 1))
            left = int(rng.integers(width - w + 1))
            return left, top, left + w, top + h
    aspect = min(max(width / height, ASPECT[0]), ASPECT[1])
    if width / height < ASPECT[0]:
        h, w = round(width / aspect), width
    else:
        h, w = height, min(round(height * aspect), width)
    top, left = (height - h) // 2, (width - w) // 2
    return left, top, left + w, top + h
