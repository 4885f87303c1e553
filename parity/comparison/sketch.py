"""Sketches: short summaries of arrays that are too large to store whole.

A sketch is the CountSketch of Charikar, Chen and Farach-Colton (2002). Each element is added, with
a pseudo-random sign, to one of m buckets. Then |sketch(a) - sketch(b)| estimates |a - b| with a
relative standard deviation of 1 / sqrt(2 m).
"""

import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BUCKETS = 4096  # power of two, so that sketches of different sizes can be compared


@dataclass(frozen=True)
class Sketch:
    """The sketch of a large array: (m,) float64 buckets, and exact facts about the array."""

    shape: tuple[int, ...]
    dtype: str
    buckets: Array
    norm: float  # of the finite elements
    largest: float
    not_finite: int
    crc: int  # of the bytes


Tap = Array | Sketch


@lru_cache(maxsize=4)
def _hashes(size: int) -> tuple[Array, Array]:
    """Bucket (before the modulus) and sign of each element, from splitmix64 of its index."""
    x = np.arange(size, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    x ^= x >> np.uint64(31)
    return (x & np.uint64(0xFFFF)).astype(np.uint16), 1.0 - 2.0 * (x >> np.uint64(63))


def l2(values: Array) -> float:
    """L2 norm of an array of any shape in float64; squares out of its range do no harm."""
    largest = float(np.abs(values).max(initial=0.0))
    if not 0 < largest < np.inf:
        return largest
    return largest * float(np.linalg.norm(values.reshape(-1) / largest))


def sketch(value: Array, buckets: int = BUCKETS) -> Sketch:
    """The sketch of a floating-point array of any shape; NaN and infinity count as 0."""
    flat = np.ascontiguousarray(value).reshape(-1)
    finite = np.isfinite(flat)
    numbers = np.where(finite, flat, 0).astype(np.float64)
    place, sign = _hashes(flat.size)
    sums = np.bincount(place % np.uint16(buckets), weights=sign * numbers, minlength=buckets)
    return Sketch(
        shape=value.shape,
        dtype=value.dtype.str,
        buckets=sums,
        norm=l2(numbers),
        largest=float(np.abs(numbers).max(initial=0.0)),
        not_finite=int(flat.size - finite.sum()),
        crc=zlib.crc32(flat.data if flat.size else b""),
    )


def fold(buckets: Array, size: int) -> Array:
    """Buckets folded to `size`: the buckets of a smaller sketch of the same array."""
    folded: Array = buckets.reshape(-1, size).sum(axis=0)
    return folded
