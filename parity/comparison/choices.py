"""Choices at kinks: whether each is right, and the list of ties.

A recorder stores the choice that a recording would make by itself: for a ReLU the side of each
number, for a max pool the index of the number taken. A choice that differs from the reference's is
right if the exact numbers are as near to a tie as their noise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from parity.comparison.branches import Branches
from parity.comparison.kinks import corner_margins
from parity.comparison.sketch import Array
from parity.comparison.ties import is_choice, listed, measure_ties, whole
from parity.comparison.trace import Trace
from parity.comparison.verdict import Evidence, Row

NOT_WHOLE = "the choices differ, and their input is not recorded whole"


def kink_of(name: str, evidence: Evidence) -> Mapping[str, Any]:
    """What the manifests say about a tap of choices; empty if they say nothing."""
    for trace in (evidence.baseline, evidence.candidate):
        kinks = trace.manifest.get("kinks") or {}
        if name in kinks:
            facts: Mapping[str, Any] = kinks[name]
            return facts
    return {}


def inputs_of(evidence: Evidence) -> dict[str, str]:
    """Tap of choices -> the tap that they are made from."""
    names = [name for name in evidence.baseline.taps if is_choice(name)]
    return {name: str(kink_of(name, evidence).get("input")) for name in names}


def with_found_ties(
    rows: Mapping[str, Row], evidence: Evidence, branches: Branches
) -> dict[str, Row]:
    """The rows; those of kinks that were found in the arrays list their ties."""
    result = dict(rows)
    for kink in branches.kinks:
        row = rows.get(kink.output)
        ties = branches.ties(kink, evidence) if row else []
        if row and ties and row.verdict == "equivalent":
            result[kink.output] = replace(row, ties=listed(ties), reason=f"{len(ties)} ties")
    return result


def judge_choices(name: str, row: Row, evidence: Evidence) -> Row:
    """The verdict on the choices of a pair of recordings, which have equal shapes and types.

    The candidate's choice must equal the reference's and the baseline's, or be a tie.
    """
    traces = (evidence.baseline, evidence.candidate, evidence.reference or evidence.baseline)
    facts = kink_of(name, evidence)
    choices = [_whole(trace, name) for trace in traces]
    inputs = [_whole(trace, str(facts.get("input"))) for trace in traces]
    baseline, candidate, exact = choices
    if baseline is None or candidate is None:
        return replace(row, verdict="undecided", reason=NOT_WHOLE)
    other = exact if exact is not None and exact.shape == candidate.shape else baseline
    differ = (candidate != baseline) | (candidate != other)
    if not differ.any():
        return replace(row, verdict="equivalent", error=0.0, reason="")
    if any(x is None or x.shape != inputs[0].shape for x in inputs):  # type: ignore[union-attr]
        return replace(row, verdict="undecided", reason=NOT_WHOLE)
    places = np.argwhere(differ)
    against = np.where(candidate != other, other, baseline)  # the one that the candidate is not
    sides = [array[tuple(places.T)] for array in (against, candidate)]
    arrays = [x for x in inputs if x is not None]
    ties = measure_ties(_margins(facts, arrays[2], places, sides), arrays, places, sides)
    wrong = sum(not tie.holds for tie in ties)
    row = replace(row, ties=listed(ties), reason=f"{len(ties)} ties")
    if wrong:
        reason = f"{wrong} of {len(ties)} choices that differ are no ties"
        return replace(row, verdict="different", reason=reason)
    return replace(row, verdict="equivalent", error=0.0)


def _whole(trace: Trace, name: str) -> Array | None:
    """A tap as an array of one axis or more; None if it is absent or a sketch."""
    tap = whole(trace, name)
    return None if tap is None else np.atleast_1d(tap)


def _margins(
    facts: Mapping[str, Any], exact: Array, places: Array, sides: Sequence[Array]
) -> Array:
    """The margin of each choice that differs, (P,), from the exact input."""
    if "corners" in facts and facts["corners"]:
        return corner_margins(exact[tuple(places.T)].astype(np.float64), facts["corners"], *sides)
    one, other = (_chosen(facts.get("settings") or {}, exact, places, side) for side in sides)
    with np.errstate(invalid="ignore"):
        margins = np.abs(one - other)
    return np.where(np.isnan(margins), np.inf, margins)


def _chosen(settings: Mapping[str, Any], exact: Array, places: Array, index: Array) -> Array:
    """(P,) exact numbers with these indices: along one axis, or flat in the plane of a pool.

    An index outside of the input gives infinity: it ties with nothing.
    """
    where = [places[:, axis] for axis in range(places.shape[1])]
    index = np.asarray(index, np.int64)
    if "axis" in settings:
        lines, where[settings["axis"]] = exact, index
        size = exact.shape[settings["axis"]]
    else:
        lead = exact.ndim - len(settings.get("axes", (0, 0)))
        lines = exact.reshape(*exact.shape[:lead], -1)
        where, size = [*where[:lead], index], lines.shape[-1]
    inside = (index >= 0) & (index < size)
    axis = settings["axis"] if "axis" in settings else -1
    where[axis] = np.where(inside, index, 0)
    return np.where(inside, lines[tuple(where)].astype(np.float64), np.inf)
