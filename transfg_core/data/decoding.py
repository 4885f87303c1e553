"""One image file to 8-bit RGB pixels, and what its header says.

Only raster formats are tried. Sizes are (height, width).
"""

from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image

from transfg_core.config.sections import DataConfig
from transfg_core.data.bad_image import UNREADABLE, BadImage, TooLarge, open_regular, reason_of
from transfg_core.data.pixels import (
    STORED,
    UPRIGHT,
    has_deep_colour,
    orientation,
    refuse_dark_colour,
    to_rgb,
)
from transfg_core.data.walk import AVIF_IS_READ
from transfg_core.errors import RunFailed

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
