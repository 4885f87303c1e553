"""Documented differences (`differences.yaml`): which taps an entry covers, and what it allows."""

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
OURS = ("case", "isolated", "continue", "checks")  # kinds of traces that differences.yaml is for


@cache
def load_differences() -> list[dict[str, Any]]:
    """The documented differences."""
    entries: list[dict[str, Any]] = yaml.safe_load(DIFFERENCES.read_text(encoding="utf-8"))
    return entries


def documented(row: Row, evidence: Evidence) -> dict[str, Any] | None:
    """The documented difference that covers this tap: the first in the file, or none."""
    for entry in load_differences():
        if "allow" in entry and _covers(entry["allow"], row, evidence):
            return entry
    return None


def allowed(row: Row, evidence: Evidence, entry: Mapping[str, Any]) -> Row:
    """The row with the verdict `equivalent` where a documented difference accounts for it.

    An entry bounds either the error, relative to the reference, or the largest difference of two
    elements of the pair.
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
    names = {str(t.producer("name")) for t in (evidence.baseline, evidence.candidate)}
    return (
        evidence.baseline.manifest.get("kind") in OURS
        and row.case in allow.get("cases", [row.case])
        and row.stage in allow.get("stages", [row.stage])
        and row.precision == allow.get("precision", row.precision)
        and allow.get("backend", row.pair) in {*names, row.pair}
        and any(fnmatchcase(row.tap, pattern) for pattern in allow["taps"])
    )
