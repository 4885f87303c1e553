"""TODO."""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from parity.comparison.verdict import Row
from parity.report.summary import sentence, shown, summaries

STYLES = {"equivalent": "green", "different": "bold red", "undecided": "yellow"}


def print_table(rows: Sequence[Row]) -> None:
    """The summaries on standard output, and the outcome in one sentence."""
    table = Table("stage", "pair", "precision")
    table.add_column("taps", justify="right")
    table.add_column("worst tap", overflow="fold")
    for name in ("error", "noise_floor", "bound"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for one in summaries(rows):
        names = [Text(shown(one[key])) for key in ("stage", "pair", "precision")]
        numbers = [f"{one[key]:.1e}" for key in ("error", "noise_floor", "bound")]
        tap = Text(shown(f"{one['case']} {one['tap']}"))
        verdict = Text(one["verdict"], STYLES[one["verdict"]])
        table.add_row(*names, str(one["taps"]), tap, *numbers, verdict)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    print(sentence(rows))
