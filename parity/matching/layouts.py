"""The same numbers in other axes: recognised, named in words, and applied only where declared.

    found = layout_of(kernel, weight)     # Layout("(in, out)"), or None
    found.apply(kernel, weight.shape)     # equals weight

A name stands in a pair file or a names file, as `layouts: {".*kernel": "(in, out)"}`:

| name | the candidate's axes | the baseline's |
| --- | --- | --- |
| `(in, out)` | in, out (either may be split, as into heads) | out, in |
| `HWIO`, `WIO`, `DHWIO` | kernel, in, out | out, in, kernel |
| `channels last` | N, positions, C | N, C, positions |
| `channels first` | N, C, positions | N, positions, C |
| `reshape` | the same order, other axes | |
| `axes 2 0 1` | the baseline's axis 0 is the candidate's axis 2, and so on | |
| `qkv order k q v` | key, query, value in three equal parts | query, key, value |
| `qkv by head 4` | query, key, value of each of 4 heads | all queries, all keys, all values |

The last two count along the axis that holds the three: the last one of activations, and the first
one of parameters. Two names are joined by `, then`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from math import prod

import numpy as np

from parity.errors import ParityError
from parity.matching.named import Array

NEAR = 1e-3  # relative distance of computed numbers in the same layout; by chance it is about 1.4
SAME = "same"
KERNELS = {"HWIO": (3, 2, 0, 1), "WIO": (2, 1, 0), "DHWIO": (4, 3, 0, 1, 2)}
QKV_ORDER = re.compile(r"qkv order ([qkv]) ([qkv]) ([qkv])")
QKV_BY_HEAD = re.compile(r"qkv by head (\d{1,4})")
AXES = re.compile(r"axes (\d(?: \d)*)")
THEN = ", then "
MOST_HEADS = 64
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """How the candidate's axes lie, as a name of the table above."""

    name: str

    def apply(self, value: Array, shape: Shape) -> Array:
        """The candidate's array in the baseline's layout.

        Args:
            value: of any shape that the layout allows.
            shape: of the baseline's array.

        Raises:
            ParityError: the name is unknown, or the layout does not give this shape.
        """
        steps = self.name.split(THEN)
        try:
            for number, step in enumerate(steps):
                value = _apply(step, value, shape, last=number == len(steps) - 1)
        except (ValueError, IndexError) as error:
            raise ParityError(
                f"layouts: {self.name}: cannot turn shape {value.shape} into {shape}: {error}; "
                "mend the layout"
            ) from error
        if value.shape != shape:
            raise ParityError(
                f"layouts: {self.name}: expected shape {shape}, found {value.shape}; mend the "
                "layout or the names"
            )
        return value

    def shape_of(self, shape: Shape) -> Shape | None:
        """The baseline's shape of a candidate's array; None if the layout alone does not say it."""
        steps = self.name.split(THEN)
        if "reshape" in steps or ("(in, out)" in steps and len(shape) != 2):
            return None
        value = np.broadcast_to(np.float32(0), shape)
        try:
            for step in steps:
                value = _apply(step, value, shape, last=False)
        except (ValueError, IndexError):  # it does not fit, as the error says where it is applied
            return None
        return value.shape

    def undo(self, value: Array, shape: Shape) -> Array:
        """The baseline's array in the candidate's layout and shape.

        Raises:
            ParityError: the layout does not turn this shape into that of `value`.
        """
        places = self.apply(np.arange(prod(shape)).reshape(shape), value.shape)
        result = np.empty(prod(shape), value.dtype)
        result[places.reshape(-1)] = value.reshape(-1)
        return result.reshape(shape)


def _apply(step: str, value: Array, shape: Shape, last: bool) -> Array:
    if step == SAME:
        return value
    if step == "(in, out)":
        return value.T if value.ndim == 2 else value.reshape(shape[::-1]).T
    if step in KERNELS:
        value = value.transpose(KERNELS[step])
    elif step == "channels last":
        value = np.moveaxis(value, -1, 1)
    elif step == "channels first":
        value = np.moveaxis(value, 1, -1)
    elif found := AXES.fullmatch(step):
        value = value.transpose([int(axis) for axis in found.group(1).split()])
    elif found := QKV_ORDER.fullmatch(step):
        parts = dict(zip(found.groups(), np.split(value, 3, fused_axis(value)), strict=True))
        return np.concatenate([parts[part] for part in "qkv"], fused_axis(value))
    elif found := QKV_BY_HEAD.fullmatch(step):
        axis = fused_axis(value)
        rows = np.moveaxis(value, axis, 0)
        heads = rows.reshape(int(found.group(1)), 3, -1, *rows.shape[1:])
        return np.moveaxis(heads.swapaxes(0, 1).reshape(rows.shape), 0, axis)
    elif step != "reshape":
        raise ParityError(
            f"layouts: expected {', '.join(['(in, out)', *KERNELS])}, channels last, channels "
            f"first, reshape, axes 2 0 1, qkv order k q v or qkv by head 4, found {step!r}"
        )
    # positions may lie in one axis (tokens) or in two; `reshape` may do anything
    return (
        value.reshape(shape) if last and (value.ndim != len(shape) or step == "reshape") else value
    )


