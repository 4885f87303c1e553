"""Progress of a run on the screen: a live bar on a terminal, occasional lines in a log."""

import os
import sys
import time
from collections.abc import Mapping
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from transfg_core.closing import Closing

LOG_SECONDS = 15.0  # between lines without a terminal
LONGEST = 8000  # characters of a message


class StandardError(Console):
    """Plain text on standard error; a closed pipe silences it instead of ending the run."""

    def __init__(self) -> None:
        super().__init__(stderr=True, markup=False, emoji=False, highlight=False)

    def on_broken_pipe(self) -> None:
        """Print nothing more, for example after `transfg train ... 2>&1 | head` has its lines."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def plain(text: str) -> str:
    """The text with escapes in place of characters that would steer a terminal, cut if very long.

    Class names and paths in messages may come from files of somebody else.
    """
    shown = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}..."


class Progress(Closing):
    """Progress of training and evaluation on standard error."""

    def __init__(self, name: str, steps: int = 0, done: int = 0) -> None:
        """`steps` is 0 for an evaluation without training; `done` updates are already done."""
        self._console = StandardError()
        self._name, self._steps, self._last_update = name, steps, done
        self._last_line = time.perf_counter()
        self._skipped: set[str] = set()
        self._bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}", markup=False),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        visible = steps > 0
        self._train = self._bar.add_task(
            name, total=steps, completed=done, visible=visible, numbers=""
        )
        self._eval = self._bar.add_task("evaluate", total=None, visible=False, numbers="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def close(self) -> None:
        """Stop and remove the bar."""
        self._bar.stop()

    def say(self, text: str) -> None:
        """Print a line that stays on the screen."""
        self._console.print(plain(text), soft_wrap=True)

    def skipped(self, bad_images: Mapping[str, str]) -> None:
        """Name each unreadable image (path -> reason) once."""
        for path in bad_images.keys() - self._skipped:
            self.say(f"{path}: skipped: {bad_images[path]}")
            self._skipped.add(path)

    def updated(self, record: Mapping[str, Any]) -> None:
        """Show that an update is done; `record` as in metrics.jsonl."""
        numbers = (
            f"loss {record['loss']:.4f}  lr {record['lr']:.2e}  "
            f"{record['images_per_second']:.1f} img/s"
        )
        self._bar.update(self._train, completed=record["update"], numbers=numbers)
        now = time.perf_counter()
        if not self._console.is_terminal and now - self._last_line >= LOG_SECONDS:
            # uses the pace since the last line, because the first updates may compile operators
            pace = (now - self._last_line) / max(record["update"] - self._last_update, 1)
            left = pace * (self._steps - record["update"])
            self._last_line, self._last_update = now, record["update"]
            self.say(
                f"{self._name}  {record['update']}/{self._steps}  {numbers}  {left:.0f} s left"
            )

    def evaluating(self, images: int, total: int) -> None:
        """Show that `images` more images of `total` are evaluated."""
        self._bar.update(self._eval, advance=images, total=total, visible=True)

    def evaluated(self, record: Mapping[str, Any]) -> None:
        """Show that an evaluation is done; `record` as in metrics.jsonl."""
        self._bar.update(self._eval, completed=0, visible=False)
        parts = ""
        if record["part_hit"] is not None:
            parts = (
                f", part hits {100 * record['part_hit']:.1f} %"
                f" (chance {100 * record['part_hit_chance']:.1f} %)"
            )
        update = record["weights_update"]
        best = " (the best)" if record["weights"] == "best" else ""
        self.say(
            f"{self._name}  update {update}{best}: {record['split']} "
            f"top-1 {100 * record['top1']:.2f} %, "
            f"top-5 {100 * record['top5']:.2f} %, loss {record['loss']:.4f}{parts}"
        )


class CountProgress(Closing):
    """How many of `total` images are done: a bar on a terminal, occasional lines in a log."""

    def __init__(self, name: str, total: int) -> None:
        self._console = StandardError()
        self._name, self._total, self._done = name, total, 0
        self._began = self._last_line = time.perf_counter()
        self._bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task(name, total=total)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def close(self) -> None:
        """Stop and remove the bar."""
        self._bar.stop()

    def advance(self) -> None:
        """Show that one more image is done."""
        self._done += 1
        self._bar.update(self._task, completed=self._done)
        now = time.perf_counter()
        if not self._console.is_terminal and now - self._last_line >= LOG_SECONDS:
            self._last_line = now
            pace = self._done / (now - self._began)
            line = f"{self._name}  {self._done}/{self._total}  {pace:.1f} img/s"
            left = (self._total - self._done) / pace
            self._console.print(plain(f"{line}  {left:.0f} s left"), soft_wrap=True)
