"""Numbers as text for tables of reports."""

import math
from typing import Any

NONE = "–"  # the text for a missing number


def number(value: float | None, form: str = ".3g", unit: float = 1) -> str:
    """A number in units of `unit`; a dash if it is missing or not finite."""
    return NONE if value is None or not math.isfinite(value) else f"{value / unit:{form}}"


def percent(fraction: float | None) -> str:
    """A fraction in percent, with two decimals."""
    return number(fraction, ".2f", 0.01)


def duration(seconds: float | None) -> str:
    """Hours, minutes and seconds, such as 1:02:05."""
    if seconds is None:
        return NONE
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def cell(value: Any) -> str:
    """A fact as text: floats with three digits, a dash for none."""
    if value is None:
        return NONE
    return f"{value:.3g}" if isinstance(value, float) else str(value)
