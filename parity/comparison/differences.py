"""Documented differences (`differences.yaml`): the taps that an entry covers, and its bound."""

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from parity.comparison.measure import gap
from parity.comparison.verdict import Evidence, Row

DIFFERENCES = Path(__file__).with_name("differences.yaml")
OURS = ("case", "isolated", "continue", "checks")  # kinds of traces of this project's own suite


@cache
def load_differences() -> list[dict[str, Any]]:
    """The documented differences."""
    entries: list[dict[str, Any]] = yaml.safe_load(DIFFERENCES.read_text(encoding="utf-8"))
    return entries


def documented(row: Row, evidence: Evidence) -> dict[str, Any] | None:
    """The first documented difference in the file that covers this tap, or None."""
    for entry in load_differences():
        if "allow" in entry and _covers(entry["allow"], row, evidence):
            return entry
    return None


def allowed(row: Row, evidence: Evidence, entry: Mapping[str, Any]) -> Row:
    """The row, with the verdict `equivalent` if it lies within the bound of the entry.

    An entry bounds either the relative error to the reference, or the largest absolute difference
    between elements of the pair.
    """
    allow, name = entry["allow"], f"{row.stage}/{row.tap}"
    if "relative" in allow:
        value, bound = row.error, float(allow["relative"])
    else:
        value = gap(evidence.candidate.taps[name], evidence.baseline.taps[name]).absolute
        bound = float(allow["absolute"])
    if value > bound:
        return row
    return replace(row, verdict="equivalent", bound=max(bound, row.bound), reason=entry["id"])


def _covers(allow: Mapping[str, Any], row: Row, evidence: Evidence) -> bool:
    names = {str(trace.producer("name")) for trace in (evidence.baseline, evidence.candidate)}
    return (
        evidence.baseline.manifest.get("kind") in OURS
        and row.case in allow.get("cases", [row.case])
        and row.stage in allow.get("stages", [row.stage])
        and row.precision == allow.get("precision", row.precision)
        and allow.get("backend", row.pair) in {*names, row.pair}
        and any(fnmatchcase(row.tap, pattern) for pattern in allow["taps"])
    )
