"""Ties: choices of parts or classes may differ where scores are closer than their noise."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from parity.comparison.measure import Gap
from parity.comparison.sketch import Array
from parity.comparison.trace import Trace
from parity.comparison.verdict import Evidence, Row

# Taps of choices: the tap of the scores in the same stage, and what the first choice is called
CHOICES = {"part_index": ("part_scores", 1), "prediction": ("logits", 0)}


def with_ties(name: str, row: Row, evidence: Evidence, between: Gap) -> Row:
    """Integers that differ: choices may where the scores are closer than their noise.

    Scores are looked for in the same stage: `part_scores` for `part_index`, `logits` for
    `prediction`.
    """
    if row.tap not in CHOICES:
        return replace(row, reason=between.reason)
    score, start = CHOICES[row.tap]
    reference = evidence.reference or evidence.baseline
    traces = (evidence.baseline, evidence.candidate, reference)
    scores = [whole(trace, f"{row.stage}/{score}") for trace in traces]
    arrays = [array for array in scores if array is not None]
    index = [array for t in traces if (array := whole(t, name)) is not None]
    # without a place where they differ, they differ in shape or type
    if between.index is None or len(arrays) < 3 or len(index) < 3:
        return replace(row, reason=between.reason)
    if {x.shape[:-1] for x in arrays} != {index[0].shape} or len({x.shape for x in arrays}) > 1:
        return replace(row, reason=f"{between.reason}, and {score} do not fit")
    ties = find_ties(index, arrays, start)
    if all(tie["margin"] <= tie["noise"] for tie in ties):
        return replace(row, verdict="equivalent", error=0.0, ties=ties, reason=f"{len(ties)} ties")
    return replace(row, ties=ties, reason=between.reason)


def whole(trace: Trace, name: str) -> Array | None:
    """A tap that is there and is no sketch."""
    tap = trace.taps.get(name)
    return tap if isinstance(tap, np.ndarray) else None


def find_ties(
    index: Sequence[Array], scores: Sequence[Array], start: int
) -> tuple[dict[str, Any], ...]:
    """Where two traces chose differently: the margin of the choice and the noise of the scores.

    `index` (B, K) or (B,), counted from `start`, and `scores` with one more axis, of the first
    trace, the candidate and the reference; the margin is the reference's difference between the two
    choices, and the noise twice the sum of both traces' largest errors in that row
    (whether these are too large, the scores' own verdict says, `judge.settle_ties`).
    """
    first, candidate = index[:2]
    ties = []
    for place in np.argwhere(first != candidate):
        at = tuple(int(i) for i in place)
        one, two = int(first[at]) - start, int(candidate[at]) - start
        rows = [np.asarray(s[at], np.float64) for s in scores]
        inside = 0 <= two < rows[2].size and 0 <= one < rows[2].size
        errors = [float(np.abs(row - rows[2]).max()) for row in rows[:2]]
        ties.append(
            {
                "image": at[0],
                "head": at[1] if len(at) > 1 else None,
                "baseline": one + start,
                "candidate": two + start,
                "margin": abs(float(rows[2][one] - rows[2][two])) if inside else np.inf,
                "noise": 2 * sum(errors),
            }
        )
    return tuple(ties)
