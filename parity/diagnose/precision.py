"""Why a right function has fewer digits: what the numbers show of it."""

import numpy as np

from parity.comparison.measure import ROUNDOFF
from parity.comparison.verdict import Row
from parity.diagnose.causes.pair import Cause, Context

SHORT = 1e-6  # float64 that agrees to this many digits, but to no more, was float32 for a moment
LEAST = 1e-11


def why_less_precise(
    row: Row, other: Row | None, context: Context, cause: Cause | None
) -> tuple[str, str] | None:
    """Code and sentence, if a row is less precise and not another function; else None.

    `other` is the row of the same place in the other precision.
    """
    if cause and cause.code in ("one-pass", "float32 constant", "short product", "rounded"):
        return cause.code, cause.text
    if row.precision == "float64":
        agrees = other is not None and other.verdict in ("equivalent", "vacuous")
        if cause is None and agrees and LEAST <= row.error <= SHORT:
            digits = int(-np.log10(row.error))
            text = f"in float64 about {digits} digits agree, in float32 all: some number was "
            return "float32 constant", text + "float32 for a moment, such as a constant"
        return None
    if row.verdict != "less precise":
        return None
    return "rounding", f"{lost_digits(row)}: the same function in float64"


def lost_digits(row: Row) -> str:
    """How many decimal digits a row has less than the baseline, in words."""
    floor = max(row.noise_floor, row.baseline_error, float(ROUNDOFF[row.precision]))
    lost = max(0.0, float(np.log10(row.error / floor)))
    return f"more rounding, by about {lost:.1f} digits"
