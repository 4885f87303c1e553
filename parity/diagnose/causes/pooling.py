"""Results of known mistakes in max pools, mean pools and adaptive pools.

One function for each operation, as `hypothesis.py` describes; the settings are the manifest's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np

from parity.diagnose.causes.facts import Operation, input_of, operation_of
from parity.diagnose.causes.hypothesis import Hypothesis
from parity.diagnose.causes.pair import Array, Context, Pair

Window = tuple[int, ...]  # the positions of one window on one axis; -1 is a place of the border


@dataclass(frozen=True)
class Pool:
    """The settings of a pool, one number per axis of the image."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil_mode: bool = False
    count_include_pad: bool = True

    def same(self, name: str, value: int) -> "Pool":
        """With one setting the same number on all axes."""
        changed: dict[str, Any] = {name: (value,) * len(self.kernel)}
        return replace(self, **changed)


def settings_of(made: Operation, axes: int) -> Pool:
    """The settings as the manifest has them."""
    kernel = tuple(made.numbers("kernel", axes, 1))
    given = made.settings.get("stride")
    stride = tuple(made.numbers("stride", axes, 1)) if given else kernel
    padding, dilation = (
        tuple(made.numbers(n, axes, v)) for n, v in (("padding", 0), ("dilation", 1))
    )
    ceil_mode = bool(made.settings.get("ceil_mode", False))
    include = bool(made.settings.get("count_include_pad", True))
    return Pool(kernel, stride, padding, dilation, ceil_mode, include)


def windows(size: int, pool: Pool, axis: int, ceil_mode: bool | None = None) -> list[Window]:
    """The windows of one axis, as PyTorch defines them; the border's places are -1.

    With `ceil_mode`, the last window may reach beyond the border, but must start before it
    (pooling_output_shape in ATen/native/Pool.h).
    """
    kernel, stride, border = pool.kernel[axis], pool.stride[axis], pool.padding[axis]
    step = pool.dilation[axis]
    up = pool.ceil_mode if ceil_mode is None else ceil_mode
    room = size + 2 * border - step * (kernel - 1) - 1
    count = (room + (stride - 1 if up else 0)) // stride + 1
    if up and (count - 1) * stride >= size + border:
        count -= 1
    result = []
    for number in range(max(count, 0)):
        first = number * stride - border
        places = (first + step * k for k in range(kernel))
        inside = [place for place in places if place < size + border]
        result.append(tuple(place if 0 <= place < size else -1 for place in inside))
    return result


