"""Verdicts that need more than one row: choices between ties, and noise that float64 confirms."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from parity.comparison.measure import ROUNDOFF
from parity.comparison.ties import CHOICES
from parity.comparison.verdict import Row, Verdict
from parity.comparison.zeros import NOISE_LIMIT, UNMOVED, ZERO

BEHIND_TIES = "behind a tie: after a different choice, taps cannot be compared"
HALF = float(ROUNDOFF["float32"]) ** 0.5  # half of the digits
SAME_UNITS = 8.0  # two errors of one rounding differ by less: 1.1 to 2.5 in 17 batch norms
SMALL = 0.1  # a float64 error of this part of the float32 error does not explain it
NOISY = "the baseline's noise is too large to tell"
CONFIRMED = "the other precision agrees"
JUST_ABOVE = "just above the bound; variants of the candidate would tell noise from a fault"
OWN_NOISE = "the candidate's own variants are as far apart; float64 would tell noise from a fault"
LARGE_NOISE = "the candidate's own variants are as far apart, but half of the digits are gone"
FEW_NUMBERS = "the candidate's own variants are as far apart, but of so few numbers that is chance"
BY_CHANCE = "above the bound by no more than chance; more recordings of so few numbers would tell"
OPEN = (
    BY_CHANCE,
    FEW_NUMBERS,
    JUST_ABOVE,
    OWN_NOISE,
    LARGE_NOISE,
    "",
)  # reasons of an error above its bound


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
                row = replace(row, verdict=verdict, error=error, reason=reason, scores=scores)
        judged.append(row)
    return judged


def settle_precision(rows: Sequence[Row]) -> list[Row]:
    """Rows of one pair in two precisions.

    Noise is `less precise` where float64 agrees, or differs by so little that it cannot explain the
    float32 error: by a float32 constant, for example.

    An error is rounding as well if it has the same size in both precisions, counted in units of
    their roundoff (`is_rounding`): a variance as E[x²] - E[x]² is some fifty units off in each. The
    error of another function has the same size in numbers, which are 5e8 times as many units in
    float64. A float64 error that float32 would allow, in units, is noise (`is_noise`). So is one
    that too few recordings leave open, if float32 is right (`is_answered`). And a float32 error
    within its bound is rounding if float64 agrees, where the baseline's noise is too large to tell.

    Where float32 has too much noise to judge, so has float64, if its error is no more units than
    float32's bound (`is_unclear`): a layer norm of numbers that are nearly equal, for example.

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
    short = {row.place: row for row in rows if row.precision == "float32"}
    settled = []
    for row in rows:
        other = exact.get(row.place)
        partner = other if row.precision == "float32" else short.get(row.place)
        agree = other and other.verdict == "equivalent"
        if other and own_noise(row, other):
            text = "agree" if agree else f"are {other.error:.1e} apart"
            reason = f"rounding, {row.ratio:.2g} times the bound; in float64 the two {text}"
            row = replace(row, verdict="less precise", reason=reason)
        elif partner and is_noise(row, partner):
            row = replace(row, verdict="equivalent", reason=partner.reason)
        elif partner and is_unclear(row, partner):
            row = replace(row, verdict="undecided", reason=NOISY)
        elif partner and is_answered(row, partner):
            row = replace(row, verdict="equivalent", reason=CONFIRMED)
        elif partner and is_rounding(row, partner):
            reason = f"rounding, {row.ratio:.2g} times the bound; in {partner.precision} the error "
            reason += f"is {units(partner):.0f} roundoffs, here {units(row):.0f}"
            row = replace(row, verdict="less precise", reason=reason)
        elif row.precision == "float64" and row.reason == UNMOVED and row.place in moving:
            row = replace(row, verdict="equivalent", reason="")
        settled.append(row)
    return settle_choices(settled)


