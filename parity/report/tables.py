"""The tables of report.html, as rows of text."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from parity.comparison.differences import load_differences
from parity.comparison.verdict import OneSided, Row
from parity.comparison.zeros import ZERO
from parity.report.summary import badness, counts, grouped, ratio, summaries

NONE = "–"  # the text for a missing number
MOST_BAD, MOST_TIES = 10, 40
HIDDEN = ("name", "cache")  # facts about a producer that are of no use on another machine
DIGITS = {"float32": 9, "float64": 17}  # enough to distinguish any two numbers
HEADERS = {
    "pairs": "candidate : baseline|dtype|taps|equal to the bit|different|undecided|less precise|"
    "vacuous|ratio|worst tap",
    "stages": "pair|dtype|stage|taps|worst case|worst tap|error|noise floor|bound|verdict",
    "bad": "compared|case, stage|tap|error|bound|ratio|index|candidate|baseline|bias|ulps|verdict",
    "ties": "compared|case, stage|image|head|choice of baseline|choice of candidate|margin|noise|",
    "differences": "difference|taps|largest|allowed|reason|measured|upstream|look again",
    "one sided": "only in|stage|taps|names",
    "zeros": "pair|dtype|stage|taps|not equivalent|cases|names",
    "vacuous": "pair|dtype|case, stage|taps|why|names",
}


class Table(NamedTuple):
    """Text in rows; the columns whose index is in `right` hold numbers and are right-aligned."""

    title: str
    note: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Collection[int]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings into one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        nested = isinstance(value, Mapping)
        flat |= flatten(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return flat


def number(value: float, form: str = ".1e") -> str:
    """A number for a table; NaN and infinity in words."""
    if np.isnan(value):
        return "not a number"
    return "infinite" if np.isinf(value) else "0" if value == 0 else format(value, form)


def ratio_text(row: Row) -> str:
    """Error over bound; a dash if it has no meaning."""
    return NONE if ratio(row) < 0 else number(row.ratio, ".2g")


def pairs_table(rows: Sequence[Row]) -> Table:
    """The pairs and precisions that were compared, with counts of taps and the worst tap."""
    lines = []
    for (pair, precision), members in grouped(rows, "pair", "precision").items():
        by_verdict, worst_row = counts(members), max(members, key=badness)
        equal = sum(row.pair_error == 0 for row in members)
        failed = (
            by_verdict[name] for name in ("different", "undecided", "less precise", "vacuous")
        )
        numbers = (len(members), equal, *failed)
        names = (worst_row.case, worst_row.stage, worst_row.tap)
        place = ", ".join(name for name in names if name)
        lines.append([pair, precision, *map(str, numbers), ratio_text(worst_row), place])
    return Table("Compared", "", HEADERS["pairs"].split("|"), lines, range(2, 9))


def producers_table(environment: Mapping[str, Any]) -> Table:
    """Versions, devices and threads, one column per producer; facts about the run come last."""
    of_run = {key: value for key, value in environment.items() if not isinstance(value, Mapping)}
    columns = {key: flatten(v) for key, v in environment.items() if isinstance(v, Mapping)}
    columns |= {"run": of_run} if of_run else {}
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
    for summary in summaries(rows):
        names = [summary[key] for key in ("pair", "precision", "stage")]
        place = [summary["case"], summary["tap"]]
        numbers = [number(summary[key]) for key in ("error", "noise_floor", "bound")]
        lines.append([*names, str(summary["taps"]), *place, *numbers, summary["verdict"]])
    return Table("Stages", "", HEADERS["stages"].split("|"), lines, (3, 6, 7, 8))


def bad_table(rows: Sequence[Row]) -> Table:
    """The ten worst taps: by verdict, then by ratio."""
    lines = []
    for row in sorted(rows, key=badness, reverse=True)[:MOST_BAD]:
        digits = DIGITS.get(row.precision, 9)
        values = [number(v, f".{digits}g") for v in row.values] if row.values else [NONE, NONE]
        index = NONE if row.index is None else ", ".join(map(str, row.index)) or "scalar"
        stage = f"{row.case}, {row.stage}" if row.case else row.stage
        place = [f"{row.pair}, {row.precision}", stage, row.tap]
        errors = [number(row.error), number(row.bound), ratio_text(row)]
        bias_and_ulps = [number(row.bias, ".1f"), number(row.ulps, ".4g")]
        verdict = f"{row.verdict}: {row.reason}" if row.reason else row.verdict
        lines.append([*place, *errors, index, *values, *bias_and_ulps, verdict])
    return Table("Worst taps", "", HEADERS["bad"].split("|"), lines, (3, 4, 5, 7, 8, 9, 10))


def ties_table(rows: Sequence[Row]) -> Table:
    """The places where the pair made different choices."""
    lines = []
    for row in rows:
        for tie in row.ties:
            head = NONE if tie["head"] is None else str(tie["head"])
            choices = [str(tie["baseline"]), str(tie["candidate"])]
            numbers = [number(float(tie[key]), ".2e") for key in ("margin", "noise")]
            outcome = "a tie" if tie["margin"] <= tie["noise"] else "no tie"
            names = [f"{row.pair}, {row.precision}", f"{row.case}, {row.stage}"]
            lines.append([*names, str(tie["image"]), head, *choices, *numbers, outcome])
    omitted = len(lines) - MOST_TIES
    note = f"{omitted} more are in parity.json." if omitted > 0 else ""
    return Table("Ties", note, HEADERS["ties"].split("|"), lines[:MOST_TIES], range(2, 8))


def differences_table(rows: Sequence[Row]) -> Table:
    """The documented differences that made taps equivalent."""
    by_reason = grouped(rows, "reason")
    lines, unused = [], []
    for entry in load_differences():
        members = by_reason.get((entry["id"],), [])
        if not members:
            unused.append(entry["id"])
            continue
        allow = entry["allow"]
        bound_type = "relative" if "relative" in allow else "absolute"
        bound = f"{number(float(allow[bound_type]))} {bound_type}"
        largest = max(
            row.error if bound_type == "relative" else _largest_difference(row) for row in members
        )
        texts = [str(entry[key]).strip() for key in ("what", "measured", "upstream", "expires")]
        lines.append([entry["id"], str(len(members)), number(largest), bound, *texts])
    note = f"Documented, but not needed by any tap here: {', '.join(unused)}." if unused else ""
    return Table("Documented differences", note, HEADERS["differences"].split("|"), lines, (1, 2))


def _largest_difference(row: Row) -> float:
    return abs(row.values[0] - row.values[1]) if row.values else 0.0


def one_sided_table(one_sided: OneSided) -> Table:
    """Taps that only one trace has, by side and stage."""
    lines = []
    counters = set(one_sided.counters)
    for side in ("baseline", "candidate"):
        stages: dict[tuple[str, bool], list[str]] = {}
        for name in getattr(one_sided, side):
            stage, _, tap = name.partition("/")
            stages.setdefault((stage, name in counters), []).append(tap)
        for (stage, is_counter), taps in stages.items():
            last = ", ".join(dict.fromkeys(tap.rpartition(".")[2] for tap in taps))
            text = f"counters: {last}" if is_counter else ", ".join(taps)
            lines.append([side, stage, str(len(taps)), text])
    return Table("Taps of one side", "", HEADERS["one sided"].split("|"), lines, (2,))


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


def vacuous_table(rows: Sequence[Row]) -> Table:
    """Taps that agree but prove nothing, by pair, precision, case and stage."""
    lines = []
    taps = (row for row in rows if row.verdict == "vacuous")
    for key, members in grouped(taps, "pair", "precision", "case", "stage", "reason").items():
        pair, precision, case, stage, reason = key
        names = ", ".join(dict.fromkeys(row.tap for row in members))
        lines.append([pair, precision, f"{case}, {stage}", str(len(members)), reason, names])
    return Table("Vacuous taps", "", HEADERS["vacuous"].split("|"), lines, (3,))
