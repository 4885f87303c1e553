"""The table of a comparison in the console: plain text, one screen."""

import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any

from parity.comparison.verdict import OneSided, Row, Verdict
from parity.report.summary import sentence, shown, summaries
from parity.report.table import GAP, text_lines
from parity.report.tables import number

COLOURS: dict[Verdict, str] = {  # ANSI codes
    "equivalent": "32",
    "vacuous": "2",
    "less precise": "35",
    "undecided": "33",
    "different": "1;31",
}
HEADER = ("stage", "pair", "precision", "taps", "worst tap", "error", "noise floor", "bound")
RIGHT = (3, 5, 6, 7)  # columns of numbers
WORST = 4
MOST_LINES = 24
MOST_NAMES = 5


def one_sided_lines(one_sided: OneSided, labels: tuple[str, str]) -> list[str]:
    """A line for each side that has taps which the other lacks: their number and the first few.

    Counters of batches, and choices at corners, are many and alike: they are only counted.
    """
    lines = []
    counters = set(one_sided.counters)
    for label, names in zip(labels, (one_sided.baseline, one_sided.candidate), strict=True):
        folded = {
            "counter": [name for name in names if name in counters],
            "choice": [name for name in names if name.partition("/")[0].endswith("choices")],
        }
        left = [name for name in names if not any(name in group for group in folded.values())]
        words = left[:MOST_NAMES]
        words += [f"{len(left) - MOST_NAMES} more"] if len(left) > MOST_NAMES else []
        for word, group in folded.items():
            words += [f"{len(group)} {word}{'s' * (len(group) > 1)}"] if group else []
        if words:
            count = f" ({len(names)} taps, not compared)" if len(names) > 1 else ""
            is_count = len(left) > MOST_NAMES or len(left) < len(names)
            last = f", and {words.pop()}" if is_count and len(words) > 1 else ""
            lines.append(shown(f"only in {label}{count}: {', '.join(words)}{last}"))
    return lines


def print_table(rows: Sequence[Row]) -> None:
    """Print one line per pair, precision and stage, and the outcome in one sentence.

    If there are more lines than fit on a screen, the last equivalent ones are left out and counted.
    """
    records = summaries(rows)
    chosen = _most_important(records)
    lines = [_cells(record) for record in chosen]
    width = None
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns - len(GAP) - len("less precise")
    verdicts: list[Verdict] = [record["verdict"] for record in chosen]
    for line, verdict in zip(
        text_lines([HEADER, *lines], RIGHT, WORST, width), ["verdict", *verdicts], strict=True
    ):
        print(f"{line}{GAP}{coloured(verdict)}")
    if len(records) > len(chosen):
        print(f"and {len(records) - len(chosen)} more stages, all equivalent")
    print(sentence(rows))


def _most_important(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records for one screen, in their order: all that are not equivalent come first."""
    bad = [i for i, record in enumerate(records) if record["verdict"] != "equivalent"]
    good = [i for i, record in enumerate(records) if record["verdict"] == "equivalent"]
    room = max(MOST_LINES - len(bad), 0)
    return [records[i] for i in sorted([*bad, *good[:room]])]


def _cells(record: dict[str, Any]) -> list[str]:
    names = [shown(record[key]) for key in ("stage", "pair", "precision")]
    numbers = [number(record[key]) for key in ("error", "noise_floor", "bound")]
    tap = shown(f"{record['case']} {record['tap']}".strip())
    return [*names, str(record["taps"]), tap, *numbers]


def coloured(verdict: Verdict | str) -> str:
    """A verdict in its colour, if the output is a terminal and NO_COLOR is not set."""
    code = COLOURS.get(verdict)  # type: ignore[arg-type]
    if not code or not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return verdict
    return f"\x1b[{code}m{verdict}\x1b[0m"
