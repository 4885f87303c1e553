"""The arrays of a trace file, read when they are asked for.

`open_arrays` checks every byte of a file, and keeps the file open. `StoredTaps` then reads an array
each time that it is asked for. It holds recently read arrays, but never many, so a comparison of
large traces needs little memory.
"""

import math
import weakref
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import IO, Any, Literal, NamedTuple

import numpy as np

from parity.comparison.sketch import Array, Sketch, Tap
from parity.errors import ParityError

AGAIN = "record it again"  # the end of messages about files that cannot be used
HELD = 2**26  # bytes of arrays that a trace may hold
PIECE = 2**20  # bytes
END = ".npy"
NPY: Any = np.lib.format  # some of its functions have no types
# NumPy parses a header as Python, which in Python 3.11 fails now and then in two threads at once
# ("AST constructor recursion depth mismatch", python/cpython#106905)
PARSING = Lock()
BROKEN = (
    zipfile.BadZipFile,
    ValueError,
    EOFError,
    OSError,
    zlib.error,
    KeyError,
    NotImplementedError,  # zipfile: a flipped bit asks for another compression
    RuntimeError,  # zipfile: a flipped bit asks for a password
)


class Header(NamedTuple):
    """What an .npy file says about its array."""

    shape: tuple[int, ...]
    order: Literal["C", "F"]
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


class Arrays:
    """The open file: a header of each array, and the arrays themselves on request.

    Attributes:
        headers: by name, without the end `.npy`.
    """

    def __init__(self, path: Path) -> None:
        """Open the file and read all of it once: each checksum must be right.

        Raises:
            ParityError: the file is missing, damaged, cut off or no archive of arrays.
        """
        self.path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except FileNotFoundError as error:
            raise ParityError(f"{path}: no such trace") from error
        except IsADirectoryError as error:
            raise ParityError(f"{path}: expected a trace file, found a folder") from error
        except BROKEN as error:
            raise damaged(path, error) from error
        weakref.finalize(self, self._archive.close)
        self._held: OrderedDict[str, Array] = OrderedDict()
        self._size = 0
        self.headers: dict[str, Header] = {}
        try:
            for member in self._archive.namelist():
                self._check(member.removesuffix(END))
        except BROKEN as error:
            self._archive.close()
            raise damaged(path, error) from error

    def _check(self, name: str) -> None:
        """Read one array to its end, and hold it while there is room.

        Raises:
            ValueError: the member of the archive is not exactly one array of numbers.
        """
        with self._archive.open(name + END) as file:
            header = self.headers[name] = _read_header(file)
            if self._size + header.size <= HELD:
                self._hold(name, _read_body(file, header))
                left = len(file.read(1))
            else:
                left = -header.size
                while piece := file.read(PIECE):
                    left += len(piece)
        if left:
            raise ValueError(f"{name} is not as long as its header says")

    def __getitem__(self, name: str) -> Array:
        """An array by name, without the end `.npy`. It cannot be written to, because it is shared.

        Raises:
            ParityError: the file was changed after it was opened.
        """
        if name in self._held:
            self._held.move_to_end(name)
            return self._held[name]
        try:
            with self._archive.open(name + END) as file:
                value = _read_body(file, _read_header(file))
        except BROKEN as error:
            raise ParityError(
                f"{self.path}: changed while it was read ({error}); compare again"
            ) from error
        self._hold(name, value)
        return value

    def _hold(self, name: str, value: Array) -> None:
        """Hold an array, and drop those that were not used for the longest time."""
        if value.nbytes > HELD:
            return
        self._held[name] = value
        self._size += value.nbytes
        while self._size > HELD:
            _, old = self._held.popitem(last=False)
            self._size -= old.nbytes


def damaged(path: Path, error: Exception) -> ParityError:
    """The refusal of a file that cannot be read."""
    return ParityError(f"{path}: damaged, cut off or no trace ({error}); {AGAIN}")


def _read_header(file: IO[bytes]) -> Header:
    """The header of an .npy file."""
    version = NPY.read_magic(file)
    readers: dict[tuple[int, int], Callable[[IO[bytes]], tuple[Any, bool, Any]]] = {
        (1, 0): NPY.read_array_header_1_0,
        (2, 0): NPY.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"an array of format {version}")
    with PARSING:
        shape, is_fortran, dtype = readers[version](file)
    if dtype.hasobject:
        raise ValueError("Python objects, which a trace cannot hold")
    return Header(tuple(shape), "F" if is_fortran else "C", dtype)


def _read_body(file: IO[bytes], header: Header) -> Array:
    """The array behind a header; it cannot be written to."""
    data = file.read(header.size)
    if len(data) < header.size:
        raise EOFError("an array is cut off")
    return np.ndarray(header.shape, header.dtype, buffer=data, order=header.order)


class StoredTaps(Mapping[str, Tap]):
    """The taps of a trace file by name; an array is read when it is asked for."""

    def __init__(self, arrays: Arrays, index: Mapping[str, Mapping[str, Any]], kind: str) -> None:
        """`index`: facts about each tap, the n-th of which is `taps/n`; `kind`: of sketches."""
        self._arrays, self._index, self._kind = arrays, index, kind
        self._places = {name: f"taps/{number}" for number, name in enumerate(index)}

    def __getitem__(self, name: str) -> Tap:
        """An array that cannot be written to, or a sketch."""
        facts, array = self._index[name], self._arrays[self._places[name]]
        if "sketch" not in facts:
            return array
        return Sketch(
            tuple(facts["shape"]), facts["dtype"], array, kind=self._kind, **facts["sketch"]
        )

    def is_sketch(self, name: str) -> bool:
        """Whether a tap is a sketch; nothing is read."""
        return "sketch" in self._index[name]

    def __contains__(self, name: object) -> bool:
        """Whether there is such a tap; nothing is read."""
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        """The names, in data order."""
        return iter(self._places)

    def __len__(self) -> int:
        """The number of taps."""
        return len(self._places)


def is_sketch(taps: Mapping[str, Tap], name: str) -> bool:
    """Whether a tap is a sketch. Taps of a file know it without reading the array."""
    known = getattr(taps, "is_sketch", None)
    return bool(known(name)) if known else isinstance(taps[name], Sketch)
