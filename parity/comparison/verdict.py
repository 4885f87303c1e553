"""Verdicts: their three words, the row of a tap, and the evidence that a pair is judged by."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from parity.comparison.trace import Trace

Verdict = Literal["equivalent", "different", "undecided"]
SEVERITY: dict[Verdict, int] = {"equivalent": 0, "undecided": 1, "different": 2}
EXIT_CODES: dict[Verdict, int] = {"equivalent": 0, "different": 1, "undecided": 2}


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict for many; nothing compared is nothing decided."""
    return max(verdicts, key=SEVERITY.__getitem__, default="undecided")


@dataclass(frozen=True)
class Row:
    """The verdict on one tap. Errors, floor and bound are relative L2 to the float64 reference
    where there is one, else to the first trace."""

    case: str
    stage: str
    tap: str
    precision: str
    pair: str
    verdict: Verdict
    error: float  # of the candidate
    baseline_error: float  # of the first trace
    noise_floor: float  # largest of the first trace and its variants
    bound: float
    candidate_noise: float  # largest of the candidate's variants
    pair_error: float  # of the two traces
    reason: str = ""
    index: tuple[int, ...] | None = None  # of the element that is furthest apart
    values: tuple[float, float] | None = None
    bias: float = 0.0
    ulps: float = 0.0
    ties: tuple[dict[str, Any], ...] = ()

    @property
    def ratio(self) -> float:
        """Error in units of the bound: above 1 the tap fails."""
        if self.error == 0:
            return 0.0
        return self.error / self.bound if self.bound else np.inf

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self) | {"ratio": self.ratio}


@dataclass(frozen=True)
class Evidence:
    """What a pair of traces is judged by."""

    baseline: Trace
    candidate: Trace
    reference: Trace | None = None  # the first one's function in float64
    baseline_variants: Sequence[Trace] = ()
    candidate_variants: Sequence[Trace] = ()
    siblings: Mapping[str, str] = field(default_factory=dict)  # see `structural_zero`

    def all(self) -> list[Trace]:
        """Every trace, the pair first."""
        exact = [self.reference] if self.reference else []
        return [
            self.baseline,
            self.candidate,
            *exact,
            *self.baseline_variants,
            *self.candidate_variants,
        ]
