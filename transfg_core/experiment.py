"""From a configuration to a run: what the commands `train` and `evaluate` do.

Everything that can be wrong with the input is found here, before the first update.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transfg_core import checkpoint
from transfg_core.backend import Arrays, Backend, load_backend
from transfg_core.config import Config, apply_overrides, build_config, differing_keys
from transfg_core.data.datasets import Dataset, read_dataset
from transfg_core.errors import UserError
from transfg_core.evaluate import Evaluation, evaluate
from transfg_core.params import build_params, summary
from transfg_core.progress import Progress
from transfg_core.rundir import RunDir
from transfg_core.train import Position, stop_on_signals, train

# What may differ between a run and the command that resumes it: where files lie, how they are
# read, and how often the run looks and saves; nothing that changes what it computes.
FREE_ON_RESUME = (
    "data.root",
    "data.threads",
    "data.workers",
    "model.pretrained",
    "run.dir",
    "train.eval_batch_size",
    "train.eval_every",
    "train.keep",
    "train.save_every",
)


def start_training(
    config: Config,
    backend_name: str,
    resume: bool = False,
    resume_from: Path | None = None,
    overwrite: bool = False,
) -> int:
    """Train, or go on training; returns 0, or 128 + the signal that stopped the run.

    `resume` goes on with the run folder's `last` checkpoint, and starts where there is none yet;
    `resume_from` goes on from any checkpoint of either backend in a new run folder.

    Raises:
        UserError: something in the configuration, data, checkpoint or folder is wrong.
        RunFailed: the run could not go on.
    """
    folder = Path(config.run.dir) / config.run.name
    last = folder / "checkpoints" / "last.safetensors"
    going_on = resume and last.exists()
    source = resume_from or (last if going_on else None)
    dataset = read_dataset(config.data, config.run.seed)
    config = with_classes(config, dataset)
    position, state = Position(), None
    if source:
        state, position = load_checkpoint(source, config, dataset, same_run=going_on)
    progress = Progress(config.run.name, config.train.steps, position.update)
    if position.update >= config.train.steps:
        progress.say(f"{source}: already at update {position.update} of {config.train.steps}")
        return 0
    backend = load_backend(backend_name, config)
    if state:
        backend.load_state(state)
        progress.say(f"{source}: going on after update {position.update}")
    else:
        params, report = build_params(config)
        backend.load_params(params)
        progress.say(report.summary() if report else summary(backend.param_shapes()))
    never_saved = resume and not any(folder.glob("checkpoints/*.safetensors"))
    run = RunDir.open(folder) if going_on else RunDir.create(config, overwrite or never_saved)
    with run:
        if going_on:
            run.rewind(position.update)
        run.record_environment(backend.device_info(), sys.argv)
        return run_loop(config, backend, dataset, run, position, progress)


def run_loop(
    config: Config,
    backend: Backend,
    dataset: Dataset,
    run: RunDir,
    position: Position,
    progress: Progress,
) -> int:
    """The training loop between its first and its last record; returns the exit code."""

    def event(kind: str) -> None:
        peak = backend.device_info()["peak_memory_bytes"]
        record = {"kind": "event", "event": kind, "backend": backend.name}
        numbers = {"update": position.update, "seconds": position.seconds}
        run.log(record | numbers | {"peak_memory_bytes": peak})

    event("resume" if position.update else "start")
    with stop_on_signals() as stop, progress:
        try:
            evaluation = train(config, backend, dataset, run, position, progress, stop)
        except RuntimeError:
            # Ctrl-C also ends the compilers that Jittor has started; its operator then fails.
            if stop.signal is None:
                raise
            progress.say("interrupted while operators were compiled: nothing new to save")
            return 128 + stop.signal
        if evaluation is None:
            assert stop.signal is not None
            event("interrupted")
            saved = run.checkpoint_path("last")
            progress.say(f"interrupted after update {position.update}: {saved} is saved, --resume")
            return 128 + stop.signal
        names = [dataset.test.ids[row] for row in evaluation.index]
        run.write_predictions(names, evaluation.labels, evaluation.logits)
        event("finish")
        return 0


def with_classes(config: Config, dataset: Dataset) -> Config:
    """The same configuration with `model.classes` from the data set.

    Raises:
        UserError: it was set to another number.
    """
    found, expected = len(dataset.classes), config.model.classes
    if expected not in (None, found):
        raise UserError(
            f"model.classes: expected {expected}, but {config.data.root} has {found} classes; "
            "leave model.classes out or choose the data set it belongs to"
        )
    model = config.model.model_copy(update={"classes": found})
    return config.model_copy(update={"model": model})


def read_checkpoint(path: Path) -> tuple[Arrays, dict[str, Any], Config]:
    """A training checkpoint: arrays, metadata and the configuration it was trained with.

    Raises:
        UserError: the file is broken, or was not written by training.
    """
    arrays, metadata = checkpoint.load(path)
    absent = [key for key in ("config", "position", "dataset") if key not in metadata]
    if absent:
        raise UserError(
            f"{path}: expected a checkpoint written by `train`, found none of its "
            f"{', '.join(absent)}; bare weights go into model.pretrained"
        )
    return arrays, metadata, build_config(metadata["config"], f"{path} (its configuration)")


def load_checkpoint(
    path: Path, config: Config, dataset: Dataset, same_run: bool
) -> tuple[Arrays, Position]:
    """State to go on from; `same_run` also demands the same experiment.

    Raises:
        UserError: the file is broken, or belongs to another model, data set or experiment.
    """
    arrays, metadata, saved = read_checkpoint(path)
    if same_run:
        changed = [
            line
            for line in differing_keys(saved, config)
            if line.partition(":")[0] not in FREE_ON_RESUME
        ]
        if changed:
            raise UserError(
                f"{path}: the run was started with another configuration; make these equal, or "
                "use --resume-from with another run.name:\n  " + "\n  ".join(changed)
            )
    check_classes(path, metadata, dataset)
    images = metadata["dataset"]["train_images"]
    if same_run and images != len(dataset.train.labels):
        raise UserError(
            f"{path}: the run was started on {images} training images, "
            f"{config.data.root} has {len(dataset.train.labels)}; restore the data set"
        )
    return arrays, Position(**metadata["position"])


def check_classes(path: Path, metadata: dict[str, Any], dataset: Dataset) -> None:
    """The data set's classes must be the checkpoint's, in the same order."""
    saved, found = metadata["dataset"]["classes"], list(dataset.classes)
    if saved != found:
        pairs = enumerate(zip(saved, found, strict=False))
        first = next((k for k, (a, b) in pairs if a != b), min(len(saved), len(found)))
        names = [names[first] if first < len(names) else "none" for names in (saved, found)]
        raise UserError(
            f"{path}: trained on {len(saved)} classes, the data set has {len(found)}; class "
            f"{first} is {names[0]!r} there and {names[1]!r} here; choose the matching data.root"
        )


def evaluate_checkpoint(
    path: Path, backend_name: str, overrides: Iterable[str]
) -> tuple[Evaluation, Dataset]:
    """Evaluate a checkpoint on its data set's test split; overrides change its configuration.

    Raises:
        UserError: the checkpoint or the data set is broken, or they do not belong together.
    """
    arrays, metadata, saved = read_checkpoint(path)
    tree = saved.model_dump(mode="json")
    apply_overrides(tree, overrides)
    config = build_config(tree, str(path))
    dataset = read_dataset(config.data, config.run.seed)
    check_classes(path, metadata, dataset)
    backend = load_backend(backend_name, with_classes(config, dataset))
    prefix = "param/"
    backend.load_params(
        {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)}
    )
    with Progress("evaluate", len(dataset.test.labels)) as progress:
        return evaluate(backend, dataset.test, config, progress.evaluating), dataset
