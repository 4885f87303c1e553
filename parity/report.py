"""What a parity run found, for people and machines: a table, parity.json, junit.xml, report.html.

    write_reports(folder, rows, environment, findings)
    print_table(rows)

parity.json has `format`, `verdict`, `counts`, `rungs` (one summary per pair, precision and rung,
with its worst tap), `findings`, `environment` and `rows`. Rows of equivalent taps leave out what is
only of use where something is wrong; the others are whole. A number that is not finite is null.
"""

import json
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from parity.differences import load_differences
from parity.judge import ZERO
from parity.verdict import SEVERITY, Row, Verdict, worst
from transfg_core.checkpoint import replace_file
from transfg_core.curves import load_optional
from transfg_core.errors import RunFailed, UserError
from transfg_core.records import clean

if TYPE_CHECKING:
    from parity.locate import Finding

FORMAT = "parity-report/1"
PAGE = "report.html"
IN_SHORT = ("case", "rung", "tap", "precision", "pair", "verdict")
NUMBERS = ("error", "floor", "bound", "ratio")
FINDING = ("case", "pair", "precision", "rung", "tap", "direction", "causes", "text")
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
STYLES = {"equivalent": "green", "different": "bold red", "undecided": "yellow"}


def write_reports(
    folder: Path,
    rows: Sequence[Row],
    environment: Mapping[str, Any],
    findings: Sequence["Finding"] = (),
    scores: Sequence[tuple[Path, Path]] = (),
) -> None:
    """Write parity.json, junit.xml and report.html; older ones stay if one cannot be written.

    Without Jinja2 or matplotlib there is no page, and a note on standard error says so.

    Args:
        folder: made if missing.
        environment: facts about each producer by its name.
        findings: where differences begin, and why.
        scores: trace files of the first and the candidate whose part scores the page plots.

    Raises:
        RunFailed: the operating system refused.
        UserError: one of `scores` is no trace.
    """
    files = {
        "junit.xml": junit(rows),
        "parity.json": json_text(rows, environment, findings).encode(),
    }
    page = _page(rows, environment, findings, scores)
    if page is not None:
        files[PAGE] = page.encode()
    _replace_all(folder, files)


def _page(rows: Sequence[Row], *rest: Any) -> str | None:
    try:
        for module in ("jinja2", "matplotlib"):
            load_optional(module)
    except UserError as error:
        print(f"note: {PAGE} is not written: {error}", file=sys.stderr)
        return None
    from parity.page import page_text

    return page_text(rows, *rest)


