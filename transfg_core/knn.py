"""The command knn: classify the test split by the nearest training images, without training.

A run folder holds the result, so that reports show it beside trained models.
"""

import sys
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transfg_core.backend import FLOAT_TYPES, Backend, load_backend
from transfg_core.checkpoints.averages import evaluated_params
from transfg_core.checkpoints.own import refuse_other_model
from transfg_core.checkpoints.pretrained import build_params
from transfg_core.checkpoints.training import TrainingCheckpoint, read_checkpoint
from transfg_core.checkpoints.weight_file import Origin, origin_of
from transfg_core.config.loading import apply_overrides, build_config, load_config
from transfg_core.config.sections import Config, DataConfig, RunConfig
from transfg_core.data.datasets import Dataset, Samples, read_dataset, with_equal_files
from transfg_core.data.loader import eval_batches
from transfg_core.errors import Diverged, UserError
from transfg_core.experiment import check_first_images, with_classes
from transfg_core.inference.source import NOT_FROM_A_CHECKPOINT
from transfg_core.models.layout import param_shapes
from transfg_core.neighbours import (
    blocks,
    majority_votes,
    nearest,
    right_within,
    unit_length,
    weighted_votes,
)
from transfg_core.params.merge import strict_merge
from transfg_core.resume import check_classes, refuse_new_split, refuse_to_delete, split_of
from transfg_core.run.folder import RunFolder
from transfg_core.run.lock import refuse_if_used
from transfg_core.run.progress import Progress
from transfg_core.train import Position
from transfg_core.trained import refuse_foreign_place

# k of DINO's program (10, 20, 100, 200), and smaller ones for small classes; the first is DINO's
# choice (arXiv 2104.14294, section 4.1) and makes the predictions
NUMBERS = (20, 1, 5, 10, 50, 100, 200)
TEMPERATURE = 0.07  # as in DINO


@dataclass(frozen=True)
class Vote:
    """How the neighbours vote: their numbers, the first for the predictions; the temperature."""

    numbers: tuple[int, ...] = NUMBERS
    temperature: float = TEMPERATURE


@dataclass(frozen=True)
class Features:
    """Features of n images: (n, D) of unit length, labels (n,), index (n,) into the split."""

    values: NDArray[np.float32]
    labels: NDArray[np.int64]
    index: NDArray[np.int64]
    bad_images: dict[str, str]


def run_knn(
    source: Path, backend_name: str, overrides: Iterable[str], vote: Vote, overwrite: bool = False
) -> dict[str, Any]:
    """Classify the test split by the training images; write a run folder, return its result.

    Args:
        source: a configuration (YAML), or a checkpoint of a run.
        overrides: `key=value`. Without `run.name`, the name is that of the configuration or of the
            checkpoint's folder, followed by `-knn`.

    Raises:
        UserError: the configuration, checkpoint, data or run folder is wrong.
        Diverged: the features are not finite.
        RunFailed: an image cannot be read, or the disk is full.
    """
    config, saved = read_source(source, list(overrides))
    folder = Path(config.run.dir) / config.run.name
    refuse_if_used(folder, overwrite)
    refuse_to_delete(source, folder, overwrite)
    config, dataset = read_data(config, saved)
    numbers = usable_numbers(vote.numbers, len(dataset.train.labels))
    with Progress(config.run.name) as progress:
        for note in dataset.notes():
            progress.say(note)
        backend, origin = starting_backend(config, saved, backend_name, progress)
        with RunFolder.create(config, overwrite) as run:
            if dataset.split:
                run.write_split(dataset.split.csv())
            run.record_environment(backend.device_info(), sys.argv, dataset.counts(), origin)
            update = saved.position.update if saved else 0
            began = time.perf_counter()

            def log(record: dict[str, Any]) -> None:
                run.log({"update": update, "backend": backend.name} | record)

            log({"kind": "event", "event": "start", "seconds": 0.0})
            train = features_of(backend, dataset.train, config, progress)
            test = features_of(backend, dataset.test, config, progress)
            numbers = usable_numbers(numbers, len(train.labels))  # without unreadable images
            record = classify(train, test, len(dataset.classes), Vote(numbers, vote.temperature))
            votes = record.pop("votes")
            averaged = saved is not None and config.optim.ema is not None
            times = {"seconds": time.perf_counter() - began, "averaged": averaged}
            log({"kind": "eval"} | record | times)
            names = [dataset.test.ids[row] for row in test.index]
            with np.errstate(divide="ignore"):  # a class without votes has probability 0
                run.write_predictions(names, test.labels, np.log(votes))
            peak = backend.device_info()["peak_memory_bytes"]
            log({"kind": "event", "event": "finish", "peak_memory_bytes": peak} | times)
    return {"run": str(folder), "backend": backend.name} | record | times


