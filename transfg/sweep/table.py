"""What a person sees of a sweep: a live table on a terminal, one line for each event in a log."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Self

from rich.console import Group
from rich.live import Live
from rich.table import Table as RichTable
from rich.text import Text

from transfg.sweep.grid import Cell
from transfg.sweep.process import last_lines
from transfg.sweep.state import CellState, newest_record, speed_of
from transfg_core.closing import Closing
from transfg_core.run.progress import StandardError, plain

REFRESH = 1.0  # seconds between two looks at the metrics of the runs
ORDER = ("finished", "running", "failed", "stopped", "partial", "to do", "refused")


class Table(Closing):
    """The progress of a sweep on standard error."""

    def __init__(self, states: Mapping[str, str]) -> None:
        """`states` are those of all cells before this start, by name."""
        self._console = StandardError()
        self._states = dict(states)
        self._shown = 0.0
        self._live = Live(console=self._console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def close(self) -> None:
        """Remove the live table."""
        self._live.stop()

    def say(self, text: str) -> None:
        """Print a line that stays on the screen."""
        self._console.print(Text(plain(text)), soft_wrap=True)

    def started(self, cell: Cell) -> None:
        """Say that a run begins."""
        self._states[cell.name] = "running"
        self.say(f"{cell.name}: started; its log is {cell.log}")

    def ended(self, cell: Cell, state: str, reason: str = "") -> None:
        """Say how a run ended: `finished`, `failed` or `stopped`."""
        self._states[cell.name] = state
        self._shown = 0.0  # the table changes now
        self.say(f"{cell.name}: {state}{f': {reason}' if reason else ''}; {self.summary()}")

    def summary(self) -> str:
        """How many cells are in each state."""
        count = Counter(self._states.values())
        parts = [f"{count[state]} {state}" for state in ORDER if count[state]]
        return f"{', '.join(parts)} of {len(self._states)}"

    def show(self, running: Sequence[Cell]) -> None:
        """Draw the table again, if there is a terminal and a second has passed."""
        now = time.monotonic()
        if not self._live.is_started or now - self._shown < REFRESH:
            return
        self._shown = now
        table = RichTable(box=None, pad_edge=False)
        for title in ("run", "update", "loss", "images/s"):
            table.add_column(title, justify="left" if title == "run" else "right")
        for cell in running:
            record = newest_record(cell.folder)
            numbers = [
                f"{record[key]:{form}}" if isinstance(record.get(key), int | float) else ""
                for key, form in (("update", "d"), ("loss", ".4f"), ("images_per_second", ".1f"))
            ]
            table.add_row(Text(cell.name), *numbers)
        self._live.update(Group(table, Text(self.summary())), refresh=True)


def plan_text(states: Sequence[tuple[Cell, CellState]]) -> str:
    """The cells with their state and what is left of them, as a table; then the sum.

    `left` is images still to be trained on. Hours are those at the mean speed of finished cells
    that differ in nothing that matters for speed; without such cells they are empty.
    """
    hours = [hours_left(state.left, speed_of(cell, states)) for cell, state in states]
    rows = [("cell", "state", "updates", "top-1 %", "images left", "hours left")]
    for (cell, state), time_left in zip(states, hours, strict=True):
        total = "?" if state.total is None else str(state.total)
        top1 = "" if state.top1 is None else f"{100 * state.top1:.2f}"
        left = "" if state.left is None else str(state.left)
        text = f"{time_left:.2f}" if time_left else ""
        rows.append((cell.name, state.state, f"{state.done}/{total}", top1, left, text))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            text.ljust(width) if column < 2 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, sum_text([state for _, state in states], hours)])


def hours_left(images: int | None, speed: float | None) -> float | None:
    """Hours for the images at a speed in images/s; None if one of them is not known."""
    if images == 0:
        return 0.0
    return images / speed / 3600 if images and speed else None


def sum_text(states: Sequence[CellState], hours: Sequence[float | None]) -> str:
    """The sum of a plan, and what it does not count."""
    count = Counter(str(state.state) for state in states)
    parts = [f"{count[state]} {state}" for state in ORDER if count[state]]
    cost = f"{sum(state.left or 0 for state in states)} images left"
    total = sum(time_left or 0 for time_left in hours)
    if total:
        cost += f", {total:.2f} hours one after another"
    uncounted = sum(state.left is None for state in states)
    if uncounted:  # a length in epochs becomes updates when the run has read its data set
        cost += f", besides those of {uncounted} cells with train.epochs that have not started"
    unknown = hours.count(None)
    if unknown:
        cost += f"; time unknown for {unknown} cells: no finished one is like them"
    return f"{len(states)} cells: {', '.join(parts)}; {cost}"


def failure_text(cell: Cell, reason: str) -> str:
    """A failed cell with the last lines of its log."""
    lines = "\n".join(f"  | {line}" for line in last_lines(cell.log))
    return (
        f"{cell.name}: {reason}; {cell.log} ends with\n{lines}"
        if lines
        else f"{cell.name}: {reason}"
    )
