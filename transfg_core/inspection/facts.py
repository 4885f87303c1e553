"""What one image file is: size, kind of pixels, and hashes of the pixels that training reads."""

import hashlib
import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntFlag, auto
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from transfg_core.config.sections import DataConfig
from transfg_core.data.bad_image import UNREADABLE, open_regular
from transfg_core.data.datasets.findings import JPEG_SUFFIXES
from transfg_core.data.datasets.groups import THUMBNAIL
from transfg_core.data.datasets.samples import Samples
from transfg_core.data.decoding import read_image
from transfg_core.data.pixels import has_deep_colour, orientation
from transfg_core.errors import UserError
from transfg_core.machine import install_command

DIGEST = 16  # bytes of a pixel hash
DEEP_MODES = ("I", "F")  # and those that begin with I;16
# Pillow's name of a format -> the suffixes that go with it
SUFFIXES_OF = {
    "JPEG": (*JPEG_SUFFIXES, ".jif", ".mpo"),
    "MPO": (*JPEG_SUFFIXES, ".jif", ".mpo"),  # a JPEG with further pictures
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "DIB": (".dib", ".bmp"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "JPEG2000": (".jp2", ".j2k"),
    "TGA": (".tga",),
    "AVIF": (".avif",),
}


class Trait(IntFlag):
    """What is unusual about an image that can be read."""

    GREY = auto()  # stored as grey
    COLOURLESS = auto()  # stored as colours, all of them grey
    UNIFORM = auto()  # one colour
    TRANSPARENT = auto()  # has pixels that are not opaque
    PALETTE = auto()
    CMYK = auto()
    DEEP = auto()  # more than 8 bits a channel
    FRAMES = auto()  # several frames or pages
    TURNED = auto()  # the EXIF orientation is not 1
    SUFFIX = auto()  # another format than the suffix says


class Facts(NamedTuple):
    """One file. If `reason` is not empty it cannot be read, and the rest is empty.

    `height` and `width` are pixels of the image as training reads it. `digest` is a hash of its
    size and RGB values. `phash`, its perceptual hash of 64 bits, and `thumbnail`, its grey
    values on a small grid, are there if near duplicates are looked for.
    """

    height: int = 0
    width: int = 0
    traits: int = 0
    digest: bytes = bytes(DIGEST)
    phash: int = 0
    thumbnail: bytes = b""
    reason: str = ""


@dataclass(frozen=True, eq=False)
class FactReader:
    """Place in several splits, one after another -> facts. Pickled to worker processes."""

    splits: tuple[Samples, ...]
    data: DataConfig
    near: bool = False

    def __call__(self, index: int) -> Facts:
        """Read the file; what is wrong with it is a value, not an exception."""
        samples, index = find_sample(self.splits, index)
        path = samples.paths[index]
        try:
            image = read_image(path, self.data, samples.region(index))
            traits = _file_traits(path)
        except UserError as error:
            return Facts(reason=reason_of(path, error))
        except UNREADABLE as error:  # the file changed since it was read
            return Facts(reason=f"{type(error).__name__}: {error}")
        pixels = np.asarray(image)
        digest = hashlib.blake2b(f"{pixels.shape}".encode(), digest_size=DIGEST)
        digest.update(pixels.tobytes())
        phash, thumbnail = 0, b""
        if self.near:
            phash = perceptual_hash(image)
            thumbnail = image.convert("L").resize(THUMBNAIL, Image.Resampling.BOX).tobytes()
        traits |= _colour_traits(image, pixels, traits)
        return Facts(image.height, image.width, int(traits), digest.digest(), phash, thumbnail)


def find_sample(splits: Sequence[Samples], place: int) -> tuple[Samples, int]:
    """The split and the index in it of a place in several splits, one after another."""
    for samples in splits:
        if place < len(samples.paths):
            return samples, place
        place -= len(samples.paths)
    raise IndexError(place)


def reason_of(path: str, error: UserError) -> str:
    """What is wrong with a file, without its path, so that equal reasons are equal."""
    return getattr(error, "reason", "") or str(error).removeprefix(f"{path}: ")


def _file_traits(path: str) -> Trait:
    """Traits that the header shows, and transparency, which needs the pixels."""
    found = Trait(0)
    with open_regular(path) as file, Image.open(file) as image:
        suffixes = SUFFIXES_OF.get(image.format or "")
        if suffixes and os.path.splitext(path)[1].lower() not in suffixes:
            found |= Trait.SUFFIX
        if has_deep_colour(image) or image.mode in DEEP_MODES or image.mode.startswith("I;16"):
            found |= Trait.DEEP
        if image.mode in ("1", "L", "LA", "La", *DEEP_MODES) or image.mode.startswith("I;16"):
            found |= Trait.GREY
        if image.mode in ("P", "PA"):
            found |= Trait.PALETTE
        if image.mode == "CMYK":
            found |= Trait.CMYK
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
            found |= Trait.FRAMES
        if orientation(image) != 1:
            found |= Trait.TURNED
        if image.has_transparency_data and _is_transparent(image):
            found |= Trait.TRANSPARENT
    return found


def _is_transparent(image: Image.Image) -> bool:
    low, _ = image.convert("RGBA").getchannel("A").getextrema()
    return isinstance(low, int | float) and low < 255


def _colour_traits(image: Image.Image, pixels: np.ndarray[Any, Any], traits: Trait) -> Trait:
    """Whether RGB pixels (H, W, 3) are all grey, or all equal."""
    found = Trait(0)
    if all(low == high for low, high in image.getextrema()):  # type: ignore[misc]
        found |= Trait.UNIFORM
    few = pixels[::8, ::8].astype(np.int16)  # mostly enough to see a colour
    for part in (few, pixels):
        if traits & Trait.GREY or not (part == part[..., :1]).all():
            return found
    return found | Trait.COLOURLESS


def perceptual_hash(image: Image.Image) -> int:
    """The 64 bits of ImageHash's pHash: signs of low frequencies of a 32 x 32 grey image.

    Raises:
        UserError: ImageHash is not installed.
    """
    bits = _image_hash().phash(image).hash.ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


@cache
def _image_hash() -> Any:
    try:
        return importlib.import_module("imagehash")
    except ImportError as error:
        raise UserError(
            f"--near needs ImageHash, which cannot be imported ({error}); "
            f"run: {install_command('near')}"
        ) from error


def require_image_hash() -> None:
    """Check that near duplicates can be looked for.

    Raises:
        UserError: ImageHash is not installed.
    """
    _image_hash()
