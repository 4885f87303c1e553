"""The workers of the demo: one process per framework, one request at a time.

A worker that dies or takes too long is replaced, and the request gets an answer that says so.
"""

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transfg_core.closing import Closing
from transfg_core.errors import RunFailed, UserError
from transfg_core.machine import child_environment

Answer = dict[str, Any]

COMMAND = (sys.executable, "-m", "transfg.demo.worker")
START_LIMIT = 600  # seconds to load and warm up; Jittor compiles its operators the first time
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


class Pool(Closing):
    """The workers by backend. Only one of them computes at any time."""

    def __init__(self, backends: Sequence[str], settings: Settings) -> None:
        self.settings = settings
        self.backends = tuple(backends)
        self.models: list[Answer] = []  # of `answer.describe`, in the order of the runs
        self.counts = {name: {"requests": 0, "restarts": 0} for name in backends}
        self.stopping = False
        self._workers: dict[str, Worker] = {}
        self._ready: set[str] = set()
        self._turn = threading.Lock()

    def start(self) -> None:
        """Start every worker, one after the other, and learn what the models are.

        Raises:
            UserError: a run cannot be loaded, or a framework is missing.
            RunFailed: a worker died.
        """
        for backend in self.backends:
            self._start(backend)
            try:
                self.models = self._await_ready(backend)
            except WorkerGone as error:
                raise RunFailed(f"backend {backend}: cannot start: {error.detail}") from error

    def ask(self, backend: str, run: int, content: bytes, pictures: bool) -> Answer:
        """The answer of one model, or `error` with its reason; waits for its turn."""
        with self._turn:
            if self.stopping:
                return {"error": "stopping", "detail": "the server is stopping"}
            self.counts[backend]["requests"] += 1
            try:
                if backend not in self._workers:
                    self._start(backend)
                self._await_ready(backend)
                request = {"run": run, "pictures": pictures}
                return self._workers[backend].ask(request, content, self.settings.seconds)
            except WorkerGone as error:
                self._replace(backend)
                return {"error": error.code, "detail": error.detail}
            except UserError as error:  # a run that could be loaded before
                self._drop(backend)
                return {"error": "model", "detail": str(error)}

    def health(self) -> dict[str, Any]:
        """State of each worker: ready, starting or down; and counts."""
        states = {}
        for name in self.backends:
            worker = self._workers.get(name)
            alive = worker is not None and worker.process.poll() is None
            state = ("ready" if name in self._ready else "starting") if alive else "down"
            process = worker.process.pid if worker and alive else None
            states[name] = {"state": state, "process": process, **self.counts[name]}
        return states

    def close(self) -> None:
        """Refuse further requests, let the present one finish, and end the workers."""
        self.stopping = True
        with self._turn:
            for backend in tuple(self._workers):
                self._drop(backend)

    def kill(self) -> None:
        """End the workers at once."""
        self.stopping = True
        for worker in tuple(self._workers.values()):
            worker.kill()

    def _start(self, backend: str) -> None:
        self._workers[backend] = Worker(backend, self.settings)

    def _await_ready(self, backend: str) -> list[Answer]:
        """Wait for the first answer of a worker, which describes its models."""
        if backend in self._ready:
            return self.models
        first = self._workers[backend].read(time.monotonic() + START_LIMIT)
        if "refused" in first:
            raise UserError(first["refused"])
        self._ready.add(backend)
        models: list[Answer] = first["models"]
        return models

    def _replace(self, backend: str) -> None:
        """Kill a worker and start another, which loads its models until the next request."""
        self._workers[backend].kill()
        self._drop(backend)
        if not self.stopping:
            self.counts[backend]["restarts"] += 1
            self._start(backend)

    def _drop(self, backend: str) -> None:
        self._ready.discard(backend)
        self._workers.pop(backend).close()
