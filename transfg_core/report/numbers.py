"""Numbers as text, for the tables of every report."""

import math

NONE = "–"  # stands where there is no number


def number(value: float | None, form: str = ".3g", unit: float = 1) -> str:
    """A number in units of `unit`; a dash where there is none or it is not finite."""
    return NONE if value is None or not math.isfinite(value) else f"{value / unit:{form}}"


def percent(fraction: float | None) -> str:
    """A fraction in percent, with two digits after the point."""
    return number(fraction, ".2f", 0.01)
