"""One flat folder of class folders: its split, drawn or read from a run's split.csv."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets.class_folders import (
    class_names,
    read_images,
    refuse_empty_classes,
    samples_of,
)
from transfg_core.data.datasets.drawing import Grouped, draw_parts
from transfg_core.data.datasets.findings import header_findings
from transfg_core.data.datasets.groups import burst_groups, pattern_groups
from transfg_core.data.datasets.samples import Dataset, Samples, check_splits
from transfg_core.data.datasets.split import (
    HELD_OUT,
    NOT_LISTED,
    TEST,
    TRAIN,
    SplitList,
    SplitRow,
    fitting,
    no_list,
)
from transfg_core.data.names import Names
from transfg_core.data.walk import ImageFile, Tally, shown, subfolders
from transfg_core.errors import UserError

TRAIN_WORDS = {"train", "training"}
TEST_WORDS = {"val", "valid", "validation", "eval", "test", "testing"}
OF_TRAINING = "images that the run trained with"


def read_flat(
    config: DataConfig, seed: int, root: Path, saved: SplitList | None, tally: Tally
) -> Dataset:
    """A flat folder: the split is the saved one, or drawn."""
    images = read_images(config, root, tally, ("",))
    classes = class_names(root)
    _refuse_other_layouts(root, classes)
    refuse_empty_classes(root, classes, images, "", tally)
    samples = samples_of(images, "", classes)
    split = fitting(config.root, {image.name: image.size for image in images}, saved)
    if split is None:
        split = _drawn(config, seed, images, samples, classes)
    train, test, held = (take(samples, split.ids(part)) for part in (TRAIN, TEST, HELD_OUT))
    for name in samples.ids:
        if name not in split.rows:
            tally.add(NOT_LISTED, name)
    found = header_findings(config, images)
    validation = held if config.validation is not None and held.paths else None
    dataset = Dataset(
        config.name,
        tuple(classes),
        train,
        test,
        tally.entries(),
        split,
        found,
        validation=validation,
    )
    return check_splits(dataset, shown(str(root)))


def _drawn(
    config: DataConfig,
    seed: int,
    images: Sequence[ImageFile],
    samples: Samples,
    classes: Sequence[str],
) -> SplitList:
    by_name = {image.name: image for image in images}
    ordered = [by_name[name] for name in samples.ids]
    groups = pattern_groups(samples.ids, config.group) if config.group else burst_groups(ordered)
    drawn = Grouped(samples.ids, samples.labels, groups, classes)
    parts = draw_parts(drawn, config, seed, _fifth)
    rows = zip(samples.ids, parts, groups, (image.size for image in ordered), strict=True)
    return SplitList({name: SplitRow(part, group, size) for name, part, group, size in rows})


def _refuse_other_layouts(root: Path, names: Sequence[str]) -> None:
    """Refuse splits under other names, and a folder that is one level too high."""
    if {name.lower() for name in names} <= TRAIN_WORDS | TEST_WORDS and len(names) > 1:
        raise UserError(
            f"{shown(str(root))}: expected folders of classes, or train/ and val/, found "
            f"{', '.join(names)}; {rename_splits(names) or 'put the training images into train/'}"
        )
    if len(names) == 1:
        inside = root / subfolders(root)[0]
        hint = f", or set data.root={shown(str(inside))}" if subfolders(inside) else ""
        raise UserError(
            f"{shown(str(root))}: expected folders of at least two classes, found {names[0]} "
            f"alone; add a class{hint}"
        )


def rename_splits(names: Sequence[str]) -> str:
    """What to do with folders of splits under other names; empty if there are none."""
    by_role = {
        role: [name for name in names if name.lower() in words]
        for role, words in (("train", TRAIN_WORDS), ("val", TEST_WORDS))
    }
    wrong = [
        f"rename {found[0]} to {role}"
        for role, found in by_role.items()
        if found and not {role, "test" if role == "val" else role} & set(found)
    ]
    return " and ".join(wrong)


def _fifth(images: int) -> tuple[int, int]:
    return max(1, round(images / 5)), 0


def take(samples: Samples, wanted: set[str]) -> Samples:
    """The samples with these ids, in order."""
    rows = [i for i, name in enumerate(samples.ids) if name in wanted]
    return replace(
        samples,
        paths=Names(samples.paths[i] for i in rows),
        labels=samples.labels[rows],
        ids=Names(samples.ids[i] for i in rows),
    )


def without_training(
    config: DataConfig, images: list[ImageFile], saved: SplitList | None, tally: Tally
) -> list[ImageFile]:
    """The images that an evaluation may use in a flat folder; see `read_folder_test`."""
    if saved is None:
        raise no_list(
            config.root,
            ". If the run had train/ and val/ folders, data.split=official evaluates every image "
            "here",
        )
    sizes = {image.name: image.size for image in images}
    others = "set data.split=official if all of them are new to the model"
    split = fitting(config.root, sizes, saved, others)
    if split is None:
        return images
    test = split.ids(TEST)
    for image in images:
        if image.name not in test:
            tally.add(OF_TRAINING if image.name in split.rows else NOT_LISTED, image.name)
    return [image for image in images if image.name in test]
