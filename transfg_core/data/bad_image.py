"""Files that are not readable images: the error, and its reason in plain words."""

import errno
import os
import stat
import struct
import zlib
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Self

from PIL import Image, UnidentifiedImageError

from transfg_core.data.pixels import UnclearPixels
from transfg_core.errors import RunFailed

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
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
    """A file that is not a readable image: `path`, `reason`, and a `remedy` for this file."""

    def __init__(self, path: str, reason: str, remedy: str = "replace the file") -> None:
        super().__init__(
            f"{path}: expected an image, found {reason}; {remedy} or set data.on_bad_image=skip"
        )
        self.path, self.reason, self.remedy = path, reason, remedy

    def alone(self) -> Self:
        """The same error without the advice to skip the image, where no data set is read."""
        self.args = (f"{self.path}: expected an image, found {self.reason}; {self.remedy}",)
        return self


class TooLarge(BadImage):
    """An image of more than `data.max_megapixels`."""

    def __init__(self, path: str | Path, size: str, limit: int) -> None:
        super().__init__(
            str(path),
            f"{size}, more than data.max_megapixels {limit}",
            "raise data.max_megapixels, make the image smaller",
        )


def open_regular(path: str | Path) -> BufferedReader:
    """Open a file for reading, but no pipe or device, which could wait for ever.

    Raises:
        OSError: there is no such file, or it is not a regular one.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "a directory, a pipe or a device")
        return os.fdopen(descriptor, "rb")
    except OSError:
        os.close(descriptor)
        raise


def reason_of(path: str | Path, error: Exception, file: BinaryIO | None = None) -> str:
    """What is wrong with a file, from one of the errors above; `file` is the opened file."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnclearPixels):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        if file is not None:
            return _unknown_format(file)
        with open_regular(path) as opened:
            return _unknown_format(opened)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _unknown_format(file: BinaryIO) -> str:
    file.seek(0)
    head = file.read(12)
    if head[4:8] == b"ftyp" and head[8:11] in (b"hei", b"hev", b"mif", b"msf"):
        return "an HEIC photograph, which Pillow does not read (convert it to JPEG)"
    if head[:4] in TIFF_MAGIC:
        return (
            "a TIFF that is cut short, or of a kind that Pillow does not read, such as 64-bit "
            "numbers or colours of more than 8 bits (save it as 8-bit RGB or grey)"
        )
    return "no known image format" if head else "an empty file"
