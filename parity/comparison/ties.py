"""Ties: choices of parts or classes may differ if the scores are closer than their noise."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from parity.comparison.measure import Gap
from parity.comparison.sketch import Array
from parity.comparison.trace import Trace
from parity.comparison.verdict import Evidence, Row

# Tap of choices -> tap of their scores in the same stage, and the number of the first choice
CHOICES = {"part_index": ("part_scores", 1), "prediction": ("logits", 0)}

CHOICES_STAGE = "choices"  # last word of the stages that hold choices at kinks (`choices.py`)
LISTED = 20  # ties that a row lists; its reason has their number


@dataclass(frozen=True)
class Tie:
    """A place where two recordings chose differently.

    It holds if the two alternatives are as near to each other as their noise: either is right.
    """

    place: tuple[int, ...]
    baseline: int
    candidate: int
    margin: float
    noise: float

    @property
    def holds(self) -> bool:
        """Whether it is a tie at all."""
        return self.margin <= self.noise

    def record(self) -> dict[str, Any]:
        """The tie as a row and JSON hold it."""
        return {
            "image": self.place[0],
            "head": self.place[1] if len(self.place) > 1 else None,
            "place": self.place,
            "baseline": self.baseline,
            "candidate": self.candidate,
            "margin": self.margin,
            "noise": self.noise,
        }


def listed(ties: Sequence[Tie]) -> tuple[dict[str, Any], ...]:
    """The first ties of a row; those that do not hold come first."""
    return tuple(tie.record() for tie in sorted(ties, key=lambda tie: tie.holds)[:LISTED])


def is_choice(name: str) -> bool:
    """Whether a tap holds choices at a kink."""
    return name.partition("/")[0].split()[-1:] == [CHOICES_STAGE]


def measure_ties(
    margins: Array, inputs: Sequence[Array], places: Array, sides: Sequence[Array]
) -> list[Tie]:
    """The choices that differ, each with its margin and its noise.

    The noise is twice the sum of both recordings' largest errors in that sample (the first axis).

    Args:
        inputs: of the baseline, of the candidate, and exact.
        places, sides: as in `Kink.margins`.
    """
    baseline, candidate, exact = (np.asarray(x, np.float64) for x in inputs)
    noise = 2 * (_largest(baseline - exact) + _largest(candidate - exact))
    return [
        Tie(tuple(int(i) for i in place), int(one), int(other), float(margin), float(limit))
        for place, one, other, margin, limit in zip(
            places, *sides, margins, noise[places[:, 0]], strict=True
        )
    ]


def _largest(error: Array) -> Array:
    """The largest absolute error of each sample."""
    largest: Array = np.abs(error).reshape(len(error), -1).max(axis=1)
    return largest


def with_ties(name: str, row: Row, evidence: Evidence, between: Gap) -> Row:
    """The verdict on integers that differ: equivalent if all of them are choices between ties.

    The scores of a choice are in the same stage: `part_scores` for `part_index`, `logits` for
    `prediction`.
    """
    if row.tap not in CHOICES:
        return replace(row, reason=between.reason)
    score_tap, start = CHOICES[row.tap]
    reference = evidence.reference or evidence.baseline
    traces = (evidence.baseline, evidence.candidate, reference)
    scores = _whole_arrays(traces, f"{row.stage}/{score_tap}")
    choices = _whole_arrays(traces, name)
    # no index of a difference: the choices differ in shape or type
    if between.index is None or len(scores) < 3 or len(choices) < 3:
        return replace(row, reason=between.reason)
    shapes = {array.shape for array in scores}
    if len(shapes) > 1 or not fits(choices[0].shape, scores[0].shape):
        return replace(row, reason=f"{between.reason}, and the shapes of {score_tap} do not fit")
    ties = find_ties(choices, scores, start)
    row = replace(row, ties=listed(ties))
    if all(tie.holds for tie in ties):
        return replace(row, verdict="equivalent", error=0.0, reason=f"{len(ties)} ties")
    return replace(row, reason=between.reason)


def whole(trace: Trace, name: str) -> Array | None:
    """A tap that the trace holds whole; None if it is absent or a sketch."""
    tap = trace.taps.get(name)
    return tap if isinstance(tap, np.ndarray) else None


def _whole_arrays(traces: Sequence[Trace], name: str) -> list[Array]:
    return [array for trace in traces if (array := whole(trace, name)) is not None]


def fits(index: tuple[int, ...], scores: tuple[int, ...]) -> bool:
    """Whether choices of this shape come from scores of that: in equal shares from their rows."""
    *outer, rows = scores[:-1]
    *same, count = index
    return same == outer and count > 0 and rows > 0 and count % rows == 0


def find_ties(index: Sequence[Array], scores: Sequence[Array], start: int) -> list[Tie]:
    """The places where two traces chose differently, with margin and noise.

    `index` (B, J k) or (B,) holds choices, counted from `start`, and `scores` (B, J, N) or (B, C):
    row after row, the k largest of each, the largest first. Both are of the baseline, the candidate
    and the reference, in this order. The margin is the difference of the reference's scores of the
    two choices. The noise is twice the sum of both traces' largest errors in that row of scores:
    the same rank has no larger difference of scores. Whether these errors are too large is decided
    by the verdict on the scores (`judge.settle_ties`).
    """
    baseline_index, candidate_index = index[:2]
    share = baseline_index.shape[-1] // scores[0].shape[-2]  # choices of each row
    ties = []
    for position in np.argwhere(baseline_index != candidate_index):
        place = tuple(int(i) for i in position)
        baseline, candidate = (int(choice[place]) - start for choice in index[:2])
        row = (*place[:-1], place[-1] // share)
        *pair_rows, exact = [np.asarray(array[row], np.float64) for array in scores]
        inside = 0 <= candidate < exact.size and 0 <= baseline < exact.size
        errors = [float(np.abs(row - exact).max()) for row in pair_rows]
        margin = abs(float(exact[baseline] - exact[candidate])) if inside else np.inf
        chosen = (baseline + start, candidate + start)
        ties.append(Tie(place, *chosen, margin=margin, noise=2 * sum(errors)))
    return ties
