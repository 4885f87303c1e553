"""Sketches: short summaries of arrays that are too large to store whole.

A sketch is the CountSketch of Charikar, Chen and Farach-Colton (2002). Each element is added, with
a pseudo-random sign, to one of m buckets. Then |sketch(a) - sketch(b)| estimates |a - b| with a
relative standard deviation of 1 / sqrt(2 m).

To draw a bucket and a sign for each element would take far longer than to compute the array. So one
pattern of buckets and signs is drawn. Each block of the array uses a window of the pattern; a hash
of the block's number says where the window begins and by how many buckets it is rotated. The
rotation also flips signs. The pattern is several times as long as a block, so that two blocks
seldom use the same part of it: else equal differences in both would collide in the same way, and
the estimate would be less exact.
"""

import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BUCKETS = 4096  # power of two, so that sketches of different sizes can be compared
BLOCK = 2**15  # elements: a block in float64 and its window of the pattern fit into the cache
PATTERN = 8 * BLOCK
KIND = "blocks"  # the kind of sketch in the manifest
OLD_KIND = "elements"  # of formats 1 and 2


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
    kind: str = KIND


Tap = Array | Sketch


def mixed(numbers: Array) -> Array:
    """Pseudo-random 64-bit numbers: the splitmix64 generator (Steele, Lea and Flood 2014)."""
    x = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    result: Array = x ^ (x >> np.uint64(31))
    return result


@lru_cache(maxsize=1)
def _pattern() -> Array:
    """(PATTERN + BLOCK,) places below 2 m: below m, add to this bucket; else subtract."""
    places = (mixed(np.arange(PATTERN)) % np.uint64(2 * BUCKETS)).astype(np.intp)
    return np.concatenate([places, places[:BLOCK]])


def _windows(count: int) -> list[tuple[int, int]]:
    """Where each block's window of the pattern begins, and by how many places it is rotated."""
    drawn = mixed(np.arange(count) + 2**40)  # not the numbers that the pattern was drawn from
    starts = drawn % np.uint64(PATTERN)
    turns = (drawn >> np.uint64(32)) % np.uint64(2 * BUCKETS)
    return list(zip(starts.tolist(), turns.tolist(), strict=True))


def l2(values: Array) -> float:
    """L2 norm of an array of any shape in float64; squares out of its range do no harm."""
    flat = values.reshape(-1)
    if flat.size > BLOCK:  # the temporary arrays below stay small
        starts = range(0, flat.size, BLOCK)
        return l2(np.array([l2(flat[start : start + BLOCK]) for start in starts]))
    flat = flat.astype(np.float64, copy=False)
    largest = float(np.abs(flat).max(initial=0.0))
    if not 0 < largest < np.inf:
        return largest
    if 1e-100 < largest < 1e100:
        return float(np.sqrt(flat @ flat))
    return largest * float(np.linalg.norm(flat / largest))


def sketch(value: Array, buckets: int = BUCKETS, kind: str = KIND) -> Sketch:
    """The sketch of a floating-point array of any shape; NaN and infinity count as 0.

    `buckets` divides BUCKETS. `kind` is KIND, or OLD_KIND to compare with an old trace.
    """
    flat = np.ascontiguousarray(value).reshape(-1)
    starts = range(0, flat.size, BLOCK)
    pattern, sums = _pattern(), np.zeros(2 * BUCKETS)
    norms, largest, not_finite = np.zeros(len(starts)), 0.0, 0
    for number, (start, (begin, turn)) in enumerate(
        zip(starts, _windows(len(starts)), strict=True)
    ):
        block = finite_numbers(flat[start : start + BLOCK])
        not_finite += block.bad
        largest = max(largest, float(np.abs(block.numbers).max()))
        norms[number] = l2(block.numbers)
        if kind == KIND:
            places = pattern[begin : begin + block.numbers.size]
            counts = np.bincount(places, block.numbers, 2 * BUCKETS)
            sums[turn:] += counts[: 2 * BUCKETS - turn]
            sums[:turn] += counts[2 * BUCKETS - turn :]
    if kind == KIND:
        sums = fold(sums[:BUCKETS] - sums[BUCKETS:], buckets)
    else:
        sums = old_buckets(finite_numbers(flat).numbers, buckets)
    crc = zlib.crc32(flat.data if flat.size else b"")
    dtype = value.dtype.str
    return Sketch(value.shape, dtype, sums, l2(norms), largest, not_finite, crc, kind)


class Finite(NamedTuple):
    """Numbers in float64 with 0 for each that is not finite, and how many these are."""

    numbers: Array
    bad: int


def finite_numbers(values: Array) -> Finite:
    """The values in float64; NaN and infinity become 0."""
    numbers = values.astype(np.float64)
    finite = np.isfinite(numbers)
    bad = int(numbers.size - np.count_nonzero(finite))
    return Finite(np.where(finite, numbers, 0) if bad else numbers, bad)


def old_buckets(numbers: Array, buckets: int) -> Array:
    """The sums of the kind `elements`: bucket and sign are a hash of the element's index."""
    hashes = mixed(np.arange(numbers.size))
    place = (hashes & np.uint64(0xFFFF)).astype(np.uint16) % np.uint16(buckets)
    sign = 1.0 - 2.0 * (hashes >> np.uint64(63))
    sums: Array = np.bincount(place, weights=sign * numbers, minlength=buckets)
    return sums


def fold(buckets: Array, size: int) -> Array:
    """Buckets folded to `size`: the buckets of a smaller sketch of the same array."""
    folded: Array = buckets.reshape(-1, size).sum(axis=0)
    return folded
