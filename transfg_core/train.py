"""The training loop that both backends share."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from types import FrameType

import numpy as np

from transfg_core.backend import Arrays, Backend, Batch
from transfg_core.checkpoints.training import read_checkpoint
from transfg_core.config.sections import Config, TrainConfig
from transfg_core.data.datasets import Dataset, Samples
from transfg_core.data.loader import TrainStream
from transfg_core.errors import Diverged, RunFailed
from transfg_core.evaluate import Evaluation, evaluate
from transfg_core.run.folder import RunFolder, Which
from transfg_core.run.progress import Progress
from transfg_core.schedule import lr_at
from transfg_core.update_log import UpdateLog

STANDARD_ERROR = 2
STOPPING = b"\nstopping after this update and saving `last`; a second signal stops at once\n"


@dataclass
class Position:
    """The updates that a run has done, and its best evaluation so far."""

    update: int = 0
    evaluated: int = 0  # the update after which the model was last evaluated
    best_top1: float = -1.0
    best_update: int = 0


@dataclass
class StopRequest:
    """Set by the first SIGINT or SIGTERM: the loop finishes its update, saves `last` and ends."""

    signal: int | None = None


class Stopped(Exception):
    """A signal ended an evaluation; the state is saved, and the resumed run evaluates it."""


@dataclass
class Training:
    """The parts of one training run; `position` advances with the updates."""

    config: Config
    backend: Backend
    dataset: Dataset
    run: RunFolder
    position: Position
    progress: Progress

    def evaluate(self, samples: Samples, stop: StopRequest) -> Evaluation:
        """Evaluate a split once.

        Raises:
            Stopped: a signal came before the last batch.
        """

        def advance(images: int) -> None:
            if stop.signal is not None:
                raise Stopped
            self.progress.evaluating(images, len(samples.labels))

        return evaluate(self.backend, samples, self.config, advance)

    def log_evaluation(self, evaluation: Evaluation, split: str, best: bool = False) -> None:
        """Log and print the result of the current weights, or of the best ones."""
        position = self.position
        self.progress.skipped(evaluation.bad_images)
        update = position.best_update if best else position.update
        which = "best" if best else "last"
        place = {"split": split, "weights": which, "weights_update": update}
        record = {"kind": "eval", "update": self.position.update} | place | evaluation.record()
        self.run.log(record)
        self.progress.evaluated(record)

    def evaluate_and_save(self, stop: StopRequest) -> Evaluation:
        """Evaluate the split that chooses the best step; save `last`, and `best` if this is it."""
        position, dataset = self.position, self.dataset
        chooser = "test" if dataset.validation is None else "validation"
        evaluation = self.evaluate(dataset.validation or dataset.test, stop)
        self.log_evaluation(evaluation, chooser)
        position.evaluated = position.update
        best = evaluation.top1 > position.best_top1  # a tie keeps the earlier update
        if best:
            position.best_top1, position.best_update = evaluation.top1, position.update
        others: list[Which] = ["best"] if best else []
        self.save(*others)
        return evaluation

    def evaluate_test(self, stop: StopRequest) -> Evaluation:
        """Evaluate the test split once, after the last update, where validation chose the best.

        Both the last weights and the best ones are evaluated. Returns the last ones' result.
        A resumed run makes both evaluations again (`RunFolder.rewind`).

        Raises:
            Stopped: a signal came before the last batch.
            UserError: the checkpoint `best` is absent or damaged.
        """
        position, test = self.position, self.dataset.test
        last = best = self.evaluate(test, stop)
        self.log_evaluation(last, "test")
        if position.best_update != position.update:
            self.backend.load_state(read_checkpoint(self.run.checkpoint_path("best")).arrays)
            best = self.evaluate(test, stop)
        self.log_evaluation(best, "test", best=True)
        return last

    def save(self, *others: Which) -> None:
        """Save the state under each name in `others`, then as `last`.

        Raises:
            Diverged: a number is not finite; the older checkpoints are intact.
            RunFailed: an update failed half-way, or the disk is full.
        """
        arrays: Arrays = self.backend.state()
        position, dataset = self.position, self.dataset
        self.check(arrays)
        metadata = {
            "backend": self.backend.name,
            "config": self.config.model_dump(mode="json"),
            "position": asdict(position),
            "dataset": {
                "name": dataset.name,
                "classes": list(dataset.classes),
                "class_ids": list(dataset.class_ids),
                "train_images": len(dataset.train.labels),
                "images": dataset.digest(),
            },
        }
        for which in (*others, "last"):
            self.run.save(which, arrays, metadata)

    def check(self, arrays: Arrays) -> None:
        """Refuse a state that is not the one after update `position.update`, or is not finite."""
        update, done = self.position.update, int(arrays["optim/updates"])
        if done != update:
            raise RunFailed(
                f"expected the state after update {update}, but update {done} failed half-way"
            )
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise Diverged(
                    f"update {update}: {name} is not finite: training has diverged; "
                    f"{self.run.describe_saved()}. Start another run, also from there with "
                    "--resume-from, with a smaller optim.lr"
                )

    def rescue(self, log: UpdateLog) -> None:
        """Save the state after the last whole update, after an error, and say what is saved."""
        update = self.position.update
        try:
            log.flush()
        except Diverged as error:
            self.progress.say(str(error))
            return
        except Exception as error:  # a state without its record is better than none
            self.progress.say(f"update {update} is not logged: {error}")
        try:
            if self.run.saved_update != update > 0:
                self.save()
        except Exception as error:  # whatever it is, the first error counts
            self.progress.say(f"the state after update {update} is not saved: {error}")
        advice = "; --resume continues from there" if self.run.saved_update else ""
        self.progress.say(self.run.describe_saved() + advice)


def train(training: Training, stop: StopRequest) -> Evaluation | None:
    """Train from the position to `config.train.steps`; return None if stopped before the end.

    Update k = 1, 2, ... takes batch k of the stream and the rate lr_at(k). A run therefore resumes
    from a checkpoint of either backend. An error does not lose the updates before it: the state
    after the last whole update is saved as `last`.

    Raises:
        RunFailed: a loss or gradient is not finite, an image cannot be read, the disk is full.
    """
    log = UpdateLog(training.backend, training.run, training.progress)
    try:
        return run_updates(training, stop, log)
    except Stopped:
        return None
    except Diverged:
        raise
    except Exception:  # whatever ends the run, its updates are saved before it ends
        training.rescue(log)
        raise


def run_updates(training: Training, stop: StopRequest, log: UpdateLog) -> Evaluation | None:
    """Make the updates, with the evaluations and checkpoints that the configuration asks for."""
    config, backend, position = training.config, training.backend, training.position
    dataset, progress, settings = training.dataset, training.progress, training.config.train
    evaluation = None
    if is_due(position, settings):
        # this evaluation was due when the run was stopped; a stop does not wait for it
        evaluation = training.evaluate_and_save(stop)
    stream = TrainStream(
        dataset.train,
        config.data,
        settings.batch_size,
        config.run.seed,
        position.update,
        classes=len(dataset.classes),
    )
    with closing(stream):
        for update in range(position.update + 1, settings.steps + 1):
            began = time.perf_counter()
            batch = next(stream)
            progress.skipped(stream.bad_images)
            loaded = time.perf_counter()
            lr = lr_at(update, config.optim, settings.steps)
            handle = backend.train_step(split_batch(batch, settings.accumulation), lr)
            position.update = update
            log.flush()  # logs the previous update
            issued = time.perf_counter()
            speed = settings.batch_size / (issued - began)
            timing = {"images_per_second": speed, "data_seconds": loaded - began}
            epoch = update * settings.batch_size / len(dataset.train.labels)
            log.put(handle, {"update": update, "epoch": epoch, "lr": lr} | timing)
            numbered = settings.save_every is not None and update % settings.save_every == 0
            if not (is_due(position, settings) or numbered or stop.signal is not None):
                continue
            log.flush()
            training.save(*([update] if numbered else []))
            if stop.signal is not None:
                return None
            if is_due(position, settings):  # saved before, so that a failure loses nothing
                evaluation = training.evaluate_and_save(stop)
    if dataset.validation is not None:
        return training.evaluate_test(stop)
    # without an evaluation, the run was resumed after its last update, to write its predictions
    return evaluation or training.evaluate(dataset.test, stop)


def is_due(position: Position, settings: TrainConfig) -> bool:
    """Whether an evaluation is scheduled after this update and not done yet."""
    update = position.update
    scheduled = update == settings.steps or update % settings.eval_every == 0
    return scheduled and position.evaluated < update


def split_batch(batch: Batch, parts: int) -> list[Batch]:
    """Split a batch into `parts` micro-batches, in order: (B, ...) -> parts x (B / parts, ...)."""
    size = len(batch.labels) // parts
    pieces = [slice(start, start + size) for start in range(0, size * parts, size)]
    images, labels, targets = batch
    return [
        Batch(images[piece], labels[piece], None if targets is None else targets[piece])
        for piece in pieces
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
