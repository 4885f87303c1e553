"""Verdicts that need more than one row: choices between ties, and noise that float64 confirms."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from parity.comparison.measure import ROUNDOFF
from parity.comparison.ties import CHOICES
from parity.comparison.verdict import Row
from parity.comparison.zeros import UNMOVED, ZERO

BEHIND_TIES = "behind a tie: after a different choice, taps cannot be compared"
SMALL = 0.1  # a float64 error of this part of the float32 error does not explain it
FEWER = 8.0  # errors that are rounding in two precisions differ by this factor, in units of u
LARGEST = float(ROUNDOFF["float32"]) ** 0.5  # half of float32's digits: a larger error is no noise
OWN_NOISE = "the candidate's own variants are as far apart; float64 would tell noise from a fault"


def settle_ties(rows: Sequence[Row], inputs: Mapping[str, str] | None = None) -> list[Row]:
    """Rows whose verdicts take ties into account.

    `inputs`: a tap of choices at a kink -> the tap that the choices are made from. What follows
    such a choice is compared on one branch (`branches.py`), so it excuses nothing.

    After another tie, both choices are right, but later taps of that stage cannot be compared:
    those that differ become `undecided`. A choice is a tie only if its scores are equivalent.
    If they are `different`, so is the choice; if they are undecided, so is the choice, and it
    excuses nothing.
    """
    verdicts = {f"{row.stage}/{row.tap}": row.verdict for row in rows}
    tied: set[str] = set()
    judged = []
    for row in rows:
        if row.stage in tied and row.verdict == "different":
            row = replace(row, verdict="undecided", reason=BEHIND_TIES)
        kink = (inputs or {}).get(f"{row.stage}/{row.tap}")
        if row.ties and row.verdict == "equivalent" and (kink or row.tap in CHOICES):
            scores = kink or f"{row.stage}/{CHOICES[row.tap][0]}"
            verdict = verdicts.get(scores, "equivalent")
            if verdict in ("equivalent", "vacuous"):
                tied |= set() if kink else {row.stage}
            else:  # their error is not noise, or may not be
                error = np.inf if verdict == "different" else row.error
                reason = f"{row.reason}, but {scores.partition('/')[2]} are {verdict}"
                row = replace(row, verdict=verdict, error=error, reason=reason)
        judged.append(row)
    return judged


def settle_precision(rows: Sequence[Row]) -> list[Row]:
    """Rows of one pair in two precisions.

    Noise is `less precise` where float64 agrees, or differs by so little that it cannot explain the
    float32 error: by a float32 constant, for example.

    Rounding is a number of units u, the same in each precision; another function is not. An error
    that is as many units in float32 as in float64 is rounding: `less precise`. A float64 error that
    float32's bound allows, in units of u, is noise: `equivalent`. What float32 shows to be zero by
    structure is zero in float64 too: there, both sides have noise of a similar size.

    Float64 numbers that other weights do not change are equivalent if the float32 numbers of this
    place agree and scatter in the variants: then a fault can change both. A tap that is fixed does
    not scatter. Whether float64 numbers round to the same bits by chance depends on the processor.
    """
    exact = {row.place: row for row in rows if row.precision == "float64"}
    moving = {
        row.place
        for row in rows
        if row.precision == "float32" and row.verdict == "equivalent" and row.noise_floor > 0
    }
    near = {row.place: row for row in rows if row.precision == "float32"}
    settled = []
    for row in rows:
        other = exact.get(row.place)
        partner = near.get(row.place) if row.precision == "float64" else other
        single, double = (partner, row) if row.precision == "float64" else (row, partner)
        agree = other and other.verdict == "equivalent"
        if row.reason == OWN_NOISE and other and (agree or other.error <= SMALL * row.error):
            text = "agree" if agree else f"are {other.error:.1e} apart"
            reason = f"rounding, {row.ratio:.2g} times the bound; in float64 the two {text}"
            row = replace(row, verdict="less precise", reason=reason)
        elif row.precision == "float64" and row.reason == UNMOVED and row.place in moving:
            row = replace(row, verdict="equivalent", reason="")
        elif single and double and row.verdict in ("different", "undecided"):
            row = _by_units(row, single, double)
        settled.append(row)
    return settled


def _by_units(row: Row, single: Row, double: Row) -> Row:
    """One of two rows of a place, judged by its error in units of u in both precisions."""
    zero = single.verdict == "equivalent" and single.reason == ZERO
    if row is double and zero and row.error <= FEWER:  # its size is the reference's own noise
        return replace(row, verdict="equivalent", reason=ZERO)
    errors = [each.error / float(ROUNDOFF[each.precision]) for each in (single, double)]
    if not np.isfinite(errors).all() or min(errors) <= 0 or single.error > LARGEST:
        return row
    allowed = single.bound / float(ROUNDOFF["float32"])
    if row is double and single.verdict == "equivalent" and errors[1] <= allowed:
        return replace(row, verdict="equivalent", reason="")
    if single.verdict != "equivalent" and max(errors) <= FEWER * min(errors):
        counts = " and ".join(f"{error:.1g}" for error in errors)
        reason = f"rounding, {row.ratio:.2g} times the bound: {counts} units in both precisions"
        return replace(row, verdict="less precise", reason=reason)
    return row
