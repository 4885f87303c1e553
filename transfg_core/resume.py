"""Resuming from a checkpoint: which one to use, whether it fits, and what not to delete."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from transfg_core.backend import Arrays
from transfg_core.checkpoints import file as checkpoint
from transfg_core.checkpoints.own import refuse_other_model
from transfg_core.config.loading import build_config, differing_keys
from transfg_core.config.sections import Config, DataConfig
from transfg_core.data.datasets import Dataset, SplitList
from transfg_core.data.datasets.split import read_split
from transfg_core.data.walk import composed
from transfg_core.errors import UserError
from transfg_core.run.metrics_log import read_records
from transfg_core.train import Position

# Keys that may change when a run is resumed: the location of files, how they are read, and how
# often the run evaluates and saves. None of them changes what the run computes.
FREE_ON_RESUME = (
    "data.max_megapixels",
    "data.on_bad_image",
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


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint to resume from: `last`, or the newest if the run was killed before `last`."""
    last = folder / "checkpoints" / "last.safetensors"
    if last.exists():
        return last
    saved = folder.glob("checkpoints/*.safetensors")
    return max(saved, key=lambda path: path.stat().st_mtime_ns, default=None)


def split_of(checkpoint: Path | None, data: DataConfig) -> SplitList | None:
    """The drawn split of a checkpoint's run: the split.csv of its run folder, or one beside it.

    None without a checkpoint, and with `data.split: official`.

    Raises:
        UserError: the list is damaged.
    """
    if checkpoint is None or data.split == "official":
        return None
    places = (checkpoint.parent.parent, checkpoint.parent)
    return next(filter(None, (read_split(place / "split.csv") for place in places)), None)


def is_finished(folder: Path) -> bool:
    """Whether the run in the folder is complete, predictions included."""
    records = read_records(folder / "metrics.jsonl")
    return any(record.get("event") == "finish" for record in records)


def refuse_to_delete(source: Path | None, folder: Path, replace: bool) -> None:
    """Refuse to overwrite the folder of the checkpoint that a run starts from."""
    if source and replace and source.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{source}: --overwrite would delete this checkpoint before a new one is saved; "
            "give run.name=... a new name"
        )


def read_checkpoint(path: Path) -> tuple[Arrays, dict[str, Any], Config]:
    """Read a training checkpoint: arrays, metadata and the configuration of its run.

    Raises:
        UserError: the file is broken, or was not written by training.
    """
    arrays, metadata = checkpoint.load(path)
    absent = [key for key in ("config", "position", "dataset") if key not in metadata]
    if absent:
        raise UserError(
            f"{path}: expected a checkpoint written by `train`, found a file without "
            f"{', '.join(absent)}; bare weights go into model.pretrained"
        )
    return arrays, metadata, build_config(metadata["config"], f"{path} (its configuration)")


def load_checkpoint(
    path: Path, config: Config, dataset: Dataset, same_run: bool
) -> tuple[Arrays, Position]:
    """The state and position to resume from; `same_run` also requires the same experiment.

    Raises:
        UserError: the file is broken, or belongs to another model, data set or experiment.
    """
    arrays, metadata, saved = read_checkpoint(path)
    try:
        position = Position(**metadata["position"])
    except TypeError as error:
        raise UserError(
            f"{path}: expected a position of {', '.join(asdict(Position()))}, found "
            f"{metadata['position']}; the file comes from another version: "
            "use it as model.pretrained"
        ) from error
    if same_run:
        refuse_other_run(path, metadata, saved, config, dataset)
    else:
        position = Position(position.update)  # a new run tracks its own best evaluation
        refuse_other_model(str(path), saved.model, config.model)
    check_classes(path, metadata, dataset)
    if position.update >= config.train.steps and not same_run:
        raise UserError(
            f"{path}: expected a checkpoint from before update {config.train.steps}, found one "
            f"after update {position.update}; raise train.steps, or use it as model.pretrained"
        )
    return arrays, position


def refuse_other_run(
    path: Path, metadata: dict[str, Any], saved: Config, config: Config, dataset: Dataset
) -> None:
    """Check that a resumed run keeps its configuration and its number of training images.

    Raises:
        UserError: they differ; the text lists every key.
    """
    changed = [
        line
        for line in differing_keys(saved, config)
        if line.partition(":")[0] not in FREE_ON_RESUME
    ]
    if changed:
        raise UserError(
            f"{path}: the run was started with another configuration; make these keys equal, "
            "or use --resume-from with another run.name:\n  " + "\n  ".join(changed)
        )
    saved_split = split_of(path, config.data)
    if saved_split and dataset.split != saved_split:
        raise UserError(
            f"{path}: the images of {config.data.root} are not those of the run's split.csv; "
            "restore the data set"
        )
    images = metadata["dataset"]["train_images"]
    if images != len(dataset.train.labels):
        raise UserError(
            f"{path}: the run was started with {images} training images, but "
            f"{config.data.root} has {len(dataset.train.labels)}; restore the data set"
        )


def check_classes(path: Path, metadata: dict[str, Any], dataset: Dataset) -> None:
    """Refuse a data set whose classes or their order differ from the checkpoint's."""
    saved = [composed(name) for name in metadata["dataset"]["classes"]]
    found = [composed(name) for name in dataset.classes]
    if saved != found:
        pairs = enumerate(zip(saved, found, strict=False))
        first = next((k for k, (a, b) in pairs if a != b), min(len(saved), len(found)))
        names = [names[first] if first < len(names) else "none" for names in (saved, found)]
        raise UserError(
            f"{path}: trained on {len(saved)} classes, but the data set has {len(found)}; class "
            f"{first} is {names[0]!r} there and {names[1]!r} here; choose the matching data.root"
        )
