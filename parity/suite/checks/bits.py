"""Equality of bits: between arrays of one process, and by CRC-32 between two."""

import zlib
from collections.abc import Mapping

import numpy as np

from parity.comparison.sketch import Array


def crc(arrays: Mapping[str, Array]) -> int:
    """CRC-32 over names and values; floating-point numbers as float32, whatever the precision."""
    state = 0
    for name, value in arrays.items():
        value = as_stored(value)
        state = zlib.crc32(f"{name} {value.dtype.str} {value.shape} ".encode(), state)
        state = zlib.crc32(value.tobytes(), state)
    return state


def as_stored(value: Array) -> Array:
    """As a checkpoint keeps it: float64 rounded to float32."""
    return np.asarray(value.astype(np.float32) if value.dtype == np.float64 else value, order="C")


def same(one: Mapping[str, Array], other: Mapping[str, Array]) -> bool:
    """Equal names and, as stored, equal bits, the sign of zero left aside."""
    return one.keys() == other.keys() and all(
        np.array_equal(as_stored(one[name]), as_stored(other[name])) for name in one
    )
