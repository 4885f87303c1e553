"""The checkpoints that training writes: the state, and metadata as strict as a configuration."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from transfg_core.backend import Arrays
from transfg_core.checkpoints import file as checkpoint
from transfg_core.config.fields import Positive, Section
from transfg_core.config.loading import build_config
from transfg_core.config.sections import Config
from transfg_core.errors import UserError

RUN_CHECKPOINT = re.compile(r"(last|best|step_[0-9]+)\.safetensors")

Count = Annotated[int, Field(ge=0)]


class SavedPosition(Section):
    """The updates that the run has done, and its best evaluation so far."""

    update: Count
    evaluated: Count
    best_top1: Annotated[float, Field(ge=-1, le=1)]
    best_update: Count

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.best_update <= self.evaluated <= self.update:
            raise ValueError("expected best_update <= evaluated <= update")
        return self


class SavedDataset(Section):
    """The data set that the run was trained on."""

    name: str
    classes: list[str]
    class_ids: list[str] = []  # the set's own, where they have gaps (Dataset.class_ids)
    train_images: Positive
    images: str = ""  # Dataset.digest; files of older versions have none


class Metadata(Section):
    """What training stores beside the arrays; `config` is checked as a configuration."""

    backend: str
    config: dict[str, Any]
    position: SavedPosition
    dataset: SavedDataset


@dataclass(frozen=True)
class TrainingCheckpoint:
    """A checkpoint whose content is as it was written."""

    path: Path
    arrays: Arrays  # Backend.state()
    config: Config
    position: SavedPosition
    dataset: SavedDataset
    backend: str  # that made the last update


def read_checkpoint(path: Path) -> TrainingCheckpoint:
    """Read a checkpoint that training wrote.

    Raises:
        checkpoint.Damaged: the file is cut or changed.
        UserError: it was not written by training, or by another version.
    """
    arrays, found = checkpoint.load(path)
    metadata = _parse(path, found)
    updates = arrays.get("optim/updates")
    if updates is None or updates.shape != () or updates != metadata.position.update:
        raise UserError(
            f"{path}: expected optim/updates {metadata.position.update} as in the metadata, found "
            f"{updates}; take another checkpoint"
        )
    config = build_config(metadata.config, f"{path} (its configuration)")
    return TrainingCheckpoint(
        path, arrays, config, metadata.position, metadata.dataset, metadata.backend
    )


def is_checkpoint(path: Path) -> bool:
    """Whether a path is that of a checkpoint by its name, and no folder."""
    return bool(RUN_CHECKPOINT.fullmatch(path.name)) and path.is_file()


def run_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run by name; other files that lie among them are not the run's."""
    paths = (folder / "checkpoints").glob("*.safetensors")
    return sorted(path for path in paths if is_checkpoint(path))


def newest_intact(folder: Path) -> tuple[TrainingCheckpoint | None, list[str]]:
    """The intact checkpoint of a run with the most updates, and a message for each other one.

    The updates are those of the metadata. Of equal ones, the checkpoint after the evaluation
    counts, then `last`. The checkpoint is None if there are no files.

    Raises:
        UserError: no checkpoint can be read.
    """
    order: list[tuple[int, int, bool, Path]] = []
    damaged: list[str] = []
    for path in run_checkpoints(folder):
        try:
            position = _position(path)
        except UserError as error:  # damaged, or another file under a checkpoint's name
            damaged.append(str(error))
        else:
            order.append((position.update, position.evaluated, path.stem == "last", path))
    for *_, path in sorted(order, reverse=True):
        try:
            return read_checkpoint(path), damaged
        except UserError as error:
            damaged.append(str(error))
    if damaged:
        lines = "\n  ".join(damaged)
        raise UserError(
            f"{folder}: expected an intact checkpoint, found only damaged ones; restore one, or "
            f"start the run again with --overwrite\n  {lines}"
        )
    return None, []


def _position(path: Path) -> SavedPosition:
    """The position in the metadata; a damaged file may also have a wrong one."""
    try:
        return _parse(path, checkpoint.load_metadata(path)).position
    except UserError:
        return read_checkpoint(path).position  # says whether the file is damaged


def _parse(path: Path, found: dict[str, Any]) -> Metadata:
    absent = [key for key in ("config", "position", "dataset") if key not in found]
    if absent:
        raise UserError(
            f"{path}: expected a checkpoint written by `train`, found a file without "
            f"{', '.join(absent)}; bare weights go into model.pretrained"
        )
    try:
        return Metadata.model_validate(found)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)
        ]
        raise UserError(
            f"{path}: the metadata comes from another version or is damaged; use the file as "
            "model.pretrained\n  " + "\n  ".join(problems[:10])
        ) from error
