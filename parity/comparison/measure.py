"""The distance of two taps: relative L2, the worst element, bias and units in the last place.

Verdicts use relative L2 over a whole tap, not bounds per element: rounding errors scale with the
size of the row, so elements near zero may differ by any ratio without a fault.
"""

import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.comparison.sketch import BLOCK, Array, Sketch, Tap, finite_numbers, fold, l2, sketch
from parity.errors import ParityError

# Precision in a manifest -> unit roundoff: half a unit in the last place of 1
ROUNDOFF = {
    "float64": 2.0**-53,
    "float32": 2.0**-24,
    "tf32": 2.0**-11,
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
}


@dataclass(frozen=True)
class Gap:
    """The difference of two taps; if there is a `reason`, `relative` is infinite."""

    relative: float
    absolute: float = 0.0  # of the worst element; from sketches, an upper estimate
    index: tuple[int, ...] | None = None  # of the worst element; None from sketches
    values: tuple[float, float] | None = None
    bias: float = 0.0  # |mean error| · √n / root mean square error: above 5 it is not rounding
    ulps: float = 0.0  # largest, among elements above a thousandth of the largest element
    reason: str = ""


class Facts:
    """Facts about the arrays that were asked for last, so that each is computed once.

    A tap is compared with some ten recordings, one after another. Only arrays that cannot be
    written to are remembered, such as those of a trace file; none is kept alive.
    """

    MOST = 64  # arrays

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[int, str], tuple[Any, Any]] = OrderedDict()

    def of(self, array: Array, fact: str, compute: Callable[[Array], Any]) -> Any:
        """A fact about an array by its name; it is computed if it is not known."""
        if not isinstance(array, np.ndarray) or array.flags.writeable:
            return compute(array)
        key = (id(array), fact)
        alive, value = self._known.get(key, (None, None))
        if alive is None or alive() is not array:
            value = compute(array)
            self._known[key] = (weakref.ref(array), value)
        self._known.move_to_end(key)
        while len(self._known) > self.MOST:
            self._known.popitem(last=False)
        return value


FACTS = Facts()


def norm(tap: Tap) -> float:
    """L2 norm of a tap; infinities do not count, as in the -inf of an attention mask."""
    if isinstance(tap, Sketch):
        return tap.norm
    size: float = FACTS.of(tap, "norm", l2)
    if np.isinf(size):
        size = l2(np.array([l2(finite_numbers(block).numbers) for (block,) in blocks(tap)]))
    return size


def size_of(tap: Tap) -> int:
    """The number of elements of a tap."""
    return int(np.prod(tap.shape))


def constant(tap: Tap) -> bool:
    """Whether a tap of several elements has the same number everywhere; a sketch cannot tell."""
    return isinstance(tap, np.ndarray) and tap.size > 1 and bool((tap == tap.flat[0]).all())


def move_by_ulp(value: Array, rng: np.random.Generator, precision: str = "") -> Array:
    """Every element moved by one unit in the last place, up or down.

    The unit is of the array's type, or of `precision` if that has fewer digits than float32:
    products in such a precision round smaller changes away.
    """
    up = rng.random(value.shape) < 0.5
    moved: Array
    if ROUNDOFF.get(precision, 0.0) > ROUNDOFF["float32"]:
        _, exponent = np.frexp(value)  # the mantissa lies in [0.5, 1)
        unit = np.ldexp(np.full_like(value, ROUNDOFF[precision]), exponent)
        unit[value == 0] = np.finfo(value.dtype).tiny
        moved = value + np.where(up, unit, -unit)
        return moved
    moved = np.nextafter(value, np.where(up, np.inf, -np.inf).astype(value.dtype))
    return np.where(np.isfinite(value), moved, value)  # a mask's -inf stays


def unfit(value: Tap, reference: Tap, same_type: bool = True) -> str:
    """Why two taps cannot be compared; empty if they can. Shapes are never adjusted."""
    if value.shape != reference.shape:
        return f"shape {value.shape}, expected {reference.shape}"
    types = np.dtype(value.dtype), np.dtype(reference.dtype)
    floats = types[0].kind == "f"  # integers are equal numbers in any width: Jittor's have 32 bits
    if types[0].kind != types[1].kind or (same_type and floats and types[0] != types[1]):
        return f"type {types[0]}, expected {types[1]}"
    bad = [t.not_finite if isinstance(t, Sketch) else _not_finite(t) for t in (value, reference)]
    if not any(bad) or _equal_infinities(value, reference, bad):
        return ""
    return f"{bad[0] or bad[1]} elements are not finite"


def _not_finite(tap: Array) -> int:
    return tap.size - sum(np.count_nonzero(np.isfinite(block)) for (block,) in blocks(tap))


def _equal_infinities(value: Tap, reference: Tap, bad: Sequence[int]) -> bool:
    """Whether two arrays have the same infinities in the same places, and finite numbers beside
    them; a sketch cannot tell."""
    if bad[0] != bad[1] or bad[0] == size_of(value):
        return False
    if isinstance(value, Sketch) or isinstance(reference, Sketch):
        return False
    return all(
        np.array_equal(np.where(np.isfinite(a), 0, a), np.where(np.isfinite(b), 0, b))
        for a, b in blocks(value, reference)
    )


