"""Run a pair: record both sides, compare all that they recorded, print, and write the page."""

import sys
import webbrowser
from collections.abc import Mapping
from pathlib import Path

from parity.api import compare_traces, first_difference, pair_labels
from parity.comparison.trace import read_trace
from parity.comparison.verdict import EXIT_CODES, Comparison, OneSided
from parity.errors import ParityError
from parity.recording.runner import Recorded, record_pair

KINDS = ("pass", "isolated")
PAGE = "report.html"


def compare_recorded(recorded: Recorded) -> Comparison:
    """All rows of a recorded pair: of whole passes, then of modules alone."""
    rows, one_sided = [], OneSided()
    for kind in KINDS:
        files = recorded.traces(kind)
        if len(files) > 1:
            comparison = compare_traces(files)
            rows += comparison.rows
            one_sided += comparison.one_sided
    return Comparison(rows, one_sided)


def run_pair(
    path: Path,
    out: Path | None = None,
    pythons: Mapping[str, str] | None = None,
    fresh: bool = False,
    show: bool = False,
) -> int:
    """Record, compare, print the answer and write the reports; returns the exit code.

    Args:
        out: folder of recordings and reports; default: `parity-NAME` here, NAME the pair file's.
        pythons, fresh: as in `record_pair`.
        show: open the page in a browser.

    Raises:
        ParityError: as in `record_pair` and `compare`.
    """
    from parity.report.console import one_sided_lines, print_table
    from parity.report.files import write_reports

    out = out or Path(f"parity-{path.stem}")
    recorded = record_pair(path, out, pythons, fresh, say=progress)
    comparison = compare_recorded(recorded)
    traces = [read_trace(file) for file in recorded.traces("pass")[:2]]
    labels = pair_labels(traces)
    print_table(comparison.rows)
    for line in [*one_sided_lines(comparison.one_sided, labels), *recorded.notes]:
        print(line)
    if sentence := first_difference(comparison.rows):
        print(sentence)
    facts = [trace.manifest["producer"] for trace in traces]
    environment = dict(zip(labels, facts, strict=True))
    write_reports(out, comparison.rows, environment, one_sided=comparison.one_sided)
    page = out / PAGE
    if page.is_file():
        print(f"page: {page}")
        if show:
            webbrowser.open(page.resolve().as_uri())
    return EXIT_CODES[comparison.verdict]


def progress(line: str) -> None:
    """A line on what is done, beside the results."""
    print(line, file=sys.stderr, flush=True)


def pythons_of(options: list[str]) -> dict[str, str]:
    """The interpreters of `--python SIDE=PATH`.

    Raises:
        ParityError: an option has another form.
    """
    found = {}
    for option in options:
        side, mark, python = option.partition("=")
        if not mark or not python:
            raise ParityError(
                f"--python {option}: expected SIDE=PATH, such as candidate=bin/python"
            )
        found[side] = python
    return found
