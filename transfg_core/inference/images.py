"""Images of any kind as evaluation crops, each with its way back to the photograph."""

import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from transfg_core.config.sections import DataConfig
from transfg_core.data.bad_image import BadImage, open_regular, reason_of
from transfg_core.data.decoding import Decoded, decode_image, decode_opened
from transfg_core.data.transforms import eval_transform
from transfg_core.data.view import View, view_of
from transfg_core.errors import UserError
from transfg_core.inference.inputs import Input

# a path, the content of a file, an opened file, a Pillow image, or pixels (H, W, 3) or (H, W)
ImageLike = str | os.PathLike[str] | bytes | BinaryIO | Image.Image | NDArray[np.uint8]
KINDS = (str, os.PathLike, bytes, Image.Image, np.ndarray)


class Crop(NamedTuple):
    """One image as the model sees it.

    `pixels` (H, W, 3) uint8 have the size `data.crop`. If the image is unreadable or too small,
    there are no pixels and no view, and `error` says why.
    """

    name: str
    pixels: NDArray[np.uint8]
    view: View | None
    error: str = ""


def as_list(images: ImageLike | Iterable[ImageLike]) -> list[ImageLike]:
    """The images, of which there may be one alone."""
    alone = not isinstance(images, Iterable) or isinstance(images, KINDS) or hasattr(images, "read")
    return [cast("ImageLike", images)] if alone else list(cast("Iterable[ImageLike]", images))


def decode(image: ImageLike, name: str, data: DataConfig) -> Decoded:
    """Decode an image of any kind to 8-bit RGB, as `decode_image` does.

    Raises:
        UserError: it is not readable, or its array is not of pixels.
    """
    try:
        return _decode(image, name, data)
    except BadImage as error:
        raise error.alone() from error


def _decode(image: ImageLike, name: str, data: DataConfig) -> Decoded:
    if isinstance(image, Image.Image):
        return _of_pillow(image, name, data)
    if isinstance(image, np.ndarray):
        return Decoded(_of_array(image, name), 1)
    if isinstance(image, str | os.PathLike):
        try:
            with open_regular(Path(image)) as file:
                return decode_image(file, name, data)
        except OSError as error:
            raise BadImage(name, reason_of(name, error)) from error
    content = image.read() if hasattr(image, "read") else image  # some streams cannot seek
    if isinstance(content, bytes):
        return decode_image(io.BytesIO(content), name, data)
    raise UserError(
        f"{name}: expected a path, bytes, a file opened for bytes, a Pillow image or an array, "
        f"found {type(image).__name__}"
    )


def _of_pillow(image: Image.Image, name: str, data: DataConfig) -> Decoded:
    """A Pillow image; its EXIF data counts as that of a file does.

    Pillow turns a TIFF when it loads it, and forgets the orientation: a loaded one counts as
    upright.
    """
    return decode_opened(image, name, data)


def _of_array(image: NDArray[Any], name: str) -> Image.Image:
    grey = image.ndim == 2
    if image.dtype != np.uint8 or not (grey or (image.ndim == 3 and image.shape[2] == 3)):
        raise UserError(
            f"{name}: expected pixels (H, W, 3) or (H, W) of type uint8, found {image.shape} of "
            f"type {image.dtype}; scale them to 0 to 255, and put the colours last"
        )
    if not image.size:
        raise UserError(f"{name}: expected pixels, found none: {image.shape}")
    return Image.fromarray(np.ascontiguousarray(image)).convert("RGB")


def crop_of(decoded: Decoded, name: str, data: DataConfig) -> Crop:
    """The evaluation crop of a decoded image.

    Raises:
        UserError: the image is smaller than the crop.
    """
    try:
        view = view_of(decoded.image, decoded.orientation, data)
        return Crop(name, eval_transform(decoded.image, data), view)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error


def name_of(image: ImageLike, place: int) -> str:
    """How messages and results call an image: its path, or its number from 0."""
    if isinstance(image, str | os.PathLike):
        return os.fspath(image)
    named = getattr(image, "filename", "") or getattr(image, "name", "")
    return named if isinstance(named, str) and named else f"image {place}"


@dataclass(frozen=True, eq=False)
class CropReader:
    """Index -> crop of an input. An error is in the crop, since this runs in other threads."""

    inputs: Sequence[Input]
    data: DataConfig

    def __call__(self, index: int) -> Crop:
        name, source = self.inputs[index]
        try:
            return crop_of(decode(source, name, self.data), name, self.data)
        except BadImage as error:
            return _failed(name, error.reason)
        except UserError as error:
            return _failed(name, str(error).removeprefix(f"{name}: "))
        except MemoryError:
            return _failed(name, "too little memory to resize the image; lower data.threads")


def _failed(name: str, reason: str) -> Crop:
    return Crop(name, np.zeros((0, 0, 3), np.uint8), None, reason)
