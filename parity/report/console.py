"""The table of a parity run in the console."""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from parity.comparison.verdict import Row
from parity.report.summary import sentence, shown, summaries

STYLES = {
    "equivalent": "green",
    "vacuous": "dim",
    "less precise": "magenta",
    "undecided": "yellow",
    "different": "bold red",
}


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
