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
    """The rows; vacuous ones that `vacuous.yaml` does not list are undecided.

    A tap that cannot fail may hide a case that tests nothing. So each has a reason in that file.
    """
    return [
        replace(row, verdict="undecided", reason=f"vacuous: {row.reason}; not in {VACUOUS.name}")
        if row.verdict == "vacuous" and not is_listed(row)
        else row
        for row in rows
    ]


@cache
def listed_vacuous() -> list[dict[str, Any]]:
    """The entries of `vacuous.yaml`."""
    entries: list[dict[str, Any]] = yaml.safe_load(VACUOUS.read_text(encoding="utf-8"))
    return entries


def is_listed(row: Row) -> bool:
    """Whether `vacuous.yaml` gives a reason for this vacuous tap."""
    return any(
        row.case in entry.get("cases", [row.case])
        and any(fnmatchcase(f"{row.stage}/{row.tap}", pattern) for pattern in entry["taps"])
        for entry in listed_vacuous()
    )
