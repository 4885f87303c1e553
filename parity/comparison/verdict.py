"""The verdicts, the row of a tap, and the evidence that a pair of traces is judged by.

equivalent    as near to float64 as the baseline's own noise explains
vacuous       equal, but no fault could have changed this tap: it is no evidence
less precise  further off, by rounding: float64 shows the same function
undecided     this evidence cannot tell
different     another function
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from parity.comparison.trace import Trace

Verdict = Literal["equivalent", "vacuous", "less precise", "undecided", "different"]
SEVERITY: dict[Verdict, int] = {
    "vacuous": -1,
    "equivalent": 0,
    "less precise": 1,
    "undecided": 2,
    "different": 3,
}
EXACT = ("parameters", "loading")  # stages that compute nothing: bits must be equal
EXIT_CODES: dict[Verdict, int] = {
    "equivalent": 0,
    "different": 1,
    "undecided": 2,
    "vacuous": 2,
    "less precise": 3,
}


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """The most severe of many verdicts; `undecided` if there is none.

    Vacuous taps count only if all are vacuous.
    """
    return max(verdicts, key=SEVERITY.__getitem__, default="undecided")


@dataclass(frozen=True)
class Row:
    """The verdict on one tap.

    Errors, noise floor and bound are relative L2 distances to the float64 reference, or to the
    baseline if there is no reference.
    """

    case: str
    stage: str
    tap: str
    precision: str
    pair: str
    verdict: Verdict
    error: float  # of the candidate
    baseline_error: float  # of the baseline
    noise_floor: float  # largest error of the baseline and its variants
    bound: float
    candidate_noise: float  # largest error of the candidate's variants
    pair_error: float  # of the candidate to the baseline
    reason: str = ""
    index: tuple[int, ...] | None = None  # of the element with the largest difference
    values: tuple[float, float] | None = None  # of that element: candidate, baseline
    bias: float = 0.0
    ulps: float = 0.0
    ties: tuple[dict[str, Any], ...] = ()
    scores: str = ""  # the tap that a choice was made from, if its verdict decided this one

    @property
    def place(self) -> tuple[str, str, str, str]:
        """What the row is about, apart from its precision."""
        return (self.pair, self.case, self.stage, self.tap)

    @property
    def ratio(self) -> float:
        """Error divided by bound; above 1 the tap fails."""
        if self.error == 0:
            return 0.0
        return self.error / self.bound if self.bound else np.inf

    def record(self) -> dict[str, Any]:
        """The row as JSON holds it."""
        return asdict(self) | {"ratio": self.ratio}


@dataclass(frozen=True)
class OneSided:
    """Taps (`stage/tap`) that only one trace of a pair has. They have no verdict.

    A candidate's tap has the name that it is compared under (`align_traces`).
    """

    baseline: tuple[str, ...] = ()
    candidate: tuple[str, ...] = ()
    counters: tuple[str, ...] = ()  # names of either list that are whole numbers of the state

    def without(self, names: Collection[str]) -> "OneSided":
        """The lists without some names."""
        lists = (self.baseline, self.candidate, self.counters)
        return OneSided(*(tuple(n for n in own if n not in names) for own in lists))

    def __add__(self, other: "OneSided") -> "OneSided":
        """Both lists, every name once."""
        baseline = dict.fromkeys([*self.baseline, *other.baseline])
        candidate = dict.fromkeys([*self.candidate, *other.candidate])
        counters = dict.fromkeys([*self.counters, *other.counters])
        return OneSided(tuple(baseline), tuple(candidate), tuple(counters))


@dataclass(frozen=True)
class Comparison:
    """The verdicts on a pair of traces, and the taps that only one of them has."""

    rows: list[Row]
    one_sided: OneSided
    pairs: "tuple[Evidence, ...]" = ()  # that the rows were judged by
    found: Any = None  # how names and layouts fit together, `matching.named.Found`

    @property
    def verdict(self) -> Verdict:
        """The most severe verdict on a row."""
        return worst([row.verdict for row in self.rows])


@dataclass(frozen=True)
class Evidence:
    """A pair of traces and the traces that it is judged by."""

    baseline: Trace
    candidate: Trace
    reference: Trace | None = None  # the baseline's function in float64
    baseline_variants: Sequence[Trace] = ()
    candidate_variants: Sequence[Trace] = ()
    siblings: Mapping[str, str] = field(default_factory=dict)  # see `structural_zero`
    # pairs of recordings of one producer that differ by noise alone (`within_branches`)
    baseline_scatter: Sequence[tuple[Trace, Trace]] = ()
    candidate_scatter: Sequence[tuple[Trace, Trace]] = ()

    def all(self) -> list[Trace]:
        """Every trace, the pair first."""
        references = [self.reference] if self.reference else []
        return [
            self.baseline,
            self.candidate,
            *references,
            *self.baseline_variants,
            *self.candidate_variants,
        ]