def read_source(source: Path, overrides: list[str]) -> tuple[Config, TrainingCheckpoint | None]:
    """The configuration of the new run, and the checkpoint if `source` is one.

    A checkpoint may come from somebody else: it does not choose where files are written, nor how
    many processes read images, and it reads images outside the current folder only where the user
    says so.

    Raises:
        UserError: the file cannot be read, or an override is wrong.
    """
    named = any(item.partition("=")[0] in ("run", "run.name") for item in overrides)
    if source.suffix != ".safetensors":
        config = load_config(source, overrides)
        name = config.run.name if named else f"{config.run.name}-knn"
        run = config.run.model_copy(update={"name": name})
        return config.model_copy(update={"run": run}), None
    saved = read_checkpoint(source)
    place = source.absolute().parent
    name = place.parent.name if place.name == "checkpoints" else source.stem
    tree = saved.config.model_dump(mode="json")
    tree["data"] |= DataConfig().model_dump(mode="json", include=NOT_FROM_A_CHECKPOINT)
    tree["run"] |= {"dir": RunConfig().dir, "name": f"{name}-knn"}
    apply_overrides(tree, overrides)
    config = build_config(tree, str(source))
    refuse_other_model(str(source), saved.config.model, config.model)
    if not any(item.partition("=")[0] in ("data", "data.root") for item in overrides):
        refuse_foreign_place(source, config.data.root)
    return config, saved


def read_data(config: Config, saved: TrainingCheckpoint | None) -> tuple[Config, Dataset]:
    """The data set, with the split of the checkpoint's run; and the configuration with classes.

    Raises:
        UserError: it is broken, or does not belong to the checkpoint.
    """
    saved_split = split_of(saved.path if saved else None, config.data)
    dataset = read_dataset(config.data, config.run.seed, saved_split)
    if saved:
        refuse_new_split(saved, saved_split, config, dataset)
        check_classes(saved.path, saved.dataset.classes, dataset)
    config = with_classes(config, dataset)
    check_first_images(config, dataset, Position())
    return config, with_equal_files(dataset)


def usable_numbers(numbers: tuple[int, ...], images: int) -> tuple[int, ...]:
    """The numbers of neighbours that a training split of `images` images has.

    Raises:
        UserError: the first number, which makes the predictions, is too large.
    """
    if numbers[0] > images:
        raise UserError(
            f"--k {numbers[0]}: expected at most the number of training images, {images}; "
            "give a smaller --k first"
        )
    return tuple(dict.fromkeys(k for k in numbers if k <= images))


