"""A trained model without its framework: configuration, class names and parameters.

    model = read_model(Path("runs/birds"))

The place is the folder of a run, a checkpoint, or a folder that `transfg export` wrote. No data set
is needed, and nothing that a checkpoint names is read or written.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transfg_core.backend import FLOAT_TYPES, Arrays, Backend, load_backend
from transfg_core.checkpoints.averages import evaluated_params
from transfg_core.checkpoints.own import refuse_other_model
from transfg_core.checkpoints.training import (
    SavedPosition,
    TrainingCheckpoint,
    newest_intact,
    read_checkpoint,
)
from transfg_core.config.loading import apply_overrides, build_config, differing_keys
from transfg_core.config.sections import Config, DataConfig
from transfg_core.data.walk import composed
from transfg_core.errors import UserError
from transfg_core.inference.exported import CONFIG, read_exported
from transfg_core.models.layout import param_shapes
from transfg_core.params.merge import strict_merge
from transfg_core.run.comparison import FREE_ON_RESUME
from transfg_core.run.lock import is_run

# keys of `data` that a checkpoint does not choose: how many processes read images, and the folders
# that files are written to
NOT_FROM_A_CHECKPOINT = {"threads", "workers", "cache", "unpacked"}


@dataclass(frozen=True)
class TrainedModel:
    """What a backend needs to classify as the run's evaluations did.

    `path` is the checkpoint, or the exported folder. `params` have canonical names; of a run with
    `optim.ema` they are the averages. `backend` made the last update. `facts` are those that an
    exported folder holds; None for a checkpoint, whose facts its run knows. `changed` lists the
    overrides under which no accuracy was measured, `key: saved value -> value`.
    """

    path: Path
    config: Config
    classes: tuple[str, ...]
    params: Arrays
    position: SavedPosition
    backend: str
    facts: dict[str, Any] | None = None
    changed: tuple[str, ...] = ()

    @property
    def run(self) -> Path | None:
        """The folder of the run that the checkpoint lies in, if it does."""
        folder = self.path.absolute().parent
        inside = folder.name == "checkpoints" and is_run(folder.parent)
        return folder.parent if inside else None

    def start(self, backend: str) -> Backend:
        """Start a framework, and load the model.

        Raises:
            UserError: the framework is missing or cannot start.
        """
        # the backend then holds one copy of the parameters
        optim = self.config.optim.model_copy(update={"ema": None})
        started = load_backend(backend, self.config.model_copy(update={"optim": optim}))
        started.load_params(self.params)
        return started

    def cautions(self) -> list[str]:
        """What the run did to the images of its data set, and nobody does to other images."""
        data = self.config.data
        found = []
        if data.box_crop:
            found.append(
                "the run cut each image to the data set's box (data.box_crop); here the whole "
                "image counts: cut yours to the object"
            )
        if data.name == "aircraft" and data.banner == "cut":
            found.append(
                "the run left out the lowest 20 rows, the banner of FGVC-Aircraft's images "
                "(data.banner); here they count"
            )
        return found


def read_model(place: Path, overrides: Iterable[str] = ()) -> TrainedModel:
    """Read a run's best checkpoint, or its newest one if there is no best; or any checkpoint.

    A folder that `transfg export` wrote has one model. `overrides` change the model's
    configuration.

    Raises:
        UserError: there is no such model, or it is damaged, or an override does not fit it.
    """
    if place.is_dir() and not is_run(place) and (place / CONFIG).exists():
        return _of_export(place, overrides)
    saved = read_checkpoint(place if place.is_file() else chosen_checkpoint(place))
    overrides = list(overrides)
    config = config_of(saved, overrides)
    classes = tuple(composed(name) for name in saved.dataset.classes)
    model = config.model.model_copy(update={"classes": len(classes)})
    config = config.model_copy(update={"model": model})
    averaged = config.optim.ema is not None
    params = evaluated_params(saved.arrays, averaged, str(saved.path))
    shapes = param_shapes(config.model, config.data.crop)
    params = strict_merge(shapes, params, str(saved.path), FLOAT_TYPES[config.run.precision])
    changed = _changed(config_of(saved, ()), config_of(saved, overrides))
    return TrainedModel(
        saved.path, config, classes, params, saved.position, saved.backend, changed=changed
    )


def _of_export(folder: Path, overrides: Iterable[str]) -> TrainedModel:
    found = read_exported(folder)
    config = _overridden(found.config, folder, overrides)
    if config.optim.ema != found.config.optim.ema:
        raise UserError(
            f"{folder}: optim.ema: an exported folder holds the parameters of evaluations alone; "
            "leave it out, or name the run"
        )
    if config.run.precision != found.config.run.precision:
        kind = FLOAT_TYPES[config.run.precision]
        params = {name: value.astype(kind) for name, value in found.params.items()}
    else:
        params = found.params
    return TrainedModel(
        folder, config, found.classes, params, found.position, found.backend, found.facts,
        _changed(_overridden(found.config, folder, ()), config),
    )  # fmt: skip


def _changed(saved: Config, config: Config) -> tuple[str, ...]:
    """The lines of keys that differ and may change an accuracy."""
    lines = differing_keys(saved, config)
    return tuple(line for line in lines if line.partition(":")[0] not in FREE_ON_RESUME)


def chosen_checkpoint(run: Path) -> Path:
    """The best checkpoint of a run's folder, or the newest intact one if there is no best.

    Raises:
        UserError: the folder is not that of a run, or holds no checkpoint.
    """
    if not is_run(run):
        raise UserError(
            f"{run}: expected the folder of a run, a checkpoint (.safetensors) or an exported "
            f"folder, found {'another folder' if run.is_dir() else 'no such file'}; check the path"
        )
    best = run / "checkpoints" / "best.safetensors"
    if best.is_file():
        return best
    newest, _ = newest_intact(run)
    if newest is None:
        raise UserError(
            f"{run}: expected a checkpoint in {run / 'checkpoints'}, found none; train longer, or "
            "choose another run"
        )
    return newest.path


def config_of(saved: TrainingCheckpoint, overrides: Iterable[str]) -> Config:
    """The configuration of a checkpoint with overrides, without what it does not choose.

    Raises:
        UserError: a key or value is wrong, or the model would be another one.
    """
    return _overridden(saved.config, saved.path, overrides)


def _overridden(saved: Config, path: Path, overrides: Iterable[str]) -> Config:
    tree = saved.model_dump(mode="json")
    tree["data"] |= DataConfig().model_dump(mode="json", include=NOT_FROM_A_CHECKPOINT)
    apply_overrides(tree, overrides)
    config = build_config(tree, str(path))
    refuse_other_model(str(path), saved.model, config.model)
    return config
