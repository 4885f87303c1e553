"""The files of a parity report: parity.json, junit.xml and report.html."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from parity.comparison.verdict import OneSided, Row, worst
from parity.diagnose.finding import Finding
from parity.errors import CannotWrite, ParityError
from parity.report.junit import junit_text
from parity.report.style import load_optional
from parity.report.summary import NUMBERS, Remarks, counts, sentence, strict_json, summaries

FORMAT = "parity-report/3"
PAGE, JSON = "report.html", "parity.json"
# Fields in parity.json: of an equivalent row, besides its numbers, and of a finding
IN_SHORT = ("case", "stage", "tap", "precision", "pair", "verdict")
FINDING = (
    *("case", "pair", "precision", "stage", "tap", "direction", "causes", "text"),
    *("kind", "places", "explained", "source", "shown_by", "error", "lost", "known"),
)


def write_reports(
    folder: Path,
    rows: Sequence[Row],
    environment: Mapping[str, Any],
    findings: Sequence[Finding] = (),
    scores: Sequence[tuple[Path, Path]] = (),
    one_sided: OneSided | None = None,
    remarks: Remarks | None = None,
) -> None:
    """Write parity.json, junit.xml and report.html; if one cannot be written, all old files stay.

    Without Jinja2 no page is written, and without matplotlib it has no figures; a note on standard
    error says so.

    Args:
        folder: created if it does not exist.
        environment: facts about each producer, by its name.
        findings: where differences begin, and why.
        scores: pairs of trace files (baseline, candidate); the page plots their part scores.
        one_sided: the taps that only one trace has.
        remarks: where the worst verdict begins, limits and notes.

    Raises:
        CannotWrite: the operating system cannot write a file.
        ParityError: a file in `scores` is not a trace.
    """
    files = {
        "junit.xml": junit_text(rows),
        JSON: json_text(rows, environment, findings, one_sided, remarks).encode(),
    }
    page = _page(rows, environment, findings, scores, one_sided, remarks)
    if page is not None:
        files[PAGE] = page.encode()
    replace_files(folder, files)
    if page is None:  # an older page would show another run
        (folder / PAGE).unlink(missing_ok=True)


def _page(rows: Sequence[Row], *rest: Any) -> str | None:
    try:
        load_optional("jinja2")
    except ParityError as error:
        print(f"note: {PAGE} is not written: {error}", file=sys.stderr)
        return None
    try:
        load_optional("matplotlib")
    except ParityError as error:
        print(f"note: {PAGE} has no figures: {error}", file=sys.stderr)
    from parity.report.page import page_text

    return page_text(rows, *rest)


def replace_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a folder, which is made if needed.

    All are first written under temporary names, so that a full disk leaves all old files.

    Raises:
        CannotWrite: the operating system cannot write a file.
    """
    ready = {folder / f".{name}.{os.getpid()}": folder / name for name in files}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, data in zip(ready, files.values(), strict=True):
            with open(path, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for path, target in ready.items():
            path.replace(target)
    except OSError as error:
        raise CannotWrite(f"{folder}: cannot write the report: {error.strerror}") from error
    finally:
        if folder.is_dir():
            for path in ready:
                path.unlink(missing_ok=True)


def row_record(row: Row) -> dict[str, Any]:
    """A row as parity.json holds it; an equivalent one has fewer fields, and six digits."""
    if row.verdict != "equivalent" or row.ties:
        return row.record()
    short: dict[str, Any] = {name: getattr(row, name) for name in IN_SHORT}
    short |= {name: float(f"{getattr(row, name):.6g}") for name in NUMBERS}
    return short | ({"reason": row.reason} if row.reason else {})


def json_text(
    rows: Sequence[Row],
    environment: Mapping[str, Any],
    findings: Sequence[Finding] = (),
    one_sided: OneSided | None = None,
    remarks: Remarks | None = None,
) -> str:
    """The text of parity.json: one line per summary, finding and row."""
    lists: dict[str, list[dict[str, Any]]] = {
        "stages": summaries(rows),
        "findings": [{key: getattr(finding, key) for key in FINDING} for finding in findings],
        "rows": [row_record(row) for row in rows],
    }
    head = {
        "format": FORMAT,
        "verdict": worst([row.verdict for row in rows]),
        "sentence": sentence(rows),
        "counts": counts(rows),
        "environment": environment,
        "one_sided": asdict(one_sided or OneSided()),
        **asdict(remarks or Remarks()),
    }
    parts = [f"{json.dumps(key)}: {strict_json(value)}" for key, value in head.items()]
    for key, records in lists.items():
        lines = ",\n".join(map(strict_json, records))
        parts.append(f"{json.dumps(key)}: [\n{lines}\n]")
    return "{" + ",\n".join(parts) + "}\n"
