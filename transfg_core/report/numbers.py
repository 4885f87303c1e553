"""Numbers as text for tables of reports."""

import math

NONE = "–"  # the text for a missing number


def number(value: float | None, form: str = ".3g", unit: float = 1) -> str:
    """A number in units of `unit`; a dash if it is missing or not finite."""
    return NONE if value is None or not math.isfinite(value) else f"{value / unit:{form}}"


def percent(fraction: float | None) -> str:
    """A fraction in percent, with two decimals."""
    return number(fraction, ".2f", 0.01)