def _replace_all(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write beside the old files first, so that a full disk leaves all of them as they were."""
    ready = {folder / f".{name}.ready": folder / name for name in files}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, data in zip(ready, files.values(), strict=True):
            replace_file(path, data)
        for path, target in ready.items():
            path.replace(target)
        if PAGE not in files:  # an older page would tell of another run
            (folder / PAGE).unlink(missing_ok=True)
    except OSError as error:
        raise RunFailed(f"{folder}: cannot write the report: {error.strerror}") from error
    finally:
        if folder.is_dir():
            for path in ready:
                path.unlink(missing_ok=True)


def shown(text: object) -> str:
    """Text that every format can hold: control characters and half characters replaced."""
    found = str(text)
    if found.isprintable():
        return found
    return "".join(c if c.isprintable() or c in "\n\t" else REPLACEMENT for c in found)


def has_ratio(row: Row) -> bool:
    """Whether error over bound means anything: not for zeros, nor for a bound of elements."""
    return row.reason != ZERO and row.reason not in _bounds_of_elements()


@cache
def _bounds_of_elements() -> set[str]:
    return {one["id"] for one in load_differences() if "absolute" in one.get("allow", {})}


def ratio(row: Row) -> float:
    """Error over bound; infinite for NaN, below zero where it means nothing."""
    if not has_ratio(row):
        return -1.0
    return np.inf if np.isnan(row.ratio) else row.ratio


def badness(row: Row) -> tuple[int, float]:
    """By verdict, then by ratio."""
    return SEVERITY[row.verdict], ratio(row)


def counts(rows: Iterable[Row]) -> dict[Verdict, int]:
    """How many taps have each verdict."""
    found = Counter(row.verdict for row in rows)
    return {verdict: found[verdict] for verdict in SEVERITY}


def sentence(rows: Sequence[Row]) -> str:
    """The outcome in one sentence."""
    found = counts(rows)
    if not rows:
        return "undecided: no tap was compared."
    if found["equivalent"] == len(rows):
        return f"equivalent: all {len(rows)} taps are equivalent."
    return (
        f"{worst([row.verdict for row in rows])}: of {len(rows)} taps {found['equivalent']} are "
        f"equivalent, {found['different']} different and {found['undecided']} undecided."
    )


def grouped(rows: Iterable[Row], *keys: str) -> dict[tuple[str, ...], list[Row]]:
    """Rows by the values of some fields, in the order in which these first appear."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(getattr(row, key) for key in keys), []).append(row)
    return groups


def summaries(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One record per pair, precision and rung: its counts, verdict and worst tap."""
    result = []
    for key, members in grouped(rows, "pair", "precision", "rung").items():
        bad = max(members, key=badness)
        result.append(
            dict(zip(("pair", "precision", "rung"), key, strict=True))
            | {"taps": len(members), "verdict": bad.verdict, "counts": counts(members)}
            | {name: getattr(bad, name) for name in ("case", "tap", *NUMBERS, "reason")}
        )
    return result


def row_record(row: Row) -> dict[str, Any]:
    """A row as parity.json holds it; an equivalent one in short, with six digits."""
    if row.verdict != "equivalent" or row.ties:
        return row.record()
    short: dict[str, Any] = {name: getattr(row, name) for name in IN_SHORT}
    short |= {name: float(f"{getattr(row, name):.6g}") for name in NUMBERS}
    return short | ({"reason": row.reason} if row.reason else {})


def json_text(
    rows: Sequence[Row], environment: Mapping[str, Any], findings: Sequence["Finding"] = ()
) -> str:
    """parity.json: one line per summary, finding and row."""
    lists: dict[str, list[dict[str, Any]]] = {
        "rungs": summaries(rows),
        "findings": [{name: getattr(one, name) for name in FINDING} for one in findings],
        "rows": [row_record(row) for row in rows],
    }
    head = {
        "format": FORMAT,
        "verdict": worst([row.verdict for row in rows]),
        "sentence": sentence(rows),
        "counts": counts(rows),
        "environment": environment,
    }
    parts = [f"{json.dumps(key)}: {_strict(value)}" for key, value in head.items()]
    for key, records in lists.items():
        lines = ",\n".join(map(_strict, records))
        parts.append(f"{json.dumps(key)}: [\n{lines}\n]")
    return "{" + ",\n".join(parts) + "}\n"


def _strict(value: Any) -> str:
    return json.dumps(clean(value), allow_nan=False)


def junit(rows: Sequence[Row]) -> bytes:
    """JUnit: one case per tap.

    An undecided tap is an `error`, not `skipped`: CI systems count skipped tests as harmless, and
    what could not be shown must not look like what was.
    """
    root = ElementTree.Element("testsuites", _totals(rows) | {"name": "parity"})
    for key, members in grouped(rows, "pair", "precision", "case", "rung").items():
        name = shown(".".join(key))
        suite = ElementTree.SubElement(root, "testsuite", _totals(members) | {"name": name})
        for row in members:
            case = {"classname": name, "name": shown(row.tap), "time": "0"}
            element = ElementTree.SubElement(suite, "testcase", case)
            properties = ElementTree.SubElement(element, "properties")
            for number in NUMBERS:
                value = f"{getattr(row, number):.6g}"
                ElementTree.SubElement(properties, "property", {"name": number, "value": value})
            if row.verdict != "equivalent":
                kind = "failure" if row.verdict == "different" else "error"
                facts = {"type": row.verdict, "message": why(row)}
                ElementTree.SubElement(element, kind, facts).text = shown(_strict(row.record()))
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text


def _totals(rows: Sequence[Row]) -> dict[str, str]:
    found = counts(rows)
    numbers = (len(rows), found["different"], found["undecided"], 0)
    names = ("tests", "failures", "errors", "skipped")
    return dict(zip(names, map(str, numbers), strict=True))


def why(row: Row) -> str:
    """Why a tap is not equivalent, or what made it so."""
    measured = f"error {row.error:.3g}, bound {row.bound:.3g}, noise floor {row.floor:.3g}"
    return shown(f"{row.reason}; {measured}" if row.reason else measured)


def print_table(rows: Sequence[Row]) -> None:
    """The summaries on standard output, and the outcome in one sentence."""
    table = Table("rung", "pair", "precision")
    table.add_column("taps", justify="right")
    table.add_column("worst tap", overflow="fold")
    for name in ("error", "floor", "bound"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for one in summaries(rows):
        names = [Text(shown(one[key])) for key in ("rung", "pair", "precision")]
        numbers = [f"{one[key]:.1e}" for key in ("error", "floor", "bound")]
        tap = Text(shown(f"{one['case']} {one['tap']}"))
        verdict = Text(one["verdict"], STYLES[one["verdict"]])
        table.add_row(*names, str(one["taps"]), tap, *numbers, verdict)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    print(sentence(rows))
