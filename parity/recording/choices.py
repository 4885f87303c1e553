"""Choices at kinks: which piece of ReLU, which element of a max pool; by NumPy, for any framework.

At a corner (ReLU at 0, a tie in a max pool) two right programs may choose differently, and then
their gradients differ. The baseline *follows*: where its own numbers are near a tie, it computes
with the candidate's choice. Elsewhere it keeps its own, so that a wrong choice is never copied.

A choice is a uint8 region for each element (how many corners are below it), or int64 indices: for
pools the flat index in the input plane, for `max` and `top-k` the index along the axis.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from parity.comparison.sketch import Array

Settings = Mapping[str, Any]

# A tie is nearer than this, relative to the root mean square of the operand. Far above the noise
# of float32 in a deep network (1e-6 to 1e-4), far below the numbers themselves.
NEAR = 1e-3

# kind -> corners, and each region's coefficients (constant, x, x²); text names a setting
ELEMENTWISE: dict[str, tuple[list[Any], list[tuple[Any, Any, Any]]]] = {
    "relu": ([0.0], [(0, 0, 0), (0, 1, 0)]),
    "relu6": ([0.0, 6.0], [(0, 0, 0), (0, 1, 0), (6, 0, 0)]),
    "leaky relu": ([0.0], [(0, "slope", 0), (0, 1, 0)]),
    "clamp": (["min", "max"], [("min", 0, 0), (0, 1, 0), ("max", 0, 0)]),
    "hard sigmoid": ([-3.0, 3.0], [(0, 0, 0), (0.5, 1 / 6, 0), (1, 0, 0)]),
    "hard swish": ([-3.0, 3.0], [(0, 0, 0), (0, 0.5, 1 / 6), (0, 1, 0)]),
    "abs": ([0.0], [(0, -1, 0), (0, 1, 0)]),
}
TWO_OPERANDS = ("maximum", "minimum")  # region of a - b: 0 below, 1 above
POOLS = ("max pool", "adaptive max pool")
INDEXED = (*POOLS, "max", "min", "top-k")


def corners(kind: str, settings: Settings) -> list[float]:
    """Where the choice changes: numbers of x, or of a - b; none for indices."""
    if kind in TWO_OPERANDS or kind == "prelu":
        return [0.0]
    if kind not in ELEMENTWISE:
        return []
    named = [settings.get(c) if isinstance(c, str) else c for c in ELEMENTWISE[kind][0]]
    return [float(c) for c in named if c is not None]


def margin_of(kind: str, operands: Sequence[Array]) -> Array:
    """The array whose distance from the corners is the margin: x, or a - b."""
    if kind in TWO_OPERANDS:
        difference: Array = operands[0] - operands[1]
        return difference
    return operands[0]


def choose(kind: str, settings: Settings, operands: Sequence[Array]) -> Array:
    """The choice of each element: the lower region at a corner, the first of equal elements."""
    x = margin_of(kind, operands)
    if kind in POOLS:
        return _choose_in_windows(x, settings)
    if kind in INDEXED:
        axis = settings["axis"]
        signed = -x if settings.get("largest", kind != "min") else x
        if kind != "top-k":
            return np.asarray(np.expand_dims(np.argmin(signed, axis), axis), np.int64)
        order = np.argsort(signed, axis=axis, kind="stable")
        return np.asarray(np.take(order, np.arange(settings["k"]), axis), np.int64)
    region = np.zeros(x.shape, np.uint8)
    for corner in corners(kind, settings):
        region += x > corner
    return region


def near_ties(
    kind: str, settings: Settings, operands: Sequence[Array], own: Array, other: Array
) -> Array:
    """Where two choices differ, but the operands are so near a tie that either may be right."""
    x = margin_of(kind, operands)
    limit = NEAR * float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) if x.size else 0.0
    differ = np.asarray(own != other)
    if kind in INDEXED:
        low, high = (0, _choices(kind, settings, x.shape))
        differ &= (other >= low) & (other < high)
        flat = x.reshape(-1)
        theirs = flat[flat_indices(kind, settings, x.shape, np.where(differ, other, own))]
        gap = np.abs(flat[flat_indices(kind, settings, x.shape, own)] - theirs)
        return np.asarray(differ & (gap <= limit))
    distance = np.min([np.abs(x - c) for c in corners(kind, settings)], axis=0)
    return np.asarray(differ & (distance <= limit))


def coefficients(kind: str, settings: Settings, choice: Array) -> list[Array]:
    """(constant, x, x²) of each element on its region, as float64 arrays of the choice's shape."""
    pieces = ELEMENTWISE[kind][1]
    if kind == "clamp" and settings.get("min") is None:
        pieces = pieces[1:]
    table = [[settings.get(v) if isinstance(v, str) else v for v in piece] for piece in pieces]
    filled = np.array([[np.nan if v is None else v for v in piece] for piece in table], np.float64)
    return [filled[choice, power] for power in range(3)]


