"""Equality of bits: of arrays in one process, and by CRC-32 between two processes."""

import zlib
from collections.abc import Mapping

import numpy as np

from parity.comparison.sketch import Array


def crc(arrays: Mapping[str, Array]) -> int:
    """CRC-32 over names and values; float64 is rounded to float32 first."""
    state = 0
    for name, value in arrays.items():
        value = as_stored(value)
        state = zlib.crc32(f"{name} {value.dtype.str} {value.shape} ".encode(), state)
        state = zlib.crc32(value.tobytes(), state)
    return state


def as_stored(value: Array) -> Array:
    """As a checkpoint stores it: float64 rounded to float32."""
    return np.asarray(value.astype(np.float32) if value.dtype == np.float64 else value, order="C")


def same(a: Mapping[str, Array], b: Mapping[str, Array]) -> bool:
    """Equal names and equal values as stored; 0.0 equals -0.0."""
    return a.keys() == b.keys() and all(
        np.array_equal(as_stored(a[name]), as_stored(b[name])) for name in a
    )