def gap(value: Tap, reference: Tap, same_type: bool = True) -> Gap:
    """The difference of `value` from `reference`, relative to `reference`.

    A tap with NaN never agrees, even if both taps have NaN there: both runs have diverged.
    Infinities agree where both taps have the same, as in an attention mask, if some numbers are
    finite. For integers and booleans, the field `relative` is 0 if all elements are equal, else
    infinity.
    """
    reason = unfit(value, reference, same_type)
    if reason:
        return Gap(np.inf, np.inf, reason=reason)
    if isinstance(value, Sketch) or isinstance(reference, Sketch):
        return _of_sketches(value, reference)
    return _of_arrays(value, reference)


def relative(value: Tap, reference: Tap, same_type: bool = True) -> float:
    """The field `relative` of `gap`, in a third of its time."""
    if isinstance(value, np.ndarray) and isinstance(reference, np.ndarray):
        floats = value.dtype.kind == reference.dtype.kind == "f"
        fits = value.dtype == reference.dtype or not same_type
        whole = floats and fits and value.shape == reference.shape
        if whole and np.isfinite(FACTS.of(reference, "norm", l2)):
            size = l2(np.array([l2(error) for error, _ in _errors(value, reference)]))
            return _ratio(size, norm(reference))  # infinite, if an element is not finite
    return gap(value, reference, same_type).relative


def blocks(*arrays: Array) -> Iterator[tuple[Array, ...]]:
    """Pieces of arrays of one shape, flat and in order, so that temporary arrays stay small."""
    flat = [array.reshape(-1) for array in arrays]
    for start in range(0, flat[0].size, BLOCK):
        yield tuple(array[start : start + BLOCK] for array in flat)


def _errors(value: Array, reference: Array) -> Iterator[tuple[Array, Array]]:
    """Blocks of the error in float64, each with the block of the reference."""
    for a, b in blocks(value, reference):
        with np.errstate(over="ignore", invalid="ignore"):
            error = a.astype(np.float64) - b.astype(np.float64)
        if not np.isfinite(error.sum()):
            error = np.where(a == b, 0.0, error)  # equal infinities
        yield error, b


def _of_arrays(value: Array, reference: Array) -> Gap:
    if all(np.array_equal(a, b) for a, b in blocks(value, reference)):
        return Gap(0.0)
    sizes, sums, worst, place = [], [], -1.0, 0
    for number, (error, _) in enumerate(_errors(value, reference)):
        sizes.append(l2(error))
        sums.append(float(error.sum()))
        at = int(np.abs(error).argmax())
        if abs(error[at]) > worst:
            worst, place = float(abs(error[at])), number * BLOCK + at
    index = tuple(int(i) for i in np.unravel_index(place, value.shape))
    values = (float(value[index]), float(reference[index]))
    largest = abs(values[0] - values[1])
    if reference.dtype.kind != "f":
        count = sum(np.count_nonzero(a != b) for a, b in blocks(value, reference))
        return Gap(np.inf, largest, index, values, reason=f"{count} differ")
    size = l2(np.array(sizes))
    if not np.isfinite(size):
        return Gap(np.inf, largest, index, values)
    rms = size / value.size**0.5
    return Gap(
        relative=_ratio(size, norm(reference)),
        absolute=largest,
        index=index,
        values=values,
        bias=abs(sum(sums) / value.size) / rms * value.size**0.5,
        ulps=_ulps(value, reference),
    )


def _ratio(size: float, reference: float) -> float:
    """The quotient; infinite, and never NaN, if it leaves the range of float64."""
    if size == 0:
        return 0.0
    return size / reference if 0 < reference < np.inf and size < np.inf else np.inf


def _ulps(value: Array, reference: Array) -> float:
    """The largest error in units in the last place, among elements that are not small."""
    least = 1e-3 * max(
        np.abs(finite_numbers(block).numbers).max() for (block,) in blocks(reference)
    )
    found = [0.0]
    for error, block in _errors(value, reference):
        sizes = np.abs(block)
        large = (sizes > least) & np.isfinite(sizes)
        units = np.abs(error[large]) / np.spacing(sizes[large])
        found.append(float(units.max(initial=0.0)))
    return max(found)


def _of_sketches(value: Tap, reference: Tap) -> Gap:
    kinds = {x.kind for x in (value, reference) if isinstance(x, Sketch)}
    kind = min(kinds)
    taken, expected = (
        x if isinstance(x, Sketch) else FACTS.of(x, kind, lambda array: sketch(array, kind=kind))
        for x in (value, reference)
    )
    if np.dtype(taken.dtype) == np.dtype(expected.dtype) and taken.crc == expected.crc:
        return Gap(0.0)
    if len(kinds) > 1:  # `refuse_mixture` refuses such traces, and names them
        raise ParityError("sketches of two kinds cannot be compared; record both with one version")
    size = min(len(taken.buckets), len(expected.buckets))
    distance = l2(fold(taken.buckets, size) - fold(expected.buckets, size))
    if taken.dtype == expected.dtype and expected.norm:
        # the checksums differ, so the distance is not zero, even if all buckets are equal
        distance = max(distance, float(np.finfo(np.float64).tiny))
    return Gap(_ratio(distance, expected.norm), distance)