def own_noise(row: Row, exact: Row) -> bool:
    """Whether a float32 error that the candidate's variants have as well is rounding.

    The float64 rows must agree. If half of the digits are there, they may also differ by far less.
    """
    agree = exact.verdict == "equivalent"
    if row.reason == LARGE_NOISE:
        return agree and row.error <= NOISE_LIMIT
    return row.reason == OWN_NOISE and (agree or exact.error <= SMALL * row.error)


def settle_choices(rows: Sequence[Row]) -> list[Row]:
    """Rows of ties whose scores were above their bound, by the last word on these scores.

    If the scores are rounding after all, so is a choice between ties.
    """
    verdicts = {(r.case, r.pair, r.precision, f"{r.stage}/{r.tap}"): r.verdict for r in rows}
    settled = []
    for row in rows:
        verdict = verdicts.get((row.case, row.pair, row.precision, row.scores))
        if row.scores and verdict in ("equivalent", "vacuous", "less precise"):
            ties = row.reason.partition(", but ")[0]
            if verdict == "less precise":
                ties += f", and {row.scores.partition('/')[2]} are less precise"
            final: Verdict = "less precise" if verdict == "less precise" else "equivalent"
            row = replace(row, verdict=final, error=0.0, reason=ties)
        settled.append(row)
    return settled


def is_noise(row: Row, short: Row) -> bool:
    """Whether a float64 error above its bound is noise, as the equivalent float32 row shows.

    It is no more units than float32's bound allows. What is zero by structure in float32 is so in
    float64, if the baseline's float64 numbers are noise as well; the error is relative to them.
    """
    if row.verdict not in ("different", "undecided") or short.verdict != "equivalent":
        return False
    if row.precision != "float64" or row.reason not in (*OPEN, NOISY):
        return False
    if short.reason == ZERO:
        return row.noise_floor > NOISE_LIMIT and row.error <= SAME_UNITS
    allowed = min(short.bound / float(ROUNDOFF[short.precision]), 1 / HALF)
    return not short.reason and row.error > row.bound > 0 and units(row) <= allowed


def is_unclear(row: Row, short: Row) -> bool:
    """Whether a float64 difference may be noise, since float32 has as much of it, in units."""
    if row.verdict != "different" or row.precision != "float64" or row.reason not in OPEN:
        return False
    noisy = short.noise_floor > HALF and short.verdict in ("equivalent", "undecided")
    noisy = noisy and short.reason in ("", NOISY)
    half = row.error <= float(ROUNDOFF[row.precision]) ** 0.5
    return noisy and half and units(row) <= short.bound / float(ROUNDOFF[short.precision])


def units(row: Row) -> float:
    """The error of a row, in units of its precision's roundoff."""
    return row.error / float(ROUNDOFF[row.precision])


def is_answered(row: Row, partner: Row) -> bool:
    """Whether the other precision answers what is open.

    A float64 error, since few recordings measured its noise: it is rounding if float32 is
    equivalent there, by as many units. A float32 error within its bound, since the baseline's noise
    is large: it is noise as well if float64, which has far less, is equivalent.
    """
    if row.reason == NOISY and row.bound <= NOISE_LIMIT and row.precision == "float32":
        return partner.verdict == "equivalent"
    is_open = row.precision == "float64" and row.reason == BY_CHANCE
    return is_open and partner.verdict == "equivalent" and is_rounding(row, partner)


def is_rounding(row: Row, partner: Row) -> bool:
    """Whether an error above its bound is rounding, as the row in the other precision shows.

    Each precision must keep half of its digits, and the two errors must be of one size in units. If
    float32 is off by many more units, it computes something that float64 does not.
    """
    above = row.verdict in ("different", "undecided") and row.error > row.bound > 0
    if not above or row.reason not in OPEN or row.precision not in ("float32", "float64"):
        return False
    half = all(each.error <= float(ROUNDOFF[each.precision]) ** 0.5 for each in (row, partner))
    return half and units(row) / SAME_UNITS <= units(partner) <= SAME_UNITS * units(row)
