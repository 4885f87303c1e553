"""Files that are not readable images: the error, and its reason in plain words."""

import struct
import zlib
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from transfg_core.data.pixels import UnclearPixels
from transfg_core.errors import RunFailed

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


class BadImage(RunFailed):
    """A file that is not a readable image: `path` and `reason`."""

    def __init__(self, path: str, reason: str, remedy: str = "replace the file") -> None:
        super().__init__(
            f"{path}: expected an image, found {reason}; {remedy} or set data.on_bad_image=skip"
        )
        self.path, self.reason = path, reason


class TooLarge(BadImage):
    """An image of more than `data.max_megapixels`."""

    def __init__(self, path: str | Path, size: str, limit: int) -> None:
        super().__init__(
            str(path),
            f"{size}, more than data.max_megapixels {limit}",
            "raise data.max_megapixels, make the image smaller",
        )


def reason_of(path: str | Path, error: Exception) -> str:
    """What is wrong with a file, from one of the errors above."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnclearPixels):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return _unknown_format(path)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _unknown_format(path: str | Path) -> str:
    with open(path, "rb") as file:
        head = file.read(12)
    if head[4:8] == b"ftyp" and head[8:11] in (b"hei", b"hev", b"mif", b"msf"):
        return "an HEIC photograph, which Pillow does not read (convert it to JPEG)"
    return "no known image format" if head else "an empty file"
