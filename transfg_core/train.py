"""The training loop that both backends share."""

import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any

from transfg_core.backend import Arrays, Backend, Batch
from transfg_core.config.sections import Config, TrainConfig
from transfg_core.data.datasets import Dataset
from transfg_core.data.loader import TrainStream
from transfg_core.errors import RunFailed
from transfg_core.evaluate import Evaluation, evaluate
from transfg_core.run.folder import RunFolder
from transfg_core.run.progress import Progress
from transfg_core.schedule import lr_at

STANDARD_ERROR = 2
STOPPING = b"\nstopping after this update and saving `last`; a second signal stops at once\n"


@dataclass
class Position:
    """The updates that a run has done, and its best evaluation so far."""

    update: int = 0
    evaluated: int = 0  # the update after which the test split was last evaluated
    best_top1: float = -1.0
    best_update: int = 0


@dataclass
class StopRequest:
    """Set by the first SIGINT or SIGTERM: the loop finishes its update, saves `last` and ends."""

    signal: int | None = None


@dataclass
class Training:
    """The parts of one training run; `position` advances with the updates."""

    config: Config
    backend: Backend
    dataset: Dataset
    run: RunFolder
    position: Position
    progress: Progress

    def evaluate(self) -> Evaluation:
        """Evaluate the test split once."""
        test = self.dataset.test
        return evaluate(self.backend, test, self.config, self.progress.evaluating)

    def evaluate_and_log(self) -> Evaluation:
        """Evaluate; update the position, append to metrics.jsonl and print the result."""
        position, evaluation = self.position, self.evaluate()
        self.progress.skipped(evaluation.bad_images)
        self.run.log({"kind": "eval", "update": position.update} | evaluation.record())
        self.progress.evaluated(position.update, evaluation.record())
        position.evaluated = position.update
        if evaluation.top1 > position.best_top1:  # a tie keeps the earlier update
            position.best_top1, position.best_update = evaluation.top1, position.update
        return evaluation

    def save(self, numbered: bool = False) -> None:
        """Save `best` if this update is the best, a numbered checkpoint if asked, then `last`."""
        arrays: Arrays = self.backend.state()
        position, dataset = self.position, self.dataset
        metadata = {
            "backend": self.backend.name,
            "config": self.config.model_dump(mode="json"),
            "position": asdict(position),
            "dataset": {
                "name": dataset.name,
                "classes": list(dataset.classes),
                "train_images": len(dataset.train.labels),
            },
        }
        if position.best_update == position.update:
            self.run.save("best", arrays, metadata)
        if numbered:
            self.run.save(position.update, arrays, metadata)
        self.run.save("last", arrays, metadata)


class UpdateLog:
    """Fetches each update's numbers one update late, so that the device never waits for the host.

    The host checks for NaN here, because kernels compiled with fast maths may miss it.
    """

    def __init__(self, backend: Backend, run: RunFolder, progress: Progress) -> None:
        self._backend, self._run, self._progress = backend, run, progress
        self._pending: tuple[Any, dict[str, Any]] | None = None

    def put(self, handle: Any, record: dict[str, Any]) -> None:
        """Remember an issued update; call `flush` for the previous one first."""
        assert self._pending is None
        self._pending = handle, record

    def flush(self) -> None:
        """Wait for the pending update, if any, and log it.

        Raises:
            RunFailed: its loss or gradient norm is not finite.
        """
        if self._pending is None:
            return
        handle, record = self._pending
        self._pending = None
        values = {name: float(value) for name, value in self._backend.fetch(handle).items()}
        record = {"kind": "train"} | record | values
        self._run.log(record)
        self._progress.updated(record)
        broken = [name for name in ("loss", "grad_norm") if not math.isfinite(values[name])]
        if broken:
            raise RunFailed(
                f"update {record['update']}: {broken[0]} is {values[broken[0]]}, expected a finite "
                f"number; {self._run.checkpoint_path('last')} (if it exists) was saved before "
                "that. Try a smaller optim.lr, a longer optim.warmup or a smaller optim.clip"
            )


def train(training: Training, stop: StopRequest) -> Evaluation | None:
    """Train from the position to `config.train.steps`; return None if stopped before the end.

    Update k = 1, 2, ... takes batch k of the stream and the rate lr_at(k). A run therefore resumes
    from a checkpoint of either backend.

    Raises:
        RunFailed: a loss or gradient is not finite, an image cannot be read, the disk is full.
    """
    config, backend, position = training.config, training.backend, training.position
    dataset, progress, settings = training.dataset, training.progress, training.config.train
    evaluation = None
    log = UpdateLog(backend, training.run, progress)
    stream = TrainStream(
        dataset.train, config.data, settings.batch_size, config.run.seed, position.update
    )
    with closing(stream):
        if is_due(position, settings) and position.update < settings.steps:
            # this evaluation was due when the run was stopped; a stop does not wait for it
            training.evaluate_and_log()
            training.save()
        for update in range(position.update + 1, settings.steps + 1):
            began = time.perf_counter()
            batch = next(stream)
            progress.skipped(stream.bad_images)
            loaded = time.perf_counter()
            lr = lr_at(update, config.optim, settings.steps)
            handle = backend.train_step(split_batch(batch, settings.accumulation), lr)
            log.flush()  # logs the previous update
            issued = time.perf_counter()
            speed = settings.batch_size / (issued - began)
            timing = {"images_per_second": speed, "data_seconds": loaded - began}
            epoch = update * settings.batch_size / len(dataset.train.labels)
            log.put(handle, {"update": update, "epoch": epoch, "lr": lr} | timing)
            position.update = update
            numbered = settings.save_every is not None and update % settings.save_every == 0
            stopping = stop.signal is not None and update < settings.steps
            if not (is_due(position, settings) or numbered or stopping):
                continue
            log.flush()
            if is_due(position, settings) and not stopping:
                evaluation = training.evaluate_and_log()
            training.save(numbered)
            if stopping:
                return None
    # without an evaluation, the run was resumed after its last update, to write its predictions
    return evaluation or training.evaluate()


def is_due(position: Position, settings: TrainConfig) -> bool:
    """Whether an evaluation is scheduled after this update and not done yet."""
    update = position.update
    scheduled = update == settings.steps or update % settings.eval_every == 0
    return scheduled and position.evaluated < update


def split_batch(batch: Batch, parts: int) -> list[Batch]:
    """Split a batch into `parts` micro-batches, in order: (B, ...) -> parts x (B / parts, ...)."""
    size = len(batch.labels) // parts
    return [
        Batch(batch.images[start : start + size], batch.labels[start : start + size])
        for start in range(0, size * parts, size)
    ]


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM into a request; a second signal ends the program at once."""
    request = StopRequest()

    def handler(number: int, frame: FrameType | None) -> None:
        if request.signal is not None:
            raise SystemExit(128 + number)
        request.signal = number
        with suppress(OSError):  # bypasses Python's buffer, which the main code may be using
            os.write(STANDARD_ERROR, STOPPING)

    previous = {
        number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield request
    finally:
        for number, old_handler in previous.items():
            signal.signal(number, old_handler)
