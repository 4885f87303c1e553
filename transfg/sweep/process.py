"""One cell as a child process: start it, wait for it, stop it."""

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from transfg_core.closing import Closing
from transfg_core.errors import RunFailed
from transfg_core.machine import child_environment

POLL = 0.2  # seconds between two looks at a run


class CellProcess(Closing):
    """`transfg` in a process of its own that writes to a log, and ends if this process ends.

    It has a session of its own, so Ctrl-C in a terminal reaches the sweep alone, which stops it.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        threads: int | None = None,
        folder: Path | None = None,
    ) -> None:
        """Start the process in `folder`, or else in the current one.

        Operators use `threads` threads; None leaves the number as it is.

        Raises:
            RunFailed: the log cannot be written.
        """
        began = datetime.now(UTC).isoformat(timespec="seconds")
        reading, self._writing = os.pipe()
        try:
            with open(log, "ab", buffering=0) as file:
                file.write(f"== {began} transfg {shlex.join(command)}\n".encode())
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "transfg.sweep.child", str(reading), *command],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    pass_fds=[reading],
                    cwd=folder,
                    env=child_environment(threads),
                    start_new_session=True,
                )
        except OSError as error:
            os.close(self._writing)
            raise RunFailed(f"{log}: cannot start a run: {error.strerror}") from error
        finally:
            os.close(reading)

    def poll(self) -> int | None:
        """The exit code, or minus the signal that killed it; None while it runs."""
        return self.process.poll()

    def stop(self) -> None:
        """Ask it to save `last` and to end; a second time, to end at once."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """Close the pipe, which stops the process if it still runs."""
        os.close(self._writing)


def wait_for_end(cell: CellProcess) -> int:
    """Wait in a worker process of Ray or Slurm; return the code as of `CellProcess.poll`.

    A SIGTERM or a KeyboardInterrupt stops the run, and this returns once the run has ended.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: cell.stop())
    while (code := cell.poll()) is None:
        try:
            time.sleep(POLL)
        except KeyboardInterrupt:
            cell.stop()
    return code


def last_lines(log: Path, count: int = 10) -> list[str]:
    """The last lines of a log that say something; none if it cannot be read."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 200 * count))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()][-count:]
