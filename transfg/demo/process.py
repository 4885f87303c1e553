"""A worker process as the server sees it: its start, one request at a time, its end."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transfg_core.closing import Closing
from transfg_core.machine import child_environment

Answer = dict[str, Any]

COMMAND = (sys.executable, "-m", "transfg.demo.worker")
LAST_WORDS = 5  # seconds for a worker to exit after its pipe is closed
CHUNK = 1 << 16  # bytes of one read or write of a pipe
# a worker must reach nothing outside of this machine, and needs none of these services
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}


class WorkerGone(Exception):
    """The worker died or took too long: `code` names the message."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


@dataclass(frozen=True)
class Settings:
    """What all workers of a demo have in common."""

    runs: tuple[Path, ...]
    megapixels: int
    seconds: float  # the limit of one request
    threads: int | None = None


class Worker(Closing):
    """One process, which starts with this object. Its owner sends one request at a time."""

    def __init__(self, backend: str, settings: Settings) -> None:
        self.backend = backend
        self._rest = b""
        self._answers, theirs = os.pipe()
        job: dict[str, Any] = {"backend": backend, "runs": [str(run) for run in settings.runs]}
        job |= {"megapixels": settings.megapixels, "answers": theirs}
        try:
            self.process = subprocess.Popen(
                [*COMMAND, json.dumps(job)],
                stdin=subprocess.PIPE,
                stdout=2,  # send the output of frameworks to standard error
                pass_fds=[theirs],
                env=child_environment(settings.threads) | OFFLINE,
                start_new_session=True,  # Ctrl-C in a terminal reaches the server alone
            )
        except OSError:
            os.close(self._answers)
            raise
        finally:
            os.close(theirs)
        assert self.process.stdin
        self._requests = self.process.stdin.fileno()
        os.set_blocking(self._requests, False)

    def ask(self, request: dict[str, Any], content: bytes, seconds: float) -> Answer:
        """Send a request with a picture, and wait for the answer.

        Raises:
            WorkerGone: the worker died, or took longer than `seconds`.
        """
        until = time.monotonic() + seconds
        line = json.dumps(request | {"length": len(content)}).encode() + b"\n"
        for part in (line, content):
            self._send(memoryview(part), until)
        return self.read(until)

    def read(self, until: float) -> Answer:
        """The next answer.

        Raises:
            WorkerGone: see `ask`.
        """
        parts = [self._rest]
        while b"\n" not in parts[-1]:
            self._wait(self._answers, select.POLLIN, until)
            chunk = os.read(self._answers, CHUNK)
            if not chunk:
                raise WorkerGone("crashed", f"the {self.backend} worker ended{self._status()}")
            parts.append(chunk)
        line, _, self._rest = b"".join(parts).partition(b"\n")
        answer: Answer = json.loads(line)
        return answer

    def _send(self, view: memoryview, until: float) -> None:
        while view:
            self._wait(self._requests, select.POLLOUT, until)
            try:
                view = view[os.write(self._requests, view[:CHUNK]) :]
            except BrokenPipeError as error:
                raise WorkerGone("crashed", f"the {self.backend} worker ended") from error

    def _wait(self, descriptor: int, event: int, until: float) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        left = until - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise WorkerGone("too_slow", f"the {self.backend} worker took too long")

    def _status(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            status = self.process.wait(timeout=LAST_WORDS)
            if status == -signal.SIGKILL:
                return ": killed, most likely out of memory"
            return f" with status {status}"
        return ""

    def close(self) -> None:
        """Close the pipe, which ends the worker; kill it if it works on."""
        assert self.process.stdin
        with suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=LAST_WORDS)
        except subprocess.TimeoutExpired:
            self.kill()
        with suppress(OSError):
            os.close(self._answers)

    def kill(self) -> None:
        """End the process at once, with its children."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
