"""Run the cells of a sweep that are not finished, several at a time, and survive their failures.

Every cell is an ordinary run with --resume, so the driver keeps no state of its own: the run
folders say what is finished. A new driver continues where a killed one was.
"""

import os
import signal
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType

from transfg.sweep.engines import Engine, Running
from transfg.sweep.grid import Cell
from transfg.sweep.process import POLL
from transfg.sweep.state import is_busy, read_state
from transfg.sweep.table import Table
from transfg_core.config.loading import load_config
from transfg_core.errors import RunFailed, UserError

BUSY_POLL = 5.0  # seconds between two looks at a run folder that another process writes
STANDARD_ERROR = 2
STOPPING = b"\nstopping: every run saves its state and ends; a second signal stops at once\n"
UNFINISHED = "ended without finishing"
TRIES = 2  # of a cell that a signal killed, such as the kernel's when memory is short


@dataclass
class Driver:
    """The state of one start of a sweep; cells are known by their names."""

    engine: Engine
    table: Table
    queue: deque[Cell]
    running: dict[str, tuple[Cell, Running]] = field(default_factory=dict)
    starts: Counter[str] = field(default_factory=Counter)
    failed: dict[str, tuple[Cell, str]] = field(default_factory=dict)  # and how it ended
    stopped: set[str] = field(default_factory=set)  # runs that were asked to end
    looked: dict[str, float] = field(default_factory=dict)  # when a busy folder was looked at
    signal: int | None = None  # that asked the sweep to stop

    def run(self) -> None:
        """Run the queue to its end, or until a stop was requested and every run has ended."""
        with self.stopping():
            try:
                while self.running or (self.queue and self.signal is None):
                    if self.signal is None:
                        self.fill()
                    if self.signal is not None:  # also if it came while a run was started
                        self.stop()
                    self.table.show([cell for cell, _ in self.running.values()])
                    time.sleep(POLL)
                    self.reap()
            finally:  # after an error: the pipes close, which stops the runs
                for _, running in self.running.values():
                    running.close()

    def fill(self) -> None:
        """Start cells while there is room; those that another process runs wait."""
        for _ in range(len(self.queue)):
            if len(self.running) >= self.engine.jobs or self.signal is not None:
                return
            cell = self.queue.popleft()
            if self.is_busy(cell):
                self.queue.append(cell)
            elif self.is_due(cell):
                self.start(cell)

    def is_busy(self, cell: Cell) -> bool:
        """Whether another process runs the cell now, such as a run that a killed driver started."""
        now = time.monotonic()
        if now - self.looked.get(cell.name, -BUSY_POLL) < BUSY_POLL:
            return True
        busy = is_busy(cell)
        if busy and cell.name not in self.looked:
            self.table.say(f"{cell.name}: another process runs it; waiting for its end")
        self.looked[cell.name] = now if busy else -BUSY_POLL
        return busy

    def is_due(self, cell: Cell) -> bool:
        """Whether the run is still to be made: another process may have finished or changed it."""
        state = read_state(cell)
        if state.state == "refused":
            self.fail(cell, state.problem)
        elif state.state == "finished":
            self.table.ended(cell, "finished")
        return state.state in ("partial", "to do")

    def start(self, cell: Cell) -> None:
        """Start a cell's run."""
        try:
            if load_config(cell.base, cell.overrides) != cell.config:
                raise RunFailed(f"{cell.base}: was changed since the sweep began; start it again")
            self.running[cell.name] = cell, self.engine.start(cell)
        except UserError as error:
            self.fail(cell, str(error))
            return
        self.starts[cell.name] += 1
        self.table.started(cell)

    def stop(self) -> None:
        """Ask each run once to save its state and to end."""
        for name, (_, running) in self.running.items():
            if name not in self.stopped:
                running.stop()
                self.stopped.add(name)

    def reap(self) -> None:
        """Look which runs have ended, and how."""
        for name, (cell, running) in list(self.running.items()):
            code, reason = look(running)
            if code is None:
                continue
            running.close()
            del self.running[name]
            state = read_state(cell)
            if code == 0 and state.state == "finished":
                self.table.ended(cell, "finished")
            elif self.signal is not None:
                self.table.ended(cell, "stopped")
            elif is_signal(code) and self.starts[name] < TRIES:
                self.table.say(f"{name}: {describe(code)}; trying it once more")
                self.queue.appendleft(cell)
            else:
                self.fail(cell, reason or (describe(code) if code else state.problem or UNFINISHED))

    def fail(self, cell: Cell, reason: str) -> None:
        """Note a cell's failure; the other cells do not depend on it."""
        self.failed[cell.name] = cell, reason
        self.table.ended(cell, "failed", reason)

    @contextmanager
    def stopping(self) -> Iterator[None]:
        """Note the first SIGINT or SIGTERM; a second one ends this process and the runs at once."""

        def handler(number: int, frame: FrameType | None) -> None:
            if self.signal is not None:
                raise SystemExit(128 + number)  # the pipes close: a second SIGTERM for each run
            self.signal = number
            with suppress(OSError):  # bypasses Python's buffer, which the main code may be using
                os.write(STANDARD_ERROR, STOPPING)

        numbers = (signal.SIGINT, signal.SIGTERM)
        previous = {number: signal.signal(number, handler) for number in numbers}
        try:
            yield
        finally:
            for number, old_handler in previous.items():
                signal.signal(number, old_handler)


def look(running: Running) -> tuple[int | None, str]:
    """The exit code of a run, None while it runs; and the reason if its engine failed."""
    try:
        return running.poll(), ""
    except UserError as error:
        return error.exit_code, str(error)


def is_signal(code: int) -> bool:
    """Whether a signal ended the process, also one that it obeyed by saving `last` first."""
    return code < 0 or code in (128 + signal.SIGINT, 128 + signal.SIGTERM)


def describe(code: int) -> str:
    """How a process ended, in words."""
    if code == -signal.SIGKILL:
        return "killed (SIGKILL); if the machine is short of memory, the kernel does so"
    if code < 0:
        return f"killed by signal {-code} ({signal.Signals(-code).name})"
    return f"ended with exit code {code}"
