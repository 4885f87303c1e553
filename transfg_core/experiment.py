"""The command `train`: from a configuration to a run.

All input is checked here, before the first update.
"""

import math
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from transfg_core.backend import Backend, load_backend
from transfg_core.checkpoints.averages import start_averages
from transfg_core.checkpoints.pretrained import build_params
from transfg_core.checkpoints.training import TrainingCheckpoint, newest_intact, read_checkpoint
from transfg_core.checkpoints.weight_file import Origin
from transfg_core.config.sections import Config
from transfg_core.data.cache.build import fill_cache
from transfg_core.data.datasets import Dataset, read_dataset, with_equal_files
from transfg_core.data.sample_reader import EvalReader, TrainReader
from transfg_core.errors import UserError
from transfg_core.params.groups import learned_shapes, trained_params
from transfg_core.params.merge import summary
from transfg_core.resume import (
    forget_lost_best,
    is_finished,
    refuse_new_split,
    refuse_to_delete,
    require_records,
    resume_position,
    split_of,
)
from transfg_core.run.folder import RunFolder
from transfg_core.run.lock import is_run, refuse_if_used
from transfg_core.run.progress import Progress
from transfg_core.train import Position, Training, stop_on_signals, train


def start_training(
    config: Config,
    backend_name: str,
    resume: bool = False,
    resume_from: Path | None = None,
    overwrite: bool = False,
) -> int:
    """Start or resume a training run; return 0, or 128 + the signal that stopped it.

    `resume` continues from the run folder's newest intact checkpoint, and names damaged ones;
    without a checkpoint, the run starts from the beginning. `resume_from` starts a run at any
    checkpoint of either backend. With both, the folder's own checkpoint takes precedence.

    Raises:
        UserError: the configuration, data, checkpoint or folder is wrong.
        RunFailed: the run failed.
    """
    folder = Path(config.run.dir) / config.run.name
    with ExitStack() as stack:
        run, own, damaged = None, None, list[str]()
        if resume and is_run(folder):
            run = stack.enter_context(RunFolder.open(folder))  # locked before it is read
            own, damaged = newest_intact(folder)
            if own:
                require_records(folder)
        replace = overwrite or run is not None  # a run without a checkpoint has nothing to lose
        if own is None:
            refuse_if_used(folder, replace)
            refuse_to_delete(resume_from, folder, replace)
        source = own or (read_checkpoint(resume_from) if resume_from else None)
        saved_split = split_of(source.path if source else None, config.data)
        dataset = read_dataset(config.data, config.run.seed, saved_split)
        if source:
            refuse_new_split(source, saved_split, config, dataset)
        config = with_length(with_classes(config, dataset), dataset)
        position = Position()
        if source:
            position = resume_position(source, config, dataset, same_run=own is not None)
        dataset = with_equal_files(dataset)
        steps = config.train.steps
        progress = Progress(config.run.name, steps, position.update)
        if own:
            damaged.append(forget_lost_best(folder, position))
        for message in filter(None, damaged):
            progress.say(message)
        if own and position.update == steps and is_finished(folder):
            progress.say(f"{own.path}: already at update {position.update} of {steps}")
            return 0
        check_first_images(config, dataset, position)
        scored = [each for each in (dataset.test, dataset.validation) if each]
        fill_cache(config.data, dataset.train, scored, progress.say)
        backend, weights = start_backend(config, backend_name, source, progress)
        if source:
            progress.say(f"{source.path}: resuming after update {position.update}")
        elif resume:
            progress.say(f"{folder}: no checkpoint to resume from, starting at update 1")
        progress.say(describe_run(config, dataset, folder))
        if run is None:
            run = stack.enter_context(RunFolder.create(config, overwrite))
        elif own is None:
            run.start_over(config)
        else:
            run.write_config(config)
            run.rewind(own.path, position.update, position.evaluated)
        if dataset.split:
            run.write_split(dataset.split.csv())
        run.record_environment(backend.device_info(), sys.argv, dataset.counts(), weights)
        return run_loop(Training(config, backend, dataset, run, position, progress))


