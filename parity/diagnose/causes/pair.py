"""Two arrays to be related, and the rule by which a hypothesis about them is accepted.

A relation is named only if it reproduces B far better than A does. With r the distance of B to
what the relation makes of A, and d its distance to A itself, both relative to |A|:

    r <= d / 5   and   r <= 10 · noise, or r <= d / 1000 where enough numbers are left unfitted

The first bound is for faults near the noise (an epsilon), the last for inputs that differ by noise
and have been amplified. A chance hit needs an unrelated array to agree to three digits in at least
MANY places, or to all its digits in fewer. Below MANY no fitted constant is accepted but a known
one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transfg_core.models.rows import Tap

Array = NDArray[Any]

NOISE = {"float16": 1e-3, "float32": 3e-7, "float64": 1e-12}  # relative L2 of a right result
NEARER, FAR_NEARER, MANY = 5.0, 1e3, 8


@dataclass(frozen=True)
class Cause:
    """A likely cause. `residual`: what it leaves unexplained of B, relative to |A|; `fitted`: how
    many numbers were taken from B to make it fit, the fewer the stronger the evidence."""

    code: str
    text: str
    residual: float
    fitted: int = 0


@dataclass(frozen=True)
class Context:
    """What is known of the computation; everything may be left out. All of it is A's.

    `taps` holds activations and gradients by tap name, and `images` and `labels`; `params` the
    weights before the update. `made_by` is the architecture's table of taps, `axes` the names of
    its letters. `sequence` is this tap after each update, `position` the place of `expected` in
    it. `noise` is the relative error of a right result, if it has been measured.
    """

    taps: Mapping[str, Array] = field(default_factory=dict)
    params: Mapping[str, Array] = field(default_factory=dict)
    made_by: Mapping[str, Tap] = field(default_factory=dict)
    axes: Mapping[str, str] = field(default_factory=dict)
    sequence: Sequence[Array] = ()
    position: int | None = None
    noise: float | None = None
    heads: int | None = None
    width: int | None = None
    batch: int | None = None
    classes: int | None = None
    margin: float | None = None
    smoothing: float | None = None
    dropout: float | None = None
    momentum: float | None = None
    lr: float | None = None
    weight_decay: float | None = None
    clip: float | None = None
    accumulation: int | None = None

    def clip_factor(self) -> float | None:
        """What clipping multiplied the gradients by: clip / (norm + 1e-6), at most 1."""
        if self.clip is None or "grad_norm" not in self.taps:
            return None
        return min(1.0, self.clip / (float(self.taps["grad_norm"]) + 1e-6))


@dataclass(frozen=True)
class Pair:
    """B and A in float64, and how far apart they are."""

    found: Array
    expected: Array
    noise: float
    tap: str = ""

    @property
    def same_shape(self) -> bool:
        """Whether elements correspond at all."""
        return self.found.shape == self.expected.shape

    @property
    def size(self) -> float:
        """What residuals are relative to."""
        return float(np.linalg.norm(self.expected if self.same_shape else self.found))

    @property
    def distance(self) -> float:
        """|B - A| / |A|; 1 for other shapes: nothing of B is explained."""
        return self.residual(self.expected) if self.same_shape else 1.0

    @property
    def limit(self) -> float:
        """What noise can leave; B's own noise grows with B where that is larger than A."""
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
    """Both in float64, or nothing if there is nothing to explain or no number to explain it by.

    Elements that are not finite, in both alike, count as zero.
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
    """By residual; where that is noise it says nothing, and fewer fitted numbers come first."""
    return sorted(
        causes,
        key=lambda one: (
            max(one.residual, 10 * noise),
            one.code != "as defined",
            one.fitted,
            one.residual,
        ),
    )
