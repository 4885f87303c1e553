"""Kinks: where a function has a corner, and on which side of it each number of a recording lies.

A ReLU has its corner at 0; a max pool has one wherever two numbers of a window are equal. Near a
corner two right programs may take different sides. Both are right, but their gradients differ by
more than rounding (`branches.py`).

A recording that names its kinks stores them in its manifest. In any other recording they are found
in the arrays: a tap that is, bit by bit, a known function of an earlier tap.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from parity.comparison.pools import POOLS, Pool, pooled
from parity.comparison.sketch import Array
from parity.comparison.trace import Trace

SAMPLE = 256  # numbers that are looked at first: most pairs of taps are no kink
REPEATED = 0.02  # of a tap's numbers lie exactly on a bound of a clamp; at least two
# Words of stages that are computed from derivatives: only there the side of a corner counts.
DERIVED = {"gradient", "gradients", "grad", "grads", "backward", "update", "updates", "step"}
ROUNDING = 4.0  # roundoffs between a product in the trace and the same product here


@dataclass(frozen=True)
class Kink:
    """A function with corners: `output` is computed from `input`; both are `stage/tap`.

    `input` is `output` itself where the trace does not have the input: which numbers lie on the
    bound of a clamp can be seen in its output.
    """

    output: str
    input: str
    function: str
    corners: tuple[float, ...] = ()
    pool: Pool | None = None

    @property
    def stage(self) -> str:
        """The stage of the output."""
        return self.output.partition("/")[0]

    def choose(self, x: Array) -> Array:
        """The side of each number: how many corners lie below it; of a pool, the index chosen."""
        if self.pool:
            return pooled(x, self.pool)[1]
        sides = (x > self.corners[0]).astype(np.uint8)
        for corner in self.corners[1:]:
            sides += x >= corner  # a number on an upper bound lies beyond it
        return sides

    def margins(self, exact: Array, places: Array, sides: Sequence[Array]) -> Array:
        """How far the exact input is from a tie, at each place where two choices differ.

        Args:
            exact: the input in the reference.
            places: (P, axes) indices of the choice.
            sides: the two choices at these places, (P,) each.
        """
        if self.pool:
            one, other = (self.pool.values(exact, places, side) for side in sides)
            return np.asarray(np.abs(one - other))
        values = exact[tuple(places.T)].astype(np.float64)
        return corner_margins(values, self.corners, *sides)


def corner_margins(values: Array, corners: Sequence[float], one: Array, other: Array) -> Array:
    """The distance of each value to the furthest corner between two sides of it; all are (P,)."""
    margins = np.zeros(len(values))
    low, high = np.minimum(one, other), np.maximum(one, other)
    for number, corner in enumerate(corners):
        between = (low <= number) & (number < high)
        margins = np.where(between, np.maximum(margins, np.abs(values - corner)), margins)
    return margins


def behind_kinks(name: str) -> bool:
    """Whether the numbers of this tap come from derivatives, by the words of its stage."""
    return not DERIVED.isdisjoint(name.partition("/")[0].lower().split())


def find_kinks(traces: Sequence[Trace]) -> list[Kink]:
    """The kinks that hold bit by bit in every whole trace of one producer; in data order.

    `traces` are of one pair, the baseline first, with equal tap names.
    """
    sides: dict[str, list[Trace]] = {}
    for trace in traces:
        sides.setdefault(str(trace.producer("name")), []).append(trace)
    kinks: dict[str, Kink] = {}
    for recordings in sides.values():
        for kink in _of_one_producer(recordings):
            kinks.setdefault(kink.output, kink)
    return list(kinks.values())


def _of_one_producer(traces: Sequence[Trace]) -> Iterator[Kink]:
    """The kinks that hold in all traces of one producer."""
    earlier: dict[str, tuple[tuple[int, ...], Array]] = {}  # tap -> its shape, a sample
    for name, y in _floats(traces[0]):
        for kink in _candidates(name, y, earlier):
            if all(_holds(kink, trace) for trace in traces):
                yield kink
                break
        earlier[name] = (y.shape, _sample(y).copy())


def _floats(trace: Trace) -> Iterator[tuple[str, Array]]:
    """The whole floating-point taps that may belong to a kink, in data order."""
    for name, tap in trace.taps.items():
        if isinstance(tap, np.ndarray) and tap.ndim and tap.size > 1 and tap.dtype.kind == "f":
            if not behind_kinks(name) and np.isfinite(tap).all():
                yield name, tap


def _sample(value: Array) -> Array:
    """(SAMPLE,) some numbers of an array, spread over it; equal places for equal shapes."""
    return value.reshape(-1)[:: max(1, value.size // SAMPLE)]


def _candidates(
    name: str, y: Array, earlier: Mapping[str, tuple[tuple[int, ...], Array]]
) -> Iterator[Kink]:
    """The kinks that this tap may be the result of, by shapes and samples; the nearest first."""
    bounds = _bounds(y)
    for before, (shape, sample) in reversed(tuple(earlier.items())):
        if shape == y.shape:
            kinks = [Kink(name, before, kind, corners) for kind, corners in SHAPES.items()]
            kinks += [Kink(name, before, "clamp", bounds)] if bounds else []
            yield from (kink for kink in kinks if _is_function(kink, sample, _sample(y)))
        for pool in POOLS:
            if pool.fits_sizes(shape, y.shape):
                yield Kink(name, before, "max pool", pool=pool)
    if bounds:
        yield Kink(name, name, "clamp", bounds)


def _holds(kink: Kink, trace: Trace) -> bool:
    """Whether the kink holds in this trace as well; a trace without these taps says nothing."""
    x, y = trace.taps.get(kink.input), trace.taps.get(kink.output)
    if x is None or y is None:
        return True
    return isinstance(x, np.ndarray) and isinstance(y, np.ndarray) and _fits(kink, x, y)


def _fits(kink: Kink, x: Array, y: Array) -> bool:
    """Whether y is this function of x, and some corner lies between numbers of x."""
    if kink.pool:
        return kink.pool.fits(x, y)
    low, high = kink.corners[0], kink.corners[-1]
    if kink.input == kink.output:
        return bool(y.min() == low and (high == low or y.max() == high))
    if x.shape != y.shape:
        return False
    crossed = x.min() <= low or x.max() >= high
    return bool(crossed) and _is_function(kink, x.reshape(-1), y.reshape(-1))


def _is_function(kink: Kink, x: Array, y: Array) -> bool:
    """Whether flat numbers y are this function of x, up to the rounding of one product."""
    expected = FUNCTIONS[kink.function](x, y, kink.corners)
    allowed = EXACTLY.get(kink.function, ROUNDING) * float(np.finfo(y.dtype).eps)
    return bool((np.abs(expected - y) <= allowed * np.abs(y)).all())


def _bounds(y: Array) -> tuple[float, ...]:
    """The bounds of a clamp: the smallest number, and the largest if many are equal to it.

    A ReLU leaves zeros. Any other bound must hold many numbers.
    """
    low, high = float(y.min()), float(y.max())
    enough = max(2, int(REPEATED * y.size))
    if low == high or (low != 0 and np.count_nonzero(y == low) < enough):
        return ()
    return (low, high) if np.count_nonzero(y == high) >= enough else (low,)


def _clamp(x: Array, _y: Array, corners: Sequence[float]) -> Array:
    limits = [x.dtype.type(corner) for corner in corners]
    return np.clip(x, limits[0], limits[1] if len(limits) > 1 else None)


def _hard_swish(x: Array, _y: Array, _corners: Sequence[float]) -> Array:
    value: Array = x * np.clip(x + 3, 0, 6) / 6
    return value


def _leaky(x: Array, y: Array, _corners: Sequence[float]) -> Array:
    """The leaky ReLU with the slope that the lowest number shows; x and y are flat."""
    lowest = int(x.argmin())
    slope = y[lowest] / x[lowest] if x[lowest] < 0 else x.dtype.type(1)
    if not 0 < slope < 1:
        return np.full_like(x, np.nan)
    return np.where(x > 0, x, slope * x)


FUNCTIONS = {
    "clamp": _clamp,
    "relu": _clamp,
    "abs": lambda x, _y, _corners: np.abs(x),
    "leaky relu": _leaky,
    "hard swish": _hard_swish,
}
# Function -> its corners. The corners of a clamp are seen in its output.
SHAPES = {"relu": (0.0,), "abs": (0.0,), "leaky relu": (0.0,), "hard swish": (-3.0, 3.0)}
EXACTLY = {"clamp": 0.0, "relu": 0.0, "abs": 0.0}  # without a product there is no rounding
