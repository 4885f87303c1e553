"""Results of known mistakes in upsampling: another mode, other corners, another rounding.

Each axis is one matrix (m, n), so that the modes differ in their matrices alone. The coordinates
are those of PyTorch (aten/src/ATen/native/UpSample.h).
"""

from collections.abc import Iterator

import numpy as np

from parity.diagnose.causes.facts import input_of, operation_of
from parity.diagnose.causes.hypothesis import Absent, Hypothesis
from parity.diagnose.causes.pair import Array, Context, Pair

CUBIC = -0.75  # PyTorch's coefficient of the cubic kernel
MODES = ("nearest", "nearest-exact", "linear", "cubic")
LINEAR = ("linear", "bilinear", "trilinear")


def matrix(n: int, m: int, mode: str, corners: bool, scale: float | None = None) -> Array:
    """The weights of n inputs in m outputs: (m, n). `scale`: inputs per output, if given."""
    step = n / m if scale is None else scale
    at = np.arange(m, dtype=float)
    if mode == "nearest":
        place = np.floor(at * step)
    elif mode == "nearest-exact":
        place = np.floor((at + 0.5) * step)
    elif corners:
        place = at * ((n - 1) / (m - 1) if m > 1 else 0.0)
    else:
        place = (at + 0.5) * step - 0.5
    if mode.startswith("nearest"):
        return np.asarray(np.eye(n)[place.clip(0, n - 1).astype(int)])
    result = np.zeros((m, n))
    if mode == "linear":
        place = place.clip(0, None)
    low = np.floor(place).astype(int)
    for shift in (0, 1) if mode == "linear" else (-1, 0, 1, 2):
        weight = kernel(np.abs(place - low - shift), mode)
        np.add.at(result, (np.arange(m), (low + shift).clip(0, n - 1)), weight)
    return result


def kernel(distance: Array, mode: str) -> Array:
    """The weight of an input at a distance, in inputs."""
    if mode == "linear":
        return np.maximum(1 - distance, 0)
    a, d = CUBIC, distance
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * (d**3 - 5 * d**2 + 8 * d - 4)
    return np.asarray(np.where(d <= 1, near, np.where(d < 2, far, 0.0)))


def upsample(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """Resizing of (B, C, ...) to the size that A has."""
    made = operation_of(tap, context)
    x = input_of(tap, context, pair)[:, pair.channels]
    size = pair.expected.shape[2:]
    mode = str(made.settings.get("mode", "nearest"))
    mode = "linear" if mode in LINEAR else "cubic" if mode == "bicubic" else mode
    if len(size) != x.ndim - 2 or mode not in MODES:
        raise Absent("mode")
    corners = bool(made.settings.get("align_corners") or False)
    given = made.settings.get("scale")
    scales = given if isinstance(given, (list, tuple)) else [given] * len(size)

    def result(mode: str, corners: bool, use_scale: bool = False) -> Array:
        value = x
        for axis, (n, m, scale) in enumerate(zip(x.shape[2:], size, scales, strict=True)):
            step = 1 / float(scale) if use_scale and scale else None
            weights = matrix(n, m, mode, corners, step)
            value = np.moveaxis(np.tensordot(weights, value, (1, axis + 2)), 0, axis + 2)
        return value

    uses = min(
        (False, True), key=lambda use: np.linalg.norm(result(mode, corners, use) - pair.expected)
    )
    yield Hypothesis("as defined", "upsampling as defined gives B", result(mode, corners, uses))
    if not mode.startswith("nearest"):
        text = f"align_corners is {not corners} instead of {corners}"
        yield Hypothesis("align_corners", text, result(mode, not corners, uses))
    if given and any(given if isinstance(given, (list, tuple)) else [given]):
        text = (
            "the scale is that of the sizes"
            if uses
            else "the scale is the given one, not that of the sizes"
        )
        yield Hypothesis("scale", text, result(mode, corners, not uses))
    for other in MODES:
        if other != mode:
            text = f"mode {other} instead of {mode}"
            yield Hypothesis("mode", text, result(other, False))
            if not other.startswith("nearest"):
                yield Hypothesis("mode", f"{text}, with align_corners", result(other, True))
