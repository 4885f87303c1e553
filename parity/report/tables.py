"""The tables of report.html, as text in rows."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from parity.comparison.differences import load_differences
from parity.comparison.judge import ZERO
from parity.comparison.verdict import Row
from parity.report.summary import badness, counts, grouped, ratio, summaries
from transfg_core.report.numbers import NONE
from transfg_core.report.tables import Table, flatten

MOST_BAD, MOST_TIES = 10, 40
HIDDEN = ("name", "cache")  # facts of a producer that a reader elsewhere has no use for
DIGITS = {"float32": 9, "float64": 17}  # that tell two numbers apart
HEADERS = {
    "pairs": "candidate : first|dtype|taps|equal to the bit|different|undecided|ratio|of the worst",
    "stages": "pair|dtype|stage|taps|worst case|worst tap|error|floor|bound|verdict",
    "bad": "compared|case and stage|tap|error|bound|ratio|index|candidate|first|bias|ulps|verdict",
    "ties": "compared|case and stage|image|head|choice of first|choice of candidate|margin|noise|",
    "differences": "difference|taps|largest|allowed|reason|measured|upstream|look again",
    "zeros": "pair|dtype|stage|taps|too large|cases|names",
}


def number(value: float, form: str = ".1e") -> str:
    """A number for a table; what is not finite in words."""
    if np.isnan(value):
        return "not a number"
    return "infinite" if np.isinf(value) else "0" if value == 0 else format(value, form)


def ratio_text(row: Row) -> str:
    """Error over bound, where it has a meaning."""
    return NONE if ratio(row) < 0 else number(row.ratio, ".2g")


def pairs_table(rows: Sequence[Row]) -> Table:
    """What was compared with what."""
    lines = []
    for (pair, precision), members in grouped(rows, "pair", "precision").items():
        found, bad = counts(members), max(members, key=badness)
        equal = sum(row.pair_error == 0 for row in members)
        numbers = (len(members), equal, *(found[v] for v in ("different", "undecided")))
        place = f"{bad.case}, {bad.stage}, {bad.tap}"
        lines.append([pair, precision, *map(str, numbers), ratio_text(bad), place])
    return Table("Compared", "", HEADERS["pairs"].split("|"), lines, range(2, 7))


def producers_table(environment: Mapping[str, Any]) -> Table:
    """Versions, devices and threads, one column for each producer; other facts in the last."""
    single = {key: value for key, value in environment.items() if not isinstance(value, Mapping)}
    columns = {key: flatten(v) for key, v in environment.items() if isinstance(v, Mapping)}
    columns |= {"run": single} if single else {}
    keys = dict.fromkeys(
        key
        for facts in columns.values()
        for key, value in facts.items()
        if key not in HIDDEN and value is not None
    )
    lines = [
        [key, *(NONE if facts.get(key) is None else str(facts[key]) for facts in columns.values())]
        for key in keys
    ]
    return Table("Computed by", "", ["", *columns], lines, range(0))


def stages_table(rows: Sequence[Row]) -> Table:
    """The worst tap of each stage."""
    lines = []
    for one in summaries(rows):
        names = [one[key] for key in ("pair", "precision", "stage")]
        place = [one["case"], one["tap"]]
        numbers = [number(one[key]) for key in ("error", "noise_floor", "bound")]
        lines.append([*names, str(one["taps"]), *place, *numbers, one["verdict"]])
    return Table("Stages", "", HEADERS["stages"].split("|"), lines, (3, 6, 7, 8))


def bad_table(rows: Sequence[Row]) -> Table:
    """The ten taps nearest to failing, or failed by most."""
    lines = []
    for row in sorted(rows, key=badness, reverse=True)[:MOST_BAD]:
        digits = DIGITS.get(row.precision, 9)
        values = [number(v, f".{digits}g") for v in row.values] if row.values else [NONE, NONE]
        index = NONE if row.index is None else ", ".join(map(str, row.index)) or "scalar"
        numbers = [number(x) for x in (row.error, row.bound)]
        more = [ratio_text(row), index, *values, number(row.bias, ".1f"), number(row.ulps, ".4g")]
        place = [f"{row.pair}, {row.precision}", f"{row.case}, {row.stage}", row.tap]
        verdict = f"{row.verdict}: {row.reason}" if row.reason else row.verdict
        lines.append([*place, *numbers, *more, verdict])
    return Table("Worst taps", "", HEADERS["bad"].split("|"), lines, (3, 4, 5, 7, 8, 9, 10))


def ties_table(rows: Sequence[Row]) -> Table:
    """Where the backends chose other patches."""
    lines = []
    for row in rows:
        for tie in row.ties:
            places = [str(tie[key]) for key in ("image", "baseline", "candidate")]
            places.insert(1, NONE if tie["head"] is None else str(tie["head"]))
            numbers = [number(float(tie[key]), ".2e") for key in ("margin", "noise")]
            kind = "a tie" if tie["margin"] <= tie["noise"] else "no tie"
            names = [f"{row.pair}, {row.precision}", f"{row.case}, {row.stage}"]
            lines.append([*names, *places, *numbers, kind])
    left = len(lines) - MOST_TIES
    note = f"{left} more are in parity.json." if left > 0 else ""
    return Table("Ties", note, HEADERS["ties"].split("|"), lines[:MOST_TIES], range(2, 8))


def differences_table(rows: Sequence[Row]) -> Table:
    """The documented differences by which taps are equivalent."""
    used = grouped(rows, "reason")
    lines, others = [], []
    for entry in load_differences():
        members = used.get((entry["id"],), [])
        if not members:
            others.append(entry["id"])
            continue
        allow = entry["allow"]
        kind = "relative" if "relative" in allow else "absolute"
        bound = f"{number(float(allow[kind]))} {kind}"
        found = max(row.error if kind == "relative" else _apart(row) for row in members)
        texts = [str(entry[key]).strip() for key in ("what", "measured", "upstream", "expires")]
        lines.append([entry["id"], str(len(members)), number(found), bound, *texts])
    note = f"In the list, but not needed by any tap here: {', '.join(others)}." if others else ""
    return Table("Documented differences", note, HEADERS["differences"].split("|"), lines, (1, 2))


def _apart(row: Row) -> float:
    return abs(row.values[0] - row.values[1]) if row.values else 0.0


def zeros_table(rows: Sequence[Row]) -> Table:
    """Taps that are zero by structure, by pair, precision and stage."""
    lines = []
    zeros = (row for row in rows if row.reason == ZERO)
    for key, members in grouped(zeros, "pair", "precision", "stage").items():
        names = dict.fromkeys(
            re.sub(r"/.*?(\.\w+\.\w+\.\w+)$", r"/*\1", row.tap) for row in members
        )
        cases = dict.fromkeys(row.case for row in members)
        failed = sum(row.verdict != "equivalent" for row in members)
        lines.append([*key, str(len(members)), str(failed), ", ".join(cases), ", ".join(names)])
    return Table("Zeros by structure", "", HEADERS["zeros"].split("|"), lines, (3, 4))
