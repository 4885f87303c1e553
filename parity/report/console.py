"""The table of a parity run in the console."""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from parity.comparison.verdict import OneSided, Row
from parity.report.summary import sentence, shown, summaries

STYLES = {
    "equivalent": "green",
    "vacuous": "dim",
    "less precise": "magenta",
    "undecided": "yellow",
    "different": "bold red",
}


MOST_NAMES = 5


def one_sided_lines(one_sided: OneSided, labels: tuple[str, str]) -> list[str]:
    """A line for each side that has taps which the other lacks: their number and the first few."""
    lines = []
    for label, names in zip(labels, (one_sided.baseline, one_sided.candidate), strict=True):
        if names:
            more = f", and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
            count = f" ({len(names)} taps, not compared)" if len(names) > 1 else ""
            lines.append(shown(f"only in {label}{count}: {', '.join(names[:MOST_NAMES])}{more}"))
    return lines


def print_table(rows: Sequence[Row]) -> None:
    """Print one line per pair, precision and stage, and the outcome in one sentence."""
    table = Table("stage", "pair", "precision")
    table.add_column("taps", justify="right")
    table.add_column("worst tap", overflow="fold")
    for header in ("error", "noise floor", "bound"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for summary in summaries(rows):
        names = [Text(shown(summary[key])) for key in ("stage", "pair", "precision")]
        numbers = [f"{summary[key]:.1e}" for key in ("error", "noise_floor", "bound")]
        tap = Text(shown(f"{summary['case']} {summary['tap']}"))
        verdict = Text(summary["verdict"], STYLES[summary["verdict"]])
        table.add_row(*names, str(summary["taps"]), tap, *numbers, verdict)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    print(sentence(rows))
