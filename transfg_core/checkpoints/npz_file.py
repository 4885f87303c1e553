"""Read an untrusted .npz: headers first, then one array at a time, never a pickle."""

import lzma
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from transfg_core.backend import Array
from transfg_core.closing import Closing
from transfg_core.errors import UserError
from transfg_core.models.rows import Shape

NPY: Any = np.lib.format  # numpy 1 has no types for it

# Exceptions of zipfile and numpy for files that are cut, damaged or of another type.
DAMAGED = (
    OSError, EOFError, ValueError, RuntimeError, SyntaxError,
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, tokenize.TokenError,
)  # fmt: skip


class NpzFile(Closing):
    """An open .npz of floating-point arrays; every problem with it raises a UserError."""

    def __init__(self, path: str | Path) -> None:
        self.path = path
        with self._explained():
            self.archive = zipfile.ZipFile(path)

    def close(self) -> None:
        """Close the archive."""
        self.archive.close()

    def shapes(self) -> dict[str, Shape]:
        """Dict: key -> shape, from the arrays' headers alone.

        Raises:
            UserError: a member is damaged, is not an array, or holds Python objects.
        """
        shapes = {}
        for member in self.archive.namelist():
            key = member.removesuffix(".npy")
            if key == member:
                raise UserError(
                    f"{self.path}: expected an .npz of arrays, found {member!r}; convert a PyTorch "
                    "checkpoint with `transfg convert IN OUT.safetensors` first"
                )
            shapes[key], dtype = self._header(key)
            if dtype.hasobject:
                raise UserError(
                    f"{self.path}: {key}: expected numbers, found pickled Python objects, which "
                    "could run code and are never opened; use a file from a source you trust"
                )
        return shapes

    def read(self, key: str) -> Array:
        """One array of floating-point numbers; its checksum is verified.

        Raises:
            UserError: the array is damaged or of another type.
        """
        with self._explained(key), self.archive.open(f"{key}.npy") as file:
            array: Array = NPY.read_array(file, allow_pickle=False)
        if array.dtype.kind != "f":
            raise UserError(
                f"{self.path}: {key}: expected floating-point numbers, found {array.dtype}"
            )
        return array

    def _header(self, key: str) -> tuple[Shape, np.dtype[np.generic]]:
        with self._explained(key), self.archive.open(f"{key}.npy") as file:
            if NPY.read_magic(file) == (1, 0):
                shape, _, dtype = NPY.read_array_header_1_0(file)
            else:
                shape, _, dtype = NPY.read_array_header_2_0(file)
        return shape, dtype

    @contextmanager
    def _explained(self, key: str = "") -> Iterator[None]:
        where = f"{self.path}: {key}" if key else str(self.path)
        try:
            yield
        except FileNotFoundError as error:
            raise UserError(f"{where}: no such file; check the path") from error
        except DAMAGED as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"{where}: expected an .npz, found a cut or damaged file or one of another type "
                f"({reason}); download it again"
            ) from error
