"""The form of every table in reports."""

from collections.abc import Collection, Sequence
from typing import NamedTuple


class Table(NamedTuple):
    """Text in rows; the columns whose index is in `right` hold numbers and are right-aligned."""

    title: str
    note: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Collection[int]
