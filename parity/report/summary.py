"""Counts, worst taps and sentences that all formats of a report share."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from parity.comparison.differences import load_differences
from parity.comparison.verdict import SEVERITY, Row, Verdict, worst
from parity.comparison.zeros import ZERO

ORDER: tuple[Verdict, ...] = (
    "equivalent", "different", "undecided", "less precise", "vacuous",
)  # fmt: skip
NUMBERS = ("error", "noise_floor", "bound", "ratio")
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def shown(text: object) -> str:
    """Text that every format can hold: control characters and lone surrogates are replaced."""
    string = str(text)
    if string.isprintable():
        return string
    return "".join(c if c.isprintable() or c in "\n\t" else REPLACEMENT for c in string)


def has_ratio(row: Row) -> bool:
    """Whether error over bound means anything: not for zeros, nor for bounds on elements."""
    return row.reason != ZERO and row.reason not in _bounds_of_elements()


@cache
def _bounds_of_elements() -> set[str]:
    return {entry["id"] for entry in load_differences() if "absolute" in entry.get("allow", {})}


def ratio(row: Row) -> float:
    """Error over bound; infinite for NaN, below zero if it means nothing."""
    if not has_ratio(row):
        return -1.0
    return np.inf if np.isnan(row.ratio) else row.ratio


def badness(row: Row) -> tuple[int, float]:
    """Sort key: verdict first, then ratio."""
    return SEVERITY[row.verdict], ratio(row)


def counts(rows: Iterable[Row]) -> dict[Verdict, int]:
    """The number of taps with each verdict."""
    counter = Counter(row.verdict for row in rows)
    return {verdict: counter[verdict] for verdict in ORDER}


def sentence(rows: Sequence[Row]) -> str:
    """The outcome in one sentence."""
    if not rows:
        return "undecided: no tap was compared."
    number = {verdict: count for verdict, count in counts(rows).items() if count}
    if list(number) == ["equivalent"]:
        return f"equivalent: all {len(rows)} taps are equivalent."
    parts = [f"{count} {verdict}" for verdict, count in number.items()]
    no_evidence = " Vacuous taps are no evidence." if "vacuous" in number else ""
    outcome = worst([row.verdict for row in rows])
    return f"{outcome}: {len(rows)} taps: {', '.join(parts)}.{no_evidence}"


def grouped(rows: Iterable[Row], *keys: str) -> dict[tuple[str, ...], list[Row]]:
    """Rows by the values of some fields, in the order in which the values first appear."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(getattr(row, key) for key in keys), []).append(row)
    return groups


def summaries(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One record per pair, precision and stage: its counts, verdict and worst tap."""
    result = []
    for key, members in grouped(rows, "pair", "precision", "stage").items():
        worst_row = max(members, key=badness)
        result.append(
            dict(zip(("pair", "precision", "stage"), key, strict=True))
            | {"taps": len(members), "verdict": worst_row.verdict, "counts": counts(members)}
            | {name: getattr(worst_row, name) for name in ("case", "tap", *NUMBERS, "reason")}
        )
    return result


@dataclass(frozen=True)
class Remarks:
    """What a report says beside rows and findings, in sentences for people."""

    begins: str = ""  # the first tap that has the worst verdict, and its numbers
    limits: Sequence[str] = ()  # what the recordings cannot show
    notes: Sequence[str] = ()  # of the recorders
    names: Mapping[str, str] = field(default_factory=dict)  # the candidate's tap -> the baseline's


def place_and_numbers(row: Row) -> str:
    """Where a row is, why it has its verdict, and the element that is furthest apart."""
    facts = [row.reason] if row.reason else []
    if math.isfinite(row.error):
        facts.append(f"error {row.error:.2g}, bound {row.bound:.2g}")
    if row.values:
        facts.append(f"at {row.index} it is {row.values[0]:.7g}, not {row.values[1]:.7g}")
    return f"{row.stage}/{row.tap} in {row.precision}: {'; '.join(facts)}"


def why(row: Row) -> str:
    """The reason of the verdict, if there is one, and the numbers that it is based on."""
    measured = f"error {row.error:.3g}, bound {row.bound:.3g}, noise floor {row.noise_floor:.3g}"
    return shown(f"{row.reason}; {measured}" if row.reason else measured)


def strict_json(value: Any) -> str:
    """JSON text that every reader accepts: without NaN and infinity."""
    return json.dumps(clean(value), allow_nan=False)


def clean(value: Any) -> Any:
    """Convert a value for JSON: NumPy values to Python's, non-finite numbers to None."""
    if isinstance(value, Mapping):
        return {str(key): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy scalars and arrays
        return clean(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int | str | None) else str(value)
