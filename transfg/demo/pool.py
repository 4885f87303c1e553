"""The workers of the demo: one process per framework, one request at a time.

A worker that dies or takes too long is replaced, and the request gets an answer that says so.
"""

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from transfg.demo.process import Settings, Worker, WorkerGone
from transfg_core.closing import Closing
from transfg_core.errors import RunFailed, UserError

Answer = dict[str, Any]

START_LIMIT = 600  # seconds to load and warm up; Jittor compiles its operators the first time
# the reader learns the code alone: the reason may name places on the server
LOGGED = ("crashed", "too_slow", "memory", "model")
UNUSABLE = "the output of the server has the reason"


def log(text: str) -> None:
    """One line for whoever runs the demo."""
    print("demo:", " ".join(text.split()), file=sys.stderr, flush=True)


class Stopping(Exception):
    """The server is being stopped, and takes no further request."""


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
                models = self._await_ready(backend)
            except WorkerGone as error:
                raise RunFailed(f"backend {backend}: cannot start: {error.detail}") from error
            for model in models:
                if "refused" in model:
                    raise UserError(model["refused"])
            self.models = models

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until no other request computes, and hold the workers for all models of this one.

        A stop waits for the end of the block, so that a request is answered whole or not at all.

        Raises:
            Stopping: the server is stopping.
        """
        with self._turn:
            if self.stopping:
                raise Stopping
            yield

    def ask(self, backend: str, run: int, content: bytes, pictures: bool) -> Answer:
        """The answer of one model, or `error` with its reason. The caller has the `turn`."""
        assert self._turn.locked()
        self.counts[backend]["requests"] += 1
        try:
            self._revive(backend)
            self._await_ready(backend)
            request = {"run": run, "pictures": pictures}
            answer = self._workers[backend].ask(request, content, self.settings.seconds)
        except WorkerGone as error:
            # a worker that cannot start is not the picture's fault
            code = error.code if backend in self._ready else "model"
            answer = {"error": code, "detail": error.detail}
            self._replace(backend)
        if answer.get("error") in LOGGED:
            place = f"{self.settings.runs[run]} in {backend}"
            log(f"{place}: {answer['error']}: {answer['detail']}")
        return answer | {"detail": UNUSABLE} if answer.get("error") == "model" else answer

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

    def _revive(self, backend: str) -> None:
        """Replace a worker that ended after its last answer, without a request to blame."""
        worker = self._workers.get(backend)
        if worker and (status := worker.process.poll()) is not None:
            log(f"the {backend} worker ended with status {status} between two requests")
            self._replace(backend)
        if backend not in self._workers:
            self._start(backend)

    def _await_ready(self, backend: str) -> list[Answer]:
        """Wait for the first answer of a worker: what its models are, or why one is `refused`."""
        if backend in self._ready:
            return self.models
        models: list[Answer] = self._workers[backend].read(time.monotonic() + START_LIMIT)["models"]
        self._ready.add(backend)
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
