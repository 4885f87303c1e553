"""Two arrays to be compared, and the rule that accepts a hypothesis about them.

A hypothesis is named only if it reproduces B far better than A does. Let r be the distance from B
to the hypothesis, and d the distance from B to A, both relative to |A|:

    r <= d / 5   and   r <= 10 · noise, or r <= d / 1000 where enough numbers are left unfitted

The first bound is for faults near the noise (an epsilon). The last is for inputs whose noise was
amplified. For a chance hit, an unrelated array must agree to three digits in at least MANY places,
or to all its digits in fewer. Below MANY places only known constants are accepted, not fitted ones.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

NOISE = {"float16": 1e-3, "float32": 3e-7, "float64": 1e-12}  # relative L2 of a right result
NEARER, FAR_NEARER, MANY = 5.0, 1e3, 8


class Made(Protocol):
    """How a tap was made: the operation, the taps that it reads, and its parameters.

    `axes` names the axes by letters, with a space between; it may be empty.
    """

    @property
    def axes(self) -> str: ...

    @property
    def operation(self) -> str: ...

    @property
    def reads(self) -> tuple[str, ...]: ...

    @property
    def params(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Cause:
    """A likely cause. `residual`: the part of B that it leaves unexplained, relative to |A|.
    `fitted`: how many numbers were taken from B to make it fit; fewer is stronger evidence."""

    code: str
    text: str
    residual: float
    fitted: int = 0


@dataclass(frozen=True)
class Context:
    """What is known of A's computation; every field is optional.

    `taps` holds activations and gradients by tap name, also `images` and `labels`. `params` holds
    the weights before the update. `made_by` says how each tap was made, `axes` what the letters of
    its axes mean. `sequence` is this tap after each update, `position` the index of `expected` in
    it. `noise` is the relative error of a right result, if it was measured.
    """

    taps: Mapping[str, Array] = field(default_factory=dict)
    params: Mapping[str, Array] = field(default_factory=dict)
    made_by: Mapping[str, Made] = field(default_factory=dict)
    axes: Mapping[str, str] = field(default_factory=dict)
    sequence: Sequence[Array] = ()
    position: int | None = None
    noise: float | None = None
    heads: int | None = None
    width: int | None = None
    batch: int | None = None
    classes: int | None = None
    dropout: float | None = None
    momentum: float | None = None
    lr: float | None = None
    weight_decay: float | None = None
    clip: float | None = None
    accumulation: int | None = None

    def clip_factor(self) -> float | None:
        """The factor of clipping on the gradients: clip / (norm + 1e-6), at most 1."""
        if self.clip is None or "grad_norm" not in self.taps:
            return None
        return min(1.0, self.clip / (float(self.taps["grad_norm"]) + 1e-6))


@dataclass(frozen=True)
class Pair:
    """B and A in float64, and how far apart they are.

    `images` and `channels` are the indices on axes 0 and 1 that both hold, of a tap that was cut.
    """

    found: Array
    expected: Array
    noise: float
    tap: str = ""
    images: Array | slice = field(default_factory=lambda: slice(None))
    channels: Array | slice = field(default_factory=lambda: slice(None))

    @property
    def same_shape(self) -> bool:
        """Whether both have the same shape, so that elements correspond."""
        return self.found.shape == self.expected.shape

    @property
    def size(self) -> float:
        """The norm that residuals are relative to: |A|, or |B| if the shapes differ."""
        return float(np.linalg.norm(self.expected if self.same_shape else self.found))

    @property
    def distance(self) -> float:
        """|B - A| / |A|; 1 if the shapes differ, since then A explains nothing of B."""
        return self.residual(self.expected) if self.same_shape else 1.0

    @property
    def limit(self) -> float:
        """The largest residual that noise can leave; where B is larger than A, B's noise counts."""
        return 10 * self.noise * max(1.0, float(np.linalg.norm(self.found)) / self.size)

    def residual(self, hypothesis: Array) -> float:
        """|B - hypothesis| / |A|."""
        return float(np.linalg.norm(self.found - hypothesis)) / self.size

    def cause(self, code: str, text: str, hypothesis: Array, fitted: int = 0) -> Iterator[Cause]:
        """The cause, if the hypothesis has B's shape and reproduces it."""
        if hypothesis.shape != self.found.shape or not np.isfinite(hypothesis).all():
            return
        residual, limit = self.residual(hypothesis), self.limit
        if hypothesis.size - fitted >= MANY:
            limit = max(limit, self.distance / FAR_NEARER)
        if residual <= min(limit, self.distance / NEARER):
            yield Cause(code, text, residual, fitted)


def noise_of(*arrays: Array) -> float:
    """The error to expect of the coarsest floating type; integers have none."""
    return max((NOISE.get(array.dtype.name, 0.0) for array in arrays), default=0.0)


def as_pair(found: Array, expected: Array, context: Context, tap: str = "") -> Pair | None:
    """Both in float64; None if they agree to the noise, if B is empty or if A is all zeros.

    Elements that are not finite in both arrays count as zero.
    """
    found, expected = np.asarray(found), np.asarray(expected)
    noise = noise_of(found, expected)
    if context.noise is not None and noise > 0:
        noise = context.noise
    a, b = (np.nan_to_num(x.astype(np.float64), posinf=0, neginf=0) for x in (found, expected))
    pair = Pair(a, b, noise, tap)
    if not a.size or not b.any() or (pair.same_shape and pair.distance <= 10 * noise):
        return None
    return pair


def ranked(causes: list[Cause], noise: float) -> list[Cause]:
    """Sorted by residual. Residuals within the noise rank equal: then `as defined` comes first, and
    fewer fitted numbers before more."""
    return sorted(
        causes,
        key=lambda cause: (
            max(cause.residual, 10 * noise),
            cause.code != "as defined",
            cause.fitted,
            cause.residual,
        ),
    )
