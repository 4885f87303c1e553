"""Pickles of NumPy arrays, lists and texts, read without running anything that they name.

A pickle is a small program, and Python's unpickler calls what it names. Here the few names that
NumPy writes stand for functions of this file, which only take apart what they are given; any other
name refuses the file. CIFAR's files are pickles of protocol 2, written by Python 2: their texts are
bytes. Protocols up to 5, by NumPy 1 or 2, are read as well.
"""

import math
import pickle
import zlib
from collections.abc import Callable
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

TYPES = {f"{order}{kind}" for order in ("", "|", "<", ">") for kind in ("u1", "i1")} | {
    f"{order}{kind}{size}" for order in ("", "<") for kind in "ui" for size in (2, 4, 8)
}


class Refused(Exception):
    """The pickle names something else than arrays of integers, or is damaged."""


class _Type:
    """A data type in the pickle; only its name is kept."""

    def __init__(self, name: str) -> None:
        if name not in TYPES:
            raise Refused(f"numbers of the type {name!r}")
        self.name = name

    def __setstate__(self, state: object) -> None:
        """The order of bytes: 1-byte numbers have none, others are taken as little-endian."""
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("|", "<", b"|", b"<"):
            raise Refused(f"a data type with the order of bytes {order!r}")


class _Array:
    """An array in the pickle, as soon as its state is known."""

    values: NDArray[Any] | None = None

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise Refused("an array of another form")
        _, shape, kind, columns_first, content = state
        self.values = _values(content, kind, shape, "F" if columns_first else "C")


def _values(content: object, kind: object, shape: object, order: str) -> NDArray[Any]:
    if isinstance(content, str):
        content = content.encode("latin-1")
    if not isinstance(kind, _Type) or not isinstance(content, bytes | bytearray):
        raise Refused("an array of other things than integers")
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise Refused("an array without a shape")
    dtype = np.dtype(kind.name)
    if math.prod(shape) * dtype.itemsize != len(content):
        raise Refused("an array that does not have the size of its numbers")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if order == "F" else "C")


class _Reader(pickle.Unpickler):
    """Python's unpickler, for which every name is one of `names`, or refused."""

    def __init__(self, file: IO[bytes], names: dict[str, Callable[..., Any] | str]) -> None:
        super().__init__(file, encoding="bytes")
        self.names = names

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of a name; nothing is imported."""
        if f"{module}.{name}" not in self.names:
            raise Refused(f"the name {module}.{name}")
        return self.names[f"{module}.{name}"]


def _names() -> dict[str, Callable[..., Any] | str]:
    """Stand-ins for one pickle. Each pickle gets its own, since a pickle may set attributes."""
    budget = [2**31]  # bytes that texts may become; each honest file has far fewer

    def text_to_bytes(text: object, encoding: object) -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
            raise Refused("a text of another form")
        budget[0] -= len(text)
        if budget[0] < 0:
            raise Refused("more texts than fit the memory")
        return text.encode("latin-1")

    def array(kind: object, shape: object, code: object) -> _Array:
        return _Array()

    def data_type(name: object, *flags: object) -> _Type:
        return _Type(name.decode("latin-1") if isinstance(name, bytes) else str(name))

    def from_buffer(content: object, kind: object, shape: object, order: object) -> _Array:
        found = _Array()
        found.values = _values(content, kind, shape, str(order))
        return found

    names: dict[str, Callable[..., Any] | str] = {
        "numpy.ndarray": "numpy.ndarray",  # an argument of `_reconstruct`, never called
        "numpy.dtype": data_type,
        "_codecs.encode": text_to_bytes,
    }
    for package in ("numpy.core", "numpy._core"):
        names[f"{package}.multiarray._reconstruct"] = array
        names[f"{package}.numeric._frombuffer"] = from_buffer
    return names


def read_plain_pickle(file: IO[bytes]) -> dict[str, Any]:
    """The dictionary in a pickle: its keys as text, its arrays as NumPy arrays of integers.

    Raises:
        Refused: it is damaged, no dictionary, or names anything else than such arrays.
        OSError, EOFError, zlib.error: the file, or the archive that it lies in, ends too early.
    """
    try:
        content = _Reader(file, _names()).load()
    except (Refused, OSError, EOFError, zlib.error):
        raise
    except Exception as error:  # a damaged pickle may raise any error, as Python's manual says
        raise Refused(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from error
    if type(content) is not dict:
        raise Refused(f"a {type(content).__name__} instead of a dictionary")
    found: dict[str, Any] = {}
    for key, value in content.items():
        name = as_text(key)
        found[name] = value.values if isinstance(value, _Array) else value
    return found


def as_text(value: object) -> str:
    """A text that Python 2 or 3 wrote.

    Raises:
        Refused: it is no text.
    """
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if not isinstance(value, str):
        raise Refused(f"a {type(value).__name__} instead of a text")
    return value