def flat_indices(kind: str, settings: Settings, shape: Sequence[int], choice: Array) -> Array:
    """Indices into the flattened operand, of the choice's shape, int64."""
    if kind in POOLS:
        spatial = len(settings["axes"])
        plane = int(np.prod(shape[-spatial:]))
        planes = np.arange(int(np.prod(shape[:-spatial]))).reshape(choice.shape[:-spatial])
        return np.asarray(planes.reshape(*planes.shape, *[1] * spatial) * plane + choice, np.int64)
    axis = settings["axis"] % len(shape)
    places = list(np.indices(choice.shape, sparse=True))
    places[axis] = choice
    return np.asarray(np.ravel_multi_index(np.broadcast_arrays(*places), tuple(shape)), np.int64)


def _choices(kind: str, settings: Settings, shape: Sequence[int]) -> int:
    if kind in POOLS:
        return int(np.prod(shape[-len(settings["axes"]) :]))
    return int(shape[settings["axis"]])


def window_places(size: int, axis: Mapping[str, Any]) -> Array:
    """Positions (out, kernel) that each window of one axis sees; -1 outside of the input.

    `axis` has kernel, stride, padding, dilation and out; or only out, for adaptive pools, whose
    windows reach from floor(i size / out) to ceil((i + 1) size / out).
    """
    out = np.arange(axis["out"])[:, None]
    if "kernel" not in axis:
        first, end = out * size // axis["out"], -(-(out + 1) * size // axis["out"])
        places = first + np.arange(int((end - first).max()))
        return np.where(places < end, places, -1)
    places = out * axis["stride"] - axis["padding"] + np.arange(axis["kernel"]) * axis["dilation"]
    return np.where((places >= 0) & (places < size), places, -1)


def _choose_in_windows(x: Array, settings: Settings) -> Array:
    """The flat index of each window's first largest element; `settings["axes"]`: one per axis."""
    axes = settings["axes"]
    sizes = x.shape[-len(axes) :]
    places = [window_places(size, axis) for size, axis in zip(sizes, axes, strict=True)]
    planes = x.reshape(*x.shape[: -len(axes)], -1)
    best: Array | None = None
    for offsets in itertools.product(*[range(p.shape[1]) for p in places]):
        columns = np.meshgrid(
            *[p[:, k] for p, k in zip(places, offsets, strict=True)], indexing="ij"
        )
        inside = np.all([column >= 0 for column in columns], axis=0)
        index = np.ravel_multi_index([np.maximum(column, 0) for column in columns], sizes)
        value = np.where(inside, planes[..., index], -np.inf)
        if best is None:
            best, chosen = value, np.broadcast_to(index, value.shape).copy()
            seen = np.broadcast_to(inside, value.shape).copy()
            continue
        better = inside & ((value > best) | ~seen)
        best, chosen, seen = (
            np.where(better, value, best),
            np.where(better, index, chosen),
            seen | inside,
        )
    return np.asarray(chosen, np.int64)


def pool_axes(sizes: Sequence[int], settings: Settings) -> list[dict[str, int]]:
    """`axes` of a pool's settings, as the choice needs them, from numbers or lists per axis.

    `settings`: kernel, stride, padding, dilation, ceil_mode; or `size` of an adaptive pool. The
    output sizes are PyTorch's: with ceil_mode, a window must start inside the input or its left
    padding.
    """
    if "size" in settings:
        wanted = per_axis(settings["size"], len(sizes))
        return [
            {"out": size if out is None else out} for size, out in zip(sizes, wanted, strict=True)
        ]
    names = ("kernel", "stride", "padding", "dilation")
    axes = []
    for number, size in enumerate(sizes):
        axis = {name: int(per_axis(settings[name], len(sizes))[number]) for name in names}
        reach = size + 2 * axis["padding"] - axis["dilation"] * (axis["kernel"] - 1) - 1
        out = reach // axis["stride"] + 1
        if settings.get("ceil_mode"):
            out = -(-reach // axis["stride"]) + 1
            out -= (out - 1) * axis["stride"] >= size + axis["padding"]
        axes.append({**axis, "out": out})
    return axes


def per_axis(value: Any, count: int) -> list[Any]:
    """One value for each axis, from one value or from a value per axis."""
    values = list(value) if isinstance(value, (tuple, list)) else [value] * count
    return values * count if len(values) == 1 and count > 1 else values
