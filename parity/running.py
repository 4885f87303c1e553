"""Run a pair: record both sides, compare all that they recorded, print, and write the page."""

import sys
import webbrowser
from collections.abc import Mapping
from pathlib import Path

from parity.api import tell
from parity.comparison.trace import Trace
from parity.comparison.verdict import Comparison
from parity.errors import ParityError
from parity.folder import compare_folder
from parity.matching.confirmed import outputs_of
from parity.matching.declared import Declared
from parity.recording.processes.runner import record_pair
from parity.recording.weights import note_on_order

PAGE = "report.html"


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
    out = out or folder_of(path)
    comparison, traces, notes = record_and_compare(path, out, pythons, fresh)
    code = tell(comparison, traces, out, notes=notes)
    page = out / PAGE
    if page.is_file():
        print(f"page: {page}")
        if show:
            webbrowser.open(page.resolve().as_uri())
    return code


def record_and_compare(
    path: Path,
    out: Path | None = None,
    pythons: Mapping[str, str] | None = None,
    fresh: bool = False,
) -> tuple[Comparison, list[Trace], list[str]]:
    """The verdicts on a pair, the traces of its pass, and notes; see `run_pair`."""
    recorded = record_pair(path, out or folder_of(path), pythons, fresh, say=progress)
    declared = Declared(recorded.pair.names, recorded.pair.layouts, strict=False)
    comparison, traces = compare_folder(recorded.folder, declared)
    outputs = outputs_of(comparison)
    guessed = {a: b for a, b in recorded.guessed.items() if not outputs.confirm(b)}
    return comparison, traces, [*recorded.notes, *note_on_order(guessed)]


def folder_of(path: Path) -> Path:
    """Where the recordings of a pair file go: `parity-NAME` in the present folder."""
    return Path(f"parity-{path.stem}")


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