def fused_axis(value: Array) -> int:
    """The axis that holds query, key and value: of three in a row the longest one."""
    return 0 if value.ndim < 3 else value.ndim - 1


def check(name: str, place: str) -> Layout:
    """The layout of a declared name.

    Raises:
        ParityError: there is no such layout; the text begins with `place`.
    """
    known = {"(in, out)", "channels last", "channels first", "reshape", SAME, *KERNELS}
    for step in name.split(THEN):
        pattern = any(form.fullmatch(step) for form in (AXES, QKV_ORDER, QKV_BY_HEAD))
        if step not in known and not pattern:
            raise ParityError(
                f"{place}: layouts: expected {', '.join(sorted(known - {SAME}))}, axes 2 0 1, "
                f"qkv order k q v or qkv by head 4, found {step!r}"
            )
    return Layout(name)


def layout_of(value: Array, reference: Array, exact: bool = True) -> Layout | None:
    """The layout in which `value` has the numbers of `reference`; None if no known one fits.

    Args:
        value, reference: the candidate's and the baseline's array, of any shapes.
        exact: the numbers must be equal, as for weights; else near, as for computed numbers.
    """
    value, reference = np.asarray(value), np.asarray(reference)
    if value.size != reference.size or not value.size:
        return None
    size = float(np.linalg.norm(reference.astype(np.float64)))
    other = float(np.linalg.norm(value.astype(np.float64)))
    if not np.isfinite(size) or abs(size - other) > NEAR * size:
        return None
    for name in candidates(value.shape, reference.shape):
        try:
            turned = Layout(name).apply(value, reference.shape)
        except ParityError:
            continue
        if exact and np.array_equal(turned, reference):
            return Layout(name)
        if not exact and np.linalg.norm((turned - reference).astype(np.float64)) <= NEAR * size:
            return Layout(name)
    return None


def candidates(shape: Shape, reference: Shape) -> Iterator[str]:
    """Names of layouts that may turn one shape into the other, the usual ones first."""
    if shape == reference:
        yield SAME
    if len(reference) == 2:
        yield "(in, out)"
    yield from (name for name, axes in KERNELS.items() if len(axes) == len(shape))
    if len(shape) > 2:
        yield "channels last"
    if len(reference) > 2:
        yield "channels first"
    if shape != reference:
        yield "reshape"
    if len(shape) == len(reference) and len(shape) < 5:
        for axes in permutations(range(len(shape))):
            if tuple(shape[axis] for axis in axes) == reference:
                yield f"axes {' '.join(map(str, axes))}"
    starts = [""] if shape == reference else []
    starts += [f"(in, out){THEN}"] if shape == reference[::-1] and len(shape) == 2 else []
    for start in starts:
        for order in permutations("qkv"):
            if order != ("q", "k", "v"):
                yield f"{start}qkv order {' '.join(order)}"
        longest = reference[0] if len(reference) < 3 else reference[-1]
        for heads in range(2, MOST_HEADS + 1):
            if longest % (3 * heads) == 0:
                yield f"{start}qkv by head {heads}"


def layout_by_shape(shape: Shape, reference: Shape) -> Layout | None:
    """The usual layout that turns one shape into the other, if only one does; the numbers are not
    looked at. `(768, 64)` for `(64, 768)` is `(in, out)`; for `(64, 64)` nothing shows it."""
    if prod(shape) != prod(reference):
        return None
    found: list[tuple[str, Array]] = []
    for name in candidates(shape, reference):
        try:
            probe = Layout(name).apply(np.arange(prod(shape)).reshape(shape), reference)
        except ParityError:
            continue
        if not any(np.array_equal(probe, other) for _, other in found):
            found.append((name, probe))
    unusual = ("axes", "reshape", "qkv")
    names = [name for name, _ in found if not any(word in name for word in unusual)]
    return Layout(names[0]) if len(names) == 1 and names[0] != SAME else None
