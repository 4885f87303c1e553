"""Transforms of one image from file to pixels, for training and evaluation.

Sizes are (height, width). Resizing uses Pillow's bilinear filter. Resizing and cropping equal
torchvision's Pillow path bit for bit: the shorter side is exact and the longer one is truncated to
an integer; a centre crop rounds half to even. Training draws, in this order: crop, flip,
AutoAugment, rotation.

    resize (h, w)          exactly this size; the aspect ratio may change
    resize n               shorter side n
    random_resized_crop    for training, replaces resize and random crop; evaluation uses `resize`
"""

import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from transfg_core.config.sections import NORMALISATION, DataConfig
from transfg_core.data.autoaugment import FILL, auto_augment
from transfg_core.errors import RunFailed, UserError

# The errors of Pillow for a file that is absent, no image, broken, cut short or too large.
UNREADABLE = (
    OSError,
    EOFError,
    IndexError,
    SyntaxError,
    ValueError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
ASPECT = (3 / 4, 4 / 3)  # random resized crop, width over height (Szegedy et al. 2015)
ATTEMPTS = 10  # as in torchvision, before the fallback to a centre crop

Size = tuple[int, int]
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels, as Pillow counts


class BadImage(RunFailed):
    """A file that is not a readable image: `path` and `reason`."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(
            f"{path}: expected an image, found {reason}; "
            "replace the file or set data.on_bad_image=skip"
        )
        self.path, self.reason = path, reason


def read_image(path: str | Path) -> Image.Image:
    """Read the stored pixels of a file of any mode as 8-bit RGB.

    Alpha is dropped; 16-bit grey keeps its upper byte. An EXIF orientation is not applied, as in
    torchvision: published numbers do not apply it, and boxes refer to the stored pixels.

    Raises:
        BadImage: the file is absent, not an image or truncated, or it has more pixels than
            `Image.MAX_IMAGE_PIXELS`.
    """
    try:
        with open(path, "rb") as file, Image.open(file) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise BadImage(str(path), f"{image.width} x {image.height} pixels, over {limit}")
            image.load()
            return _to_rgb(image)
    except BadImage:
        raise
    except UNREADABLE as error:
        raise BadImage(str(path), _reason(path, error)) from error


def image_size(path: str | Path) -> Size:
    """(height, width) of the stored image; reads only its header.

    Raises:
        BadImage: the header cannot be read.
    """
    try:
        with open(path, "rb") as file, Image.open(file) as image:
            return image.height, image.width
    except UNREADABLE as error:
        raise BadImage(str(path), _reason(path, error)) from error


def _reason(path: str | Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        return "no known image format" if Path(path).stat().st_size else "an empty file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint16)  # native byte order
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")  # same colours, without Pillow's warning
    return image.convert("RGB")


def train_transform(
    image: Image.Image, data: DataConfig, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """RGB image -> (H, W, 3) uint8 of size `data.crop`; all random draws come from `rng`.

    Raises:
        UserError: the image is smaller than the crop.
    """
    height, width = data.crop
    if data.random_resized_crop is not None:
        box = _random_resized_box((image.height, image.width), data.random_resized_crop, rng)
        image = image.crop(box).resize((width, height), Image.Resampling.BILINEAR)
    else:
        image = _resize(image, data)
        top = int(rng.integers(image.height - height + 1))
        left = int(rng.integers(image.width - width + 1))
        image = image.crop((left, top, left + width, top + height))
    if data.flip and rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if data.auto_augment:
        image = auto_augment(image, rng)
    if data.rotation:
        angle = float(rng.uniform(-data.rotation, data.rotation))
        image = image.rotate(angle, Image.Resampling.BILINEAR, fillcolor=FILL)
    return np.array(image)


def eval_transform(image: Image.Image, data: DataConfig) -> NDArray[np.uint8]:
    """RGB image -> (H, W, 3) uint8 of size `data.crop`, cut from the centre.

    Raises:
        UserError: the image is smaller than the crop.
    """
    image = _resize(image, data)
    return np.array(image.crop(_centre_box((image.height, image.width), data.crop)))


def boxes_through_eval(
    boxes: NDArray[np.float32], stored_size: Size, data: DataConfig
) -> NDArray[np.float32]:
    """Map boxes (n, 4) x0, y0, x1, y1 from a stored image to its `eval_transform`.

    `stored_size` is (height, width). Nothing is clipped: a box may reach past the crop.
    """
    height, width = size = _resized_size(stored_size, data)
    left, top, _, _ = _centre_box(size, data.crop)
    scale_y, scale_x = height / stored_size[0], width / stored_size[1]
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


def _resized_size(stored: Size, data: DataConfig) -> Size:
    """Size after `data.resize`: the shorter side exact, the longer one truncated to an integer.

    Raises:
        UserError: the result is smaller than the crop.
    """
    height, width = stored
    if isinstance(data.resize, tuple):
        height, width = data.resize
    elif data.resize is not None:
        short = data.resize
        if stored[1] <= stored[0]:
            height, width = int(short * stored[0] / stored[1]), short
        else:
            height, width = short, int(short * stored[1] / stored[0])
    if height < data.crop[0] or width < data.crop[1]:
        raise UserError(
            f"expected at least data.crop {list(data.crop)} (height, width), "
            f"found {[height, width]}; set data.resize or a smaller data.crop"
        )
    return height, width


def _resize(image: Image.Image, data: DataConfig) -> Image.Image:
    height, width = _resized_size((image.height, image.width), data)
    if (height, width) == (image.height, image.width):
        return image
    return image.resize((width, height), Image.Resampling.BILINEAR)


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