def starting_backend(
    config: Config, saved: TrainingCheckpoint | None, name: str, progress: Progress
) -> tuple[Backend, Origin | None]:
    """The backend with the parameters that make the features, and the file that they came from.

    Raises:
        UserError: the file does not fit the model, or the backend does not start.
    """
    origin = None
    if saved:
        params = evaluated_params(saved.arrays, config.optim.ema is not None, str(saved.path))
        shapes = param_shapes(config.model, config.data.crop)
        params = strict_merge(shapes, params, str(saved.path), FLOAT_TYPES[config.run.precision])
        origin = origin_of(str(saved.path), "this project")
    else:
        params, report = build_params(config)
        drawn = [n for n in report.initialised if not n.startswith("head.")] if report else ["all"]
        if report:
            progress.say(report.summary())
            origin = report.origin
        if drawn:
            progress.say(untrained(drawn, report is not None))
    optim = config.optim.model_copy(update={"ema": None})
    backend = load_backend(name, config.model_copy(update={"optim": optim}))
    backend.load_params(params)
    return backend, origin


def untrained(drawn: list[str], pretrained: bool) -> str:
    """A note that the features are not those of trained weights alone."""
    if not pretrained:
        return "note: model.pretrained is not set, so the features are those of initial values"
    return (
        f"note: {drawn[0]} and {len(drawn) - 1} other parameters below the head have initial "
        "values; for the features of the file itself set model.placement=none, or "
        "model.part_layer_init=last_block"
    )


def features_of(backend: Backend, samples: Samples, config: Config, progress: Progress) -> Features:
    """The features of a split's images, with the transform of evaluations.

    Raises:
        Diverged: they are not finite.
        RunFailed: an image cannot be read.
    """
    bad_images: dict[str, str] = {}
    total, done = len(samples.labels), 0
    values: NDArray[np.float32] | None = None
    labels, index = np.empty(total, np.int64), np.empty(total, np.int64)
    batches = eval_batches(samples, config.data, config.train.eval_batch_size, bad_images)
    with closing(batches):
        for batch in batches:
            found = backend.fetch(backend.eval_step(batch.images))["features"]
            if values is None:  # one array of the final size, so that nothing is copied
                values = np.empty((total, found.shape[1]), np.float32)
            place = slice(done, done + len(found))
            values[place], labels[place] = unit_length(found), batch.labels
            index[place] = batch.index
            done += len(found)
            progress.evaluating(len(found), total)
    assert values is not None, "a split without images"
    if not np.isfinite(values[:done]).all():
        raise Diverged("knn: expected finite features, found inf or nan; take other weights")
    progress.skipped(bad_images)
    return Features(values[:done], labels[:done], index[:done], bad_images)


def classify(train: Features, test: Features, classes: int, vote: Vote) -> dict[str, Any]:
    """The record of the result, and `votes` (B, C) of the first number of neighbours.

    `top1` and `top5` are those of the weighted vote of the first number. For each number k,
    `top1_k` is by weighted votes and `top1_majority_k` by majority.
    """
    k = vote.numbers[0]
    names = ["top5", *(f"top1{how}_{n}" for n in vote.numbers for how in ("", "_majority"))]
    right = {name: np.empty(len(test.labels), np.bool_) for name in names}
    first = np.empty((len(test.labels), classes))
    for block in blocks(len(test.labels)):
        found = nearest(test.values[block], train.values, max(vote.numbers))
        labels = test.labels[block]
        for number in vote.numbers:
            votes = weighted_votes(found, train.labels, classes, number, vote.temperature)
            right[f"top1_{number}"][block] = right_within(votes, labels, 1)
            if number == k:
                first[block], right["top5"][block] = votes, right_within(votes, labels, 5)
            votes = majority_votes(found, train.labels, classes, number)
            right[f"top1_majority_{number}"][block] = right_within(votes, labels, 1)
    shares = {name: float(values.mean()) for name, values in right.items()}
    record: dict[str, Any] = {
        "method": "knn",
        "k": k,
        "temperature": vote.temperature,
        "top1": shares[f"top1_{k}"],
        "top5": shares.pop("top5"),
        "images": len(test.labels),
        "train_images": len(train.labels),
        "bad_images": len(train.bad_images) + len(test.bad_images),
    }
    return record | shares | {"votes": first}
