"""Vacuous taps of the suite: each has its reason in `vacuous.yaml`."""

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from parity.comparison.verdict import Row

VACUOUS = Path(__file__).with_name("vacuous.yaml")


def refuse_vacuous(rows: Sequence[Row]) -> list[Row]:
    """The rows; a vacuous tap without an entry is undecided, and so is an entry without such a tap.

    A tap that cannot fail may hide a case that tests nothing. So each has a reason in
    `vacuous.yaml`. An entry that is no longer needed would hide a later one.
    """
    matching = [[row for row in rows if covers(entry, row)] for entry in entries_by_case()]
    listed = {id(row) for group in matching for row in group}
    needless = {
        id(row)
        for group in matching
        for row in group
        if all(other.verdict == "equivalent" for other in group)
    }
    return [
        replace(row, verdict="undecided", reason=f"{VACUOUS.name}: it is not vacuous; remove it")
        if id(row) in needless
        else replace(
            row, verdict="undecided", reason=f"vacuous: {row.reason}; not in {VACUOUS.name}"
        )
        if row.verdict == "vacuous" and id(row) not in listed
        else row
        for row in rows
    ]


@cache
def listed_vacuous() -> list[dict[str, Any]]:
    """The entries of `vacuous.yaml`."""
    entries: list[dict[str, Any]] = yaml.safe_load(VACUOUS.read_text(encoding="utf-8"))
    return entries


def entries_by_case() -> list[dict[str, Any]]:
    """The entries of `vacuous.yaml`, one for each of their cases."""
    return [
        {**entry, "case": case} for entry in listed_vacuous() for case in entry.get("cases", [None])
    ]


def covers(entry: dict[str, Any], row: Row) -> bool:
    """Whether the entry is about this row."""
    return entry["case"] in (None, row.case) and any(
        fnmatchcase(f"{row.stage}/{row.tap}", pattern) for pattern in entry["taps"]
    )