def describe_run(config: Config, dataset: Dataset, folder: Path) -> str:
    """The run's folder, data and length; then what was left out, one line for each reason."""
    train, steps, batch = len(dataset.train.labels), config.train.steps, config.train.batch_size
    held = f", {len(dataset.validation.labels)} validation" if dataset.validation else ""
    line = (
        f"{folder}: {len(dataset.classes)} classes, {train} training{held} and "
        f"{len(dataset.test.labels)} test images; {steps} updates of {batch} images, "
        f"{steps * batch / train:.1f} epochs"
    )
    return "\n".join([line, *dataset.notes()])


def start_backend(
    config: Config, name: str, source: TrainingCheckpoint | None, progress: Progress
) -> tuple[Backend, Origin | None]:
    """Create the backend, with the state of the checkpoint `source` or with starting values.

    Also returns the file of weights that the starting values came from, if there is one.
    """
    if source is None:
        params, report = build_params(config)
        backend = load_backend(name, config)
        backend.load_params(params)
        progress.say(report.summary() if report else summary(learned_shapes(config)))
        return backend, report.origin if report else None
    backend = load_backend(name, config)
    trained = trained_params(config.model, config.optim)
    arrays, note = start_averages(source.arrays, config.optim.ema is not None, trained)
    try:
        backend.load_state(arrays)
    except UserError as error:
        raise UserError(f"{source.path}: {error}") from error
    if note:
        progress.say(f"{source.path}: {note}")
    return backend, None


def run_loop(training: Training) -> int:
    """Train, and log the start and the end of the run; return the exit code."""
    began = time.perf_counter()
    backend, position, run = training.backend, training.position, training.run

    def event(kind: str) -> None:
        peak = backend.device_info()["peak_memory_bytes"]
        record = {"kind": "event", "event": kind, "backend": backend.name}
        numbers = {"update": position.update, "seconds": time.perf_counter() - began}
        run.log(record | numbers | {"peak_memory_bytes": peak})

    event("resume" if position.update else "start")
    with stop_on_signals() as stop, training.progress as progress:
        try:
            evaluation = train(training, stop)
        except RuntimeError:
            # Ctrl-C also ends the compilers that Jittor started; the operator then fails.
            if stop.signal is None:
                raise
            progress.say("interrupted while compiling operators")
            return 128 + stop.signal
        if evaluation is None:
            assert stop.signal is not None
            event("interrupted")
            saved = run.checkpoint_path("last")
            progress.say(
                f"interrupted after update {position.update}: saved {saved}; resume with --resume"
            )
            return 128 + stop.signal
        names = [training.dataset.test.ids[row] for row in evaluation.index]
        run.write_predictions(names, evaluation.labels, evaluation.logits)
        event("finish")
        return 0


def check_first_images(config: Config, dataset: Dataset, position: Position) -> None:
    """Read one image of each split, so that a wrong `data.crop` stops the run before it starts.

    Raises:
        UserError: an image cannot be read, or is smaller than the crop.
    """
    train, test = dataset.train, dataset.test
    read_train = TrainReader(train, config.data, config.run.seed)
    read_first = EvalReader(test, config.data)
    stream_position = position.update * config.train.batch_size
    first = [read_train(stream_position)] if train.paths else []  # none in an evaluation
    for record in (*first, read_first(0)):
        if record.error:
            raise UserError(record.error)


def with_classes(config: Config, dataset: Dataset) -> Config:
    """The configuration with `model.classes` from the data set.

    Raises:
        UserError: the configuration sets another number of classes.
    """
    found, expected = len(dataset.classes), config.model.classes
    if expected not in (None, found):
        raise UserError(
            f"model.classes: expected {expected}, but {config.data.root} has {found} classes; "
            "leave model.classes out, or choose the data set that has this number"
        )
    model = config.model.model_copy(update={"classes": found})
    return config.model_copy(update={"model": model})


def with_length(config: Config, dataset: Dataset) -> Config:
    """The configuration with `train.steps` in place of `train.epochs`: every image in each epoch.

    Raises:
        UserError: the warm-up is longer than the run.
    """
    train, images = config.train, len(dataset.train.labels)
    if train.epochs is None:
        return config
    steps = math.ceil(train.epochs * images / train.batch_size)
    if config.optim.warmup > steps:
        raise UserError(
            f"train.epochs: {train.epochs:g} epochs of {images} images are {steps} updates, fewer "
            f"than optim.warmup {config.optim.warmup}; lower optim.warmup, or raise train.epochs"
        )
    train = train.model_copy(update={"steps": steps, "epochs": None})
    return config.model_copy(update={"train": train})
