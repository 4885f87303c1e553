"""Vacuous taps of the suite: each has its reason in `vacuous.yaml`."""

from collections import defaultdict
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
    `vacuous.yaml`. A pattern whose taps of one case are all equivalent is not needed there, and
    would excuse them later.
    """
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        for pattern in patterns_of(row):
            groups[pattern, row.case].append(row)
    listed = {id(row) for group in groups.values() for row in group}
    needless = {
        id(row)
        for group in groups.values()
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


def patterns_of(row: Row) -> list[str]:
    """The patterns of `vacuous.yaml` that match this row."""
    return [
        pattern
        for entry in listed_vacuous()
        if row.case in entry.get("cases", [row.case])
        for pattern in entry["taps"]
        if fnmatchcase(f"{row.stage}/{row.tap}", pattern)
    ]
