"""Resuming from a checkpoint: whether it fits, and what not to delete."""

from pathlib import Path

from transfg_core.checkpoints.own import refuse_other_model
from transfg_core.checkpoints.training import TrainingCheckpoint, read_checkpoint
from transfg_core.config.loading import differing_keys
from transfg_core.config.sections import Config, DataConfig
from transfg_core.data.datasets import Dataset, SplitList
from transfg_core.data.datasets.split import no_list, read_split
from transfg_core.data.walk import composed
from transfg_core.errors import UserError
from transfg_core.run.comparison import FREE_ON_RESUME
from transfg_core.run.metrics_log import read_records
from transfg_core.train import Position


def split_of(checkpoint: Path | None, data: DataConfig) -> SplitList | None:
    """The drawn split of a checkpoint's run: the split.csv beside it, or that of its run folder.

    A checkpoint lies in a run folder if its own folder is called `checkpoints`.

    None without a checkpoint, and for an official split from which nothing is held out.

    Raises:
        UserError: the list is damaged.
    """
    if checkpoint is None or (data.split == "official" and data.validation is None):
        return None
    return _list_beside(checkpoint)


def known_split(checkpoint: Path) -> SplitList | None:
    """The list beside a checkpoint, for comparison alone; None if there is none that is intact.

    A run with an official split has none, and a file of this name may be anybody's.
    """
    try:
        return _list_beside(checkpoint)
    except UserError:
        return None


def _list_beside(checkpoint: Path) -> SplitList | None:
    """The split.csv beside a checkpoint, or that of its run folder; None if there is none.

    Raises:
        UserError: the list is damaged.
    """
    beside = checkpoint.absolute().parent
    places = (beside, beside.parent) if beside.name == "checkpoints" else (beside,)
    return next(filter(None, (read_split(place / "split.csv") for place in places)), None)


def refuse_new_split(
    source: TrainingCheckpoint, saved_split: SplitList | None, config: Config, dataset: Dataset
) -> None:
    """Refuse a split that is not the one of the checkpoint's run, unless the images are others.

    It was drawn because the run's list is absent, or the configuration asks for another one.
    Training would otherwise use images that the model was tested on, and test with images that it
    was trained on.

    Raises:
        UserError: this is such a split.
    """
    listed = known_split(source.path)
    ids = {*dataset.train.ids, *dataset.test.ids}
    changed = _changed_split(source.config.data, config.data)
    if changed and (listed is None or not listed.rows.keys().isdisjoint(ids)):
        raise UserError(
            f"{source.path}: its run had another split, so that this one would test or validate "
            f"with images that it trained with; make these keys equal: {', '.join(changed)}. For "
            f"other images, start with model.pretrained={source.path} instead"
        )
    if source.config.data.validation is not None and dataset.split and saved_split is None:
        raise no_list(config.data.root, "")
    if dataset.split and saved_split is None and source.config.data.split != "official":
        raise no_list(
            config.data.root,
            ". If the run drew no split (it had train/ and val/, or train_test_split.txt), start "
            f"with model.pretrained={source.path} instead",
        )


def _changed_split(old: DataConfig, new: DataConfig) -> list[str]:
    """`data.key: old -> new` for each key that gives other splits of the same images.

    A run whose images were held out may be followed by one that trains with them.
    """
    keys = ["folds", "fold"]
    if "auto" not in (old.split, new.split):  # auto is either of the others
        keys.insert(0, "split")
    if new.validation is not None:
        keys.append("validation")
    pairs = [(key, getattr(old, key), getattr(new, key)) for key in keys]
    return [f"data.{key}: {left} -> {right}" for key, left, right in pairs if left != right]


def require_records(folder: Path) -> None:
    """Check that a run with a checkpoint has its records, which resuming would write again.

    Raises:
        UserError: metrics.jsonl is gone.
    """
    path = folder / "metrics.jsonl"
    if not path.exists():
        raise UserError(
            f"{path}: expected the records of the run, found no such file; restore it, or use "
            "--resume-from with another run.name"
        )


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


def resume_position(
    saved: TrainingCheckpoint, config: Config, dataset: Dataset, same_run: bool
) -> Position:
    """The position to resume from; `same_run` also requires the same experiment.

    Raises:
        UserError: the checkpoint belongs to another model, data set or experiment.
    """
    path, position = saved.path, Position(**saved.position.model_dump())
    if same_run:
        refuse_other_run(saved, config, dataset)
    else:
        position = Position(position.update)  # a new run tracks its own best evaluation
        refuse_other_model(str(path), saved.config.model, config.model)
    check_classes(path, saved.dataset.classes, dataset)
    if position.update >= config.train.steps and not same_run:
        raise UserError(
            f"{path}: expected a checkpoint from before update {config.train.steps}, found one "
            f"after update {position.update}; raise train.steps, or use it as model.pretrained"
        )
    return position


def refuse_other_run(saved: TrainingCheckpoint, config: Config, dataset: Dataset) -> None:
    """Check that a resumed run keeps its configuration and its number of training images.

    Raises:
        UserError: they differ; the text lists every key.
    """
    changed = [
        line
        for line in differing_keys(saved.config, config)
        if line.partition(":")[0] not in FREE_ON_RESUME
    ]
    if changed:
        raise UserError(
            f"{saved.path}: the run was started with another configuration; make these keys equal, "
            "or use --resume-from with another run.name:\n  " + "\n  ".join(changed)
        )
    saved_split = split_of(saved.path, config.data)
    if saved_split and dataset.split != saved_split:
        raise UserError(
            f"{saved.path}: the images of {config.data.root} are not those of the run's split.csv; "
            "restore the data set"
        )
    images = saved.dataset.train_images
    if images != len(dataset.train.labels):
        raise UserError(
            f"{saved.path}: the run was started with {images} training images, but "
            f"{config.data.root} has {len(dataset.train.labels)}; restore the data set, or "
            "use --resume-from with another run.name"
        )
    if saved.dataset.images not in ("", dataset.digest()):
        raise UserError(
            f"{saved.path}: the images of {config.data.root} have other names or classes than at "
            "the start of the run; restore the data set, or use --resume-from with another run.name"
        )


def forget_lost_best(folder: Path, position: Position) -> str:
    """Forget the score of a `best` that is gone or damaged, and say so; else an empty text.

    No later evaluation would replace it otherwise, unless it were better. An evaluation after the
    position's own update is made again: after the last update, no other would follow.
    """
    path = folder / "checkpoints" / "best.safetensors"
    if not position.best_update:
        return ""
    try:
        read_checkpoint(path)
    except UserError:
        position.best_top1, position.best_update = -1.0, 0
        position.evaluated = min(position.evaluated, position.update - 1)
        return f"{path}: absent or damaged; the next evaluation counts as the best so far"
    return ""


def check_classes(path: Path, saved: list[str], dataset: Dataset) -> None:
    """Refuse a data set whose classes or their order differ from the checkpoint's."""
    saved = [composed(name) for name in saved]
    found = [composed(name) for name in dataset.classes]
    if saved != found:
        pairs = enumerate(zip(saved, found, strict=False))
        first = next((k for k, (a, b) in pairs if a != b), min(len(saved), len(found)))
        names = [names[first] if first < len(names) else "none" for names in (saved, found)]
        raise UserError(
            f"{path}: trained on {len(saved)} classes, but the data set has {len(found)}; class "
            f"{first} is {names[0]!r} there and {names[1]!r} here; choose the matching data.root"
        )
