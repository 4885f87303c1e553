"""How each tap was made, by a trace's manifest, and the part of a tap that is recomputed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from parity.diagnose.causes.hypothesis import Absent, param_of, tap_of
from parity.diagnose.causes.pair import Array, Context, Pair

LARGE = 2**16  # a tap with more numbers is recomputed in part
IMAGES, CHANNELS = 2, 6


@dataclass(frozen=True)
class Operation:
    """One entry of `operations` in a manifest; names are whole tap names (`stage/tap`)."""

    operation: str
    reads: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    module: str = ""
    source: str = ""
    axes: str = ""

    def numbers(self, name: str, count: int, default: int) -> list[int]:
        """A setting with one number per axis; a single number counts for all axes."""
        value = self.settings.get(name, default)
        if isinstance(value, (int, float)):
            return [int(value)] * count
        if not isinstance(value, (list, tuple)) or len(value) != count:
            raise Absent(name)
        return [int(item) for item in value]

    def number(self, name: str, default: float) -> float:
        """A setting that is one number."""
        value = self.settings.get(name, default)
        return float(value) if isinstance(value, (int, float)) else default


def operations_of(manifest: Mapping[str, Any]) -> dict[str, Operation]:
    """The operations of a trace by tap name; entries that are not of the format are left out."""
    stored = manifest.get("operations") or {}
    result = {}
    for name, entry in stored.items() if isinstance(stored, Mapping) else ():
        if isinstance(entry, Mapping):
            result[str(name)] = Operation(
                str(entry.get("operation") or ""),
                tuple(map(str, entry.get("reads") or ())),
                tuple(map(str, entry.get("params") or ())),
                dict(entry.get("settings") or {}),
                str(entry.get("module") or ""),
                str(entry.get("source") or ""),
            )
    return result


def operation_of(tap: str, context: Context) -> Operation:
    """The operation of a tap."""
    made = context.made_by.get(tap)
    if not isinstance(made, Operation):
        raise Absent(tap)
    return made


def input_of(tap: str, context: Context, pair: Pair | None = None, number: int = 0) -> Array:
    """An input of a tap in float64; with `pair`, only the images that it holds."""
    reads = operation_of(tap, context).reads
    if number >= len(reads):
        raise Absent(f"input {number} of {tap}")
    value = tap_of(context, reads[number])
    return value if pair is None else value[pair.images]


def params_by_end(tap: str, context: Context) -> dict[str, Array]:
    """The parameters of a tap's operation by the last word of their names: weight, bias, ..."""
    names = operation_of(tap, context).params
    return {
        name.rpartition(".")[2]: param_of(context, name)
        for name in names
        if name in context.params and context.params[name].dtype.kind == "f"
    }


def weight_and_bias(tap: str, context: Context) -> Iterator[Array]:
    """The first parameter of an operation and, if there is a second, its bias; in float64."""
    names = operation_of(tap, context).params
    if not names:
        raise Absent(f"parameters of {tap}")
    return (param_of(context, name) for name in names[:2])


def across(channels: Array, x: Array) -> Array:
    """One value for each channel, to be combined with x: (F,) -> (F, 1, ...)."""
    return np.asarray(channels.reshape(-1, *[1] * (x.ndim - 2)))


def sampled(pair: Pair) -> Pair:
    """The pair on a few images (axis 0) and channels (axis 1), if it is large; else unchanged.

    Only taps of two axes or more are cut, and only where both sides have one shape.
    """
    shape = pair.expected.shape
    if pair.expected.size <= LARGE or len(shape) < 2 or not pair.same_shape:
        return pair
    images = spread(shape[0], 1 if pair.expected.size > 64 * LARGE else IMAGES)
    channels = spread(shape[1], CHANNELS) if len(shape) > 3 else np.arange(shape[1])
    found, expected = (value[images][:, channels] for value in (pair.found, pair.expected))
    if not expected.any() or np.array_equal(found, expected):
        return pair  # the difference is elsewhere
    return Pair(found, expected, pair.noise, pair.tap, images, channels)


def spread(count: int, wanted: int) -> Array:
    """Up to `wanted` indices below `count`, evenly spread, with the first and the last."""
    return np.asarray(np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(int)))