def adaptive(size: int, count: int) -> list[Window]:
    """The windows of an adaptive pool: from floor(i n / m) to ceil((i + 1) n / m)."""
    return [tuple(range(i * size // count, -(-(i + 1) * size // count))) for i in range(count)]


def uniform(size: int, count: int) -> list[Window]:
    """Windows of one size: stride floor(n / m), and a kernel that ends at the last place."""
    stride = size // count
    kernel = size - (count - 1) * stride
    return [tuple(range(i * stride, i * stride + kernel)) for i in range(count)]


def reduced(x: Array, axes: Sequence[list[Window]], how: str) -> Array:
    """The pool of x (B, C, ...) over windows of each axis, one axis after another.

    how: `max` (the border never counts), `max of zeros` (the border is zero), `sum`.
    """
    outside = -np.inf if how == "max" else 0.0
    combine = np.add if how == "sum" else np.maximum
    for axis, members in enumerate(axes):
        moved = np.moveaxis(x, axis + 2, 0)
        padded = np.concatenate([moved, np.full_like(moved[:1], outside)])  # -1: the border
        lines = [reduce(combine, [padded[place] for place in window]) for window in members]
        x = np.moveaxis(np.stack(lines), 0, axis + 2)
    return x


def sizes(axes: Sequence[list[Window]], border: bool) -> Array:
    """How many places each window has, with the border or without: (h, w)."""
    lines = [
        np.array([sum(place >= 0 or border for place in window) for window in members], float)
        for members in axes
    ]
    return reduce(np.multiply.outer, lines)


def mean(x: Array, axes: Sequence[list[Window]], border: bool = False) -> Array:
    """The mean of each window; places of the border count as zeros if `border`, else not."""
    return np.asarray(reduced(x, axes, "sum") / sizes(axes, border))


def usable(axes: Sequence[list[Window]]) -> bool:
    """Whether every axis has a window, and each window a place inside."""
    return all(members and all(max(w, default=-1) >= 0 for w in members) for members in axes)


def pooled(x: Array, pool: Pool, how: str, given: bool | None = None) -> Array:
    """The pool `how` (max, mean, ...) of x; of no size if the settings do not fit."""
    axes = [windows(size, pool, axis, given) for axis, size in enumerate(x.shape[2:])]
    if not usable(axes):
        return np.zeros(0)
    if how == "mean":
        return mean(x, axes, pool.count_include_pad)
    return reduced(x, axes, how)


def pool(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """A max pool or a mean pool of (B, C, ...)."""
    made = operation_of(tap, context)
    x = input_of(tap, context, pair)[:, pair.channels]
    settings = settings_of(made, x.ndim - 2)
    how, other = ("max", "mean") if made.operation.startswith("max") else ("mean", "max")
    yield Hypothesis("as defined", f"the {how} pool as defined gives B", pooled(x, settings, how))
    if how == "mean" and any(settings.padding):
        words = "counts" if not settings.count_include_pad else "does not count"
        flipped = replace(settings, count_include_pad=not settings.count_include_pad)
        text = f"the border {words} in the mean: count_include_pad is {flipped.count_include_pad}"
        yield Hypothesis("count_include_pad", text, pooled(x, flipped, how))
    flipped = replace(settings, ceil_mode=not settings.ceil_mode)
    text = f"ceil_mode is {flipped.ceil_mode} instead of {settings.ceil_mode}"
    yield Hypothesis("ceil_mode", text, pooled(x, flipped, how))
    if how == "mean" and settings.ceil_mode:
        whole = [windows(n, settings, axis) for axis, n in enumerate(x.shape[2:])]
        value = reduced(x, whole, "sum") / np.prod(settings.kernel)
        text = "windows that ceil_mode cuts are divided by the size of a whole window"
        yield Hypothesis("ceil_mode", text, value)
    if how == "max" and any(settings.padding):
        text = "the border of the max pool is zero and counts"
        yield Hypothesis("padding", text, pooled(x, settings, "max of zeros"))
    for name, values in (
        ("padding", (0, 1)),
        ("kernel", (2, 3)),
        ("stride", (1, 2)),
        ("dilation", (1, 2)),
    ):
        right = getattr(settings, name)
        for number in values:
            if right != (number,) * len(right):
                wrong = settings.same(name, number)
                text = f"{name} {number} instead of {right[0]} in the {how} pool"
                yield Hypothesis(name, text, pooled(x, wrong, how))
    text = f"the {other} of each window, not the {how}"
    yield Hypothesis("pooling", text, pooled(x, settings, other))


def adaptive_pool(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """An adaptive max pool or mean pool of (B, C, ...) to a given size."""
    made = operation_of(tap, context)
    x = input_of(tap, context, pair)[:, pair.channels]
    counts = pair.expected.shape[2:]
    if len(counts) != x.ndim - 2 or not all(counts):
        return
    how, other = ("max", "mean") if "max" in made.operation else ("mean", "max")

    def result(axes: Sequence[list[Window]], how: str = how) -> Array:
        if not usable(axes):
            return np.zeros(0)
        return mean(x, axes) if how == "mean" else reduced(x, axes, how)

    each = list(zip(x.shape[2:], counts, strict=True))
    right = [adaptive(n, m) for n, m in each]
    yield Hypothesis("as defined", "the adaptive pool as defined gives B", result(right))
    if all(n >= m for n, m in each):
        text = "the windows of the adaptive pool have one size: stride floor(n / m)"
        yield Hypothesis("adaptive windows", text, result([uniform(n, m) for n, m in each]))
        text = "the windows of the adaptive pool have one size, and the last places are left out"
        kernels = [(n // m, m) for n, m in each]
        equal = [[tuple(range(i * k, (i + 1) * k)) for i in range(m)] for k, m in kernels]
        yield Hypothesis("adaptive windows", text, result(equal))
        text = "the windows of the adaptive pool have one size: ceil(n / m), clipped at the end"
        steps = [(n, -(-n // m), m) for n, m in each]
        clipped = [
            [tuple(range(i * s, min((i + 1) * s, n))) for i in range(m)] for n, s, m in steps
        ]
        yield Hypothesis("adaptive windows", text, result(clipped))
    yield Hypothesis("pooling", f"the {other} of each window, not the {how}", result(right, other))
    if how == "mean":
        text = "the sum of each window, not the mean"
        yield Hypothesis("pooling", text, reduced(x, right, "sum"))
