"""A file of weights, whoever wrote it: headers first, then one array at a time.

What a file is shows in its content; its name does not count. No reader runs code from a file.
"""

import hashlib
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from transfg_core.backend import Array
from transfg_core.closing import Closing
from transfg_core.errors import UserError
from transfg_core.models.rows import Shape

FLOATS = ("float16", "bfloat16", "float32", "float64")

# First bytes of files that hold no weights in a known container -> what the file is, and a remedy.
OTHER_FILES = (
    (b"PK\x03\x04", "a zip archive; unpack it first, or download it again"),
    (b"version https://git-lfs", "the pointer of a Git LFS file; run `git lfs pull`"),
    (b"<", "a web page, perhaps an error page; download the file again, and look at its size"),
    (b"\x89HDF", "an HDF5 file; choose the file in safetensors form"),
    (b"\x93NUMPY", "a single NumPy array; choose the file with all arrays"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
)  # fmt: skip
JSON_FILE = (
    "a JSON file: an index of a model in several files, or its configuration; choose a model whose "
    "weights are one file, such as model.safetensors"
)


class Header(NamedTuple):
    """What a file says of an array before its numbers: shape, and type such as `bfloat16`."""

    shape: Shape
    dtype: str


@dataclass(frozen=True)
class Origin:
    """Where weights came from: the file's path, bytes and SHA-256, and whose names it has."""

    file: str
    bytes: int
    sha256: str
    form: str


class WeightFile(Closing):
    """An open file of named arrays; every problem with it raises a UserError.

    `strings` holds further text of the file, if its container has a place for it; `note` is what
    the user should know of what was chosen in it.
    """

    strings: Mapping[str, str] = {}
    note = ""

    def __init__(self, path: str) -> None:
        self.path = path

    def headers(self) -> dict[str, Header]:
        """Dict: key -> header, without reading any array.

        Raises:
            UserError: the file is damaged, or holds something else than arrays.
        """
        raise NotImplementedError

    def read(self, key: str) -> Array:
        """One array; bfloat16 becomes float32, which holds each of its numbers exactly.

        Raises:
            UserError: the array is damaged.
        """
        raise NotImplementedError


def widen_bfloat16(bits: Array) -> Array:
    """Two-byte patterns, in native byte order, as float32: bfloat16 is its upper half."""
    return (bits.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def require_file(path: str) -> int:
    """The size of a regular file in bytes.

    Raises:
        UserError: there is none, or the path is a folder, a pipe or a device.
    """
    try:
        status = Path(path).stat()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        missing = isinstance(error, FileNotFoundError)
        reason = "no such file" if missing else f"cannot be read ({error})"
        raise UserError(f"{path}: {reason}; check the path") from error
    if stat.S_ISDIR(status.st_mode):
        raise UserError(
            f"{path}: expected a file, found a directory; name the file in it, such as "
            f"{Path(path) / 'model.safetensors'}"
        )
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path}: expected a file, found a pipe or a device; name a file")
    return status.st_size


def origin_of(path: str, form: str) -> Origin:
    """The size and hash of a file of weights.

    Raises:
        UserError: the file cannot be read.
    """
    size = require_file(path)
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}); check the file") from error
    return Origin(path, size, digest, form)


def container_of(path: str) -> str:
    """The container that the file's first bytes show: `safetensors`, `npz` or `torch`.

    Raises:
        UserError: there is no such file, or it is of another kind.
    """
    require_file(path)
    try:
        with open(path, "rb") as file:
            start = file.read(64)
        if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            return _kind_of_zip(path)
    except (OSError, zipfile.BadZipFile, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: {damaged('a file of weights', error)}") from error
    if start[8:9] == b"{":  # after the length of safetensors' header, which may be like any magic
        return "safetensors"
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "torch"  # the format of torch.save before PyTorch 1.6
    if other := other_kind(start):
        raise UserError(f"{path}: expected a file of weights, found {other}")
    reason = "an empty file" if not start else f"its first bytes are {start[:8]!r}"
    raise UserError(f"{path}: {damaged('a .safetensors, .npz or PyTorch file', reason)}")


def other_kind(start: bytes) -> str:
    """What a file without arrays is by its first bytes, and a remedy; empty if unknown."""
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] in (b"{", b"["):
        return JSON_FILE
    return next((what for magic, what in OTHER_FILES if text.startswith(magic)), "")


def _kind_of_zip(path: str) -> str:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith("/data.pkl") for name in names):
        return "torch"
    # without members: an .npz without arrays
    if all(name.endswith(".npy") for name in names):
        return "npz"
    example = next(name for name in names if not name.endswith(".npy"))
    raise UserError(
        f"{path}: expected an .npz of arrays or a file of torch.save, found a zip archive with "
        f"{example!r}; unpack it, or choose another file"
    )


def damaged(expected: str, reason: object) -> str:
    """The end of a message about a file that cannot be read."""
    text = " ".join(str(reason).split())[:200] or type(reason).__name__
    return (
        f"expected {expected}, found a cut or damaged file or one of another type ({text}); "
        "download it again"
    )
