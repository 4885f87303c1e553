"""Where the runs of a sweep are started: an engine gives a `Running` for each cell."""

from dataclasses import dataclass
from typing import Any, Protocol, Self

from transfg.sweep.grid import Cell
from transfg.sweep.process import CellProcess
from transfg_core.closing import Closing


class Running(Protocol):
    """A run that was started."""

    def poll(self) -> int | None:
        """The exit code, or minus the signal that killed it; None while it runs."""
        ...

    def stop(self) -> None:
        """Ask it to save `last` and to end; a second time, to end at once."""
        ...

    def close(self) -> None:
        """Free what belongs to it."""
        ...


class Engine(Protocol):
    """Starts runs; a `with` block closes it."""

    @property
    def jobs(self) -> int:
        """How many runs may run at the same time."""
        ...

    def start(self, cell: Cell) -> Running:
        """Start a cell's run.

        Raises:
            RunFailed: it cannot be started.
        """
        ...

    def __enter__(self) -> Self:
        """Itself."""
        ...

    def __exit__(self, *error: Any) -> None:
        """Free what belongs to the engine."""
        ...


@dataclass(frozen=True)
class LocalEngine(Closing):
    """Child processes of this one; each run has `threads` threads, None: as many as it takes."""

    jobs: int = 1
    threads: int | None = None

    def start(self, cell: Cell) -> Running:
        """Start a cell's run as a child process."""
        return CellProcess(
            cell.command(thread_overrides(cell, self.threads)), cell.log, self.threads
        )

    def close(self) -> None:
        """Nothing to free."""


def thread_overrides(cell: Cell, threads: int | None) -> list[str]:
    """The loader's threads are among a run's; their number changes no batch."""
    if threads is None or cell.config.data.threads <= threads:
        return []
    return [f"data.threads={threads}"]
