"""Read an untrusted .npz: headers first, then one array at a time, never a pickle."""

import lzma
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from transfg_core.backend import Array
from transfg_core.checkpoints.weight_file import Header, WeightFile, damaged, widen_bfloat16
from transfg_core.errors import UserError

NPY: Any = np.lib.format  # numpy 1 has no types for it

# Exceptions of zipfile and numpy for files that are cut, damaged or of another type. The last two
# of the first line: the header claims more numbers than fit into the memory.
DAMAGED = (
    OSError, EOFError, ValueError, RuntimeError, SyntaxError, OverflowError, MemoryError,
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, tokenize.TokenError,
)  # fmt: skip
# JAX's bfloat16 becomes two bytes without a type, since NumPy has none for it
BFLOAT16 = np.dtype("V2")


class NpzFile(WeightFile):
    """An open .npz."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        with self._explained():
            self.archive = zipfile.ZipFile(path)

    def close(self) -> None:
        """Close the archive."""
        self.archive.close()

    def headers(self) -> dict[str, Header]:
        """Dict: key -> header.

        Raises:
            UserError: a member is damaged, or holds Python objects.
        """
        headers = {}
        for member in self.archive.namelist():
            key = member.removesuffix(".npy")
            with self._explained(key), self.archive.open(member) as file:
                if NPY.read_magic(file) == (1, 0):
                    shape, _, dtype = NPY.read_array_header_1_0(file)
                else:
                    shape, _, dtype = NPY.read_array_header_2_0(file)
            if dtype.hasobject:
                raise UserError(
                    f"{self.path}: {key}: expected numbers, found pickled Python objects, which "
                    "could run code and are never opened; use a file from a source you trust"
                )
            headers[key] = Header(shape, "bfloat16" if dtype == BFLOAT16 else dtype.name)
        return headers

    def read(self, key: str) -> Array:
        """One array; its checksum is verified.

        Raises:
            UserError: the array is damaged.
        """
        with self._explained(key), self.archive.open(f"{key}.npy") as file:
            array: Array = NPY.read_array(file, allow_pickle=False)
        return widen_bfloat16(array) if array.dtype == BFLOAT16 else array

    @contextmanager
    def _explained(self, key: str = "") -> Iterator[None]:
        where = f"{self.path}: {key}" if key else self.path
        try:
            yield
        except DAMAGED as error:
            raise UserError(f"{where}: {damaged('an .npz', error)}") from error
