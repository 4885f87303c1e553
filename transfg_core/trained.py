"""The commands that use a trained model: from a checkpoint to its model, data and results.

A checkpoint may come from somebody else, so it does not command. Nothing is written where its
metadata says; images are read there only inside the current folder, unless the user names the
place.
"""

import os
import shlex
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from transfg_core.backend import FLOAT_TYPES, Backend, load_backend
from transfg_core.checkpoints.averages import evaluated_params
from transfg_core.checkpoints.training import read_checkpoint
from transfg_core.config.sections import Config
from transfg_core.data.cache.build import fill_cache
from transfg_core.data.datasets import Dataset, read_test
from transfg_core.data.datasets.findings import Trained
from transfg_core.data.datasets.split import TRAIN
from transfg_core.data.walk import composed
from transfg_core.errors import UserError
from transfg_core.evaluate import Evaluation, evaluate
from transfg_core.experiment import check_first_images, with_classes
from transfg_core.inference.source import config_of
from transfg_core.models.layout import param_shapes
from transfg_core.params.merge import strict_merge
from transfg_core.resume import check_classes, known_split, split_of
from transfg_core.run.progress import Progress
from transfg_core.train import Position


def open_checkpoint(
    path: Path, backend_name: str, overrides: Iterable[str], out: Path | None = None
) -> tuple[Config, Dataset, Backend]:
    """Load the model and data set of a checkpoint, without the state for training.

    If the run averaged its parameters, the averaged ones are loaded; with the override
    `optim.ema=null`, those after the last update. `overrides` change the checkpoint's
    configuration; `out` is a file that will be written.

    Raises:
        UserError: the checkpoint or the data set is broken, they do not belong together, or the
            data set lies at a place that the user did not name, or `out` is a file of the data set.
    """
    saved = read_checkpoint(path)
    overrides = list(overrides)
    config = config_of(saved, overrides)
    if not any(item.partition("=")[0] in ("data", "data.root") for item in overrides):
        refuse_foreign_place(path, config.data.root)
    classes = [composed(name) for name in saved.dataset.classes]
    split = split_of(path, config.data)
    dataset = read_test(config.data, classes, split)
    check_classes(path, saved.dataset.classes, dataset)
    dataset = with_trained(path, dataset)
    if out:
        refuse_in_data(out, config.data.root, dataset)
    config = with_classes(config, dataset)
    params = evaluated_params(saved.arrays, config.optim.ema is not None, str(path))
    shapes = param_shapes(config.model, config.data.crop)  # before a backend allocates a model
    params = strict_merge(shapes, params, str(path), FLOAT_TYPES[config.run.precision])
    check_first_images(config, dataset, Position())
    # the backend then holds one copy of the parameters, which are the averaged ones
    optim = config.optim.model_copy(update={"ema": None})
    backend = load_backend(backend_name, config.model_copy(update={"optim": optim}))
    backend.load_params(params)
    return config, dataset, backend


def with_trained(path: Path, dataset: Dataset) -> Dataset:
    """The data set, with a finding if the checkpoint's run trained with test images."""
    listed = known_split(path)
    trained = listed.ids(TRAIN) if listed else set()
    names = [name for name in dataset.test.ids if name in trained]
    found = (Trained(len(names), names[0]),) if names else ()
    return replace(dataset, findings=(*dataset.findings, *found))


def refuse_in_data(out: Path, root: str, dataset: Dataset) -> None:
    """Refuse to write over a file of the data set, or among its images.

    Raises:
        UserError: `out` lies there.
    """
    target = os.path.realpath(out)
    folders = {os.path.realpath(os.path.dirname(path)) for path in dataset.test.paths}
    replaces = os.path.exists(target) and Path(target).is_relative_to(os.path.realpath(root))
    if replaces or os.path.dirname(target) in folders:
        raise UserError(f"{out}: lies in the data set {root}; choose a place outside of it")


def refuse_foreign_place(path: Path, root: str) -> None:
    """Refuse a recorded `data.root` outside the current folder.

    Symbolic links inside the folder count as inside: the user made them.

    Raises:
        UserError: the place lies outside.
    """
    if not Path(os.path.abspath(root)).is_relative_to(os.getcwd()):
        raise UserError(
            f"{path}: the checkpoint records images outside the current folder, in {root}; if you "
            f"trust this place, add {shlex.quote(f'data.root={root}')}"
        )


def evaluate_checkpoint(
    path: Path, backend_name: str, overrides: Iterable[str], out: Path | None = None
) -> tuple[Evaluation, Dataset]:
    """Evaluate a checkpoint on its data set's test split; `out` is a file that will be written.

    Raises:
        UserError: see `open_checkpoint`.
        RunFailed: an image cannot be read, or the logits are not finite.
    """
    config, dataset, backend = open_checkpoint(path, backend_name, overrides, out)
    images = len(dataset.test.labels)
    with Progress("evaluate") as progress:
        for note in dataset.notes():
            progress.say(note)
        fill_cache(config.data, None, [dataset.test], progress.say)
        evaluation = evaluate(
            backend, dataset.test, config, lambda done: progress.evaluating(done, images)
        )
        progress.skipped(evaluation.bad_images)
    return evaluation, dataset
