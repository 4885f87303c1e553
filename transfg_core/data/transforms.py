"""Transforms of one image from file to pixels, for training and evaluation.

Sizes are (height, width). Resizing uses Pillow's filters. For given draws, all pixels are those of
torchvision's Pillow path, bit for bit: the shorter side is exact and the longer one is truncated to
an integer; a centre crop rounds half to even. Training draws, in this order: crop, flip,
AutoAugment, colour jitter, greyscale, rotation, erasing. What is off draws nothing.

    resize (h, w)          exactly this size; the aspect ratio may change
    resize n               shorter side n
    random_resized_crop    for training, replaces resize and random crop; evaluation uses `resize`
"""

import math
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from transfg_core.config.sections import NORMALISATION, DataConfig
from transfg_core.data.autoaugment import FILL, auto_augment
from transfg_core.data.bad_image import UNREADABLE, BadImage, TooLarge, open_regular, reason_of
from transfg_core.data.color_jitter import color_jitter, to_grey
from transfg_core.data.mapped_image import Source, as_array, as_pillow
from transfg_core.data.pixels import (
    STORED,
    UPRIGHT,
    has_deep_colour,
    orientation,
    refuse_dark_colour,
    to_rgb,
)
from transfg_core.data.random_erasing import random_erasing
from transfg_core.data.walk import AVIF_IS_READ
from transfg_core.errors import RunFailed, UserError

ASPECT = (3 / 4, 4 / 3)  # random resized crop, width over height (Szegedy et al. 2015)
ATTEMPTS = 10  # as in torchvision, before the fallback to a centre crop
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
# Pillow's names of the formats of walk.SUFFIXES; "JPEG" also opens those of several frames (MPO)
FORMATS = ["JPEG", "PNG", "BMP", "DIB", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000", "TGA"]
FORMATS += ["AVIF"] if AVIF_IS_READ else []
MILLION = 1_000_000
TIFF_WIDTH, TIFF_HEIGHT = 256, 257
DEFAULT = DataConfig()

Size = tuple[int, int]
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels, as Pillow counts
Region = tuple[int, int, int, int]  # the same; right and bottom <= 0 count from the border


class Decoded(NamedTuple):
    """An image as the model sees it, and the EXIF orientation that its file notes (1 to 8)."""

    image: Image.Image
    orientation: int


def read_image(
    path: str | Path, data: DataConfig = DEFAULT, region: Region | None = None
) -> Image.Image:
    """Read a file as `decode_image` does; only the `region` (`Samples.region`), if there is one.

    Raises:
        BadImage: see `decode_image`; or the file is absent, or the region lies outside of it.
        RunFailed: the memory is too small for the image.
    """
    try:
        with open_regular(path) as file:
            rgb = decode_image(file, path, data).image
    except OSError as error:
        raise BadImage(str(path), reason_of(path, error)) from error
    return rgb if region is None else rgb.crop(region_box(path, region, rgb.size[::-1]))


def decode_image(file: BinaryIO, name: str | Path, data: DataConfig = DEFAULT) -> Decoded:
    """Decode an opened file of any mode to 8-bit RGB (`pixels.to_rgb`); an animation's first frame.

    `data.exif: ignore` keeps the stored pixels; `apply` turns them as the file's EXIF orientation
    says. `name` is for messages. Only raster formats are tried (`FORMATS`): Pillow would hand an
    EPS to another program.

    Raises:
        BadImage: the file is not an image or truncated, its tones are not known, or it has more
            than `data.max_megapixels`.
        RunFailed: the memory is too small for the image.
    """
    allow_megapixels(data)
    try:
        with Image.open(file, formats=FORMATS) as image:
            return decode_opened(image, name, data)
    except RunFailed:
        raise
    except Image.DecompressionBombError as error:
        raise TooLarge(name, "very many pixels", data.max_megapixels) from error
    except UNREADABLE as error:
        raise BadImage(str(name), reason_of(name, error, file)) from error


def decode_opened(image: Image.Image, name: str | Path, data: DataConfig = DEFAULT) -> Decoded:
    """The same for an image that Pillow has opened and not loaded yet.

    Raises:
        BadImage: see `decode_image`.
        RunFailed: the memory is too small for the image.
    """
    size = f"{image.width} x {image.height} pixels"
    if not image.width * image.height:
        raise BadImage(str(name), f"no pixels ({size})")
    if image.width * image.height > data.max_megapixels * MILLION:
        raise TooLarge(name, size, data.max_megapixels)
    try:
        turns, deep = _turns(image, data), has_deep_colour(image)
        # loading turns a TIFF and forgets why; asking a PNG loads it, and would hide damage
        noted = orientation(image) if image.format == "TIFF" else None
        image.load()
        noted = orientation(image) if noted is None else noted
        rgb = to_rgb(image)
        if deep:
            refuse_dark_colour(rgb)
        return Decoded(rgb.transpose(turns[noted]) if noted in turns else rgb, noted)
    except BadImage:
        raise
    except MemoryError as error:
        raise RunFailed(
            f"{name}: expected enough memory to read the image, found too little ({size}); make "
            "the image smaller, or lower data.threads, data.workers or data.max_megapixels"
        ) from error
    except UNREADABLE as error:
        raise BadImage(str(name), reason_of(name, error)) from error


def region_box(path: str | Path, region: Region, size: Size) -> Box:
    """The pixels of a region in an image of this size (height, width), clipped to its border.

    Raises:
        BadImage: nothing of the region lies in the image.
    """
    height, width = size
    left, top, right, bottom = region
    right, bottom = right if right > 0 else width + right, bottom if bottom > 0 else height + bottom
    box = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if box[0] >= box[2] or box[1] >= box[3]:
        raise BadImage(
            str(path),
            f"{width} x {height} pixels and none in the data set's region, left {left}, top {top}, "
            f"right {right}, bottom {bottom}",
            "correct the data set's boxes",
        )
    return box


def _turns(image: Image.Image, data: DataConfig) -> dict[int, Image.Transpose]:
    """Orientation -> what to do with the loaded pixels. Pillow turns a TIFF when it loads it."""
    if image.format == "TIFF":
        return {} if data.exif == "apply" else STORED
    return UPRIGHT if data.exif == "apply" else {}


def image_size(path: str | Path) -> Size:
    """(height, width) of the stored pixels; reads only the header.

    Raises:
        BadImage: the header cannot be read.
    """
    try:
        with open_regular(path) as file, Image.open(file) as image:
            tags = getattr(image, "tag_v2", {})  # newer Pillow gives the turned size of a TIFF
            return tags.get(TIFF_HEIGHT, image.height), tags.get(TIFF_WIDTH, image.width)
    except UNREADABLE as error:
        raise BadImage(str(path), reason_of(path, error)) from error


def image_orientation(path: str | Path) -> int:
    """The EXIF orientation, 1 to 8.

    Raises:
        BadImage: the header cannot be read.
    """
    try:
        with open_regular(path) as file, Image.open(file) as image:
            return orientation(image)
    except UNREADABLE as error:
        raise BadImage(str(path), reason_of(path, error)) from error


def has_more_frames(path: str | Path) -> bool:
    """Whether an image has further frames or pages after the first.

    Raises:
        BadImage: the header cannot be read.
    """
    try:
        with open_regular(path) as file, Image.open(file) as image:
            return bool(getattr(image, "is_animated", False))
    except UNREADABLE as error:
        raise BadImage(str(path), reason_of(path, error)) from error


def allow_megapixels(data: DataConfig) -> None:
    """Let Pillow open what the setting allows, without the warning over half its own limit."""
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, data.max_megapixels * MILLION)


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
