"""A data set as folders: with a split on disk, or one flat folder of class folders.

    train/<class>/* and val/<class>/*      a split on disk (test/ counts if there is no val/)
    <class>/*                              flat; `data.split: auto` or `random` draws the split

Classes are sorted by name, images by path; a class folder may hold folders. `walk.py` says which
files are images and what becomes of links, hidden files and names in other encodings. Class folders
whose names differ only in the Unicode form of an accent are one class.

A drawn split tests with a fifth of each class's images. The run's split.csv decides from then on.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets.class_folders import (
    class_names,
    class_of,
    folders_of,
    read_images,
    refuse_empty_classes,
    samples_of,
)
from transfg_core.data.datasets.drawing import Grouped, validation_split
from transfg_core.data.datasets.findings import Finding, New, header_findings
from transfg_core.data.datasets.flat import read_flat, rename_splits, take, without_training
from transfg_core.data.datasets.groups import burst_groups, pattern_groups
from transfg_core.data.datasets.samples import Dataset, Samples, check_splits
from transfg_core.data.datasets.split import HELD_OUT, NOT_LISTED, TEST, TRAIN, SplitList, fitting
from transfg_core.data.walk import ImageFile, Tally, shown
from transfg_core.errors import UserError

TRAIN_FOLDER, TEST_FOLDERS = "train", ("val", "test")

BESIDE = "folders beside the splits"


def read_folder(config: DataConfig, seed: int, saved: SplitList | None) -> Dataset:
    """Read the layout above for training.

    Raises:
        UserError: a folder is missing, empty or unreadable, the splits have different classes, or
            the split in `saved` does not fit the images.
    """
    root, tally = Path(config.root), Tally()
    test = _split_on_disk(root)
    if test and (config.split == "random" or config.folds is not None):
        key = "data.split: random" if config.split == "random" else "data.folds"
        raise UserError(
            f"{key}: {shown(str(root))} has splits on disk, {TRAIN_FOLDER}/ and {test}/; set "
            "data.split=official, or put all images into one flat folder of classes"
        )
    if test or config.split == "official":
        if config.group and config.validation is None:
            raise UserError(
                "data.group: only a drawn split and data.validation have groups; leave data.group "
                "out, or set data.split=auto for one flat folder of class folders"
            )
        return _read_official(config, root, test, tally, seed, saved)
    return read_flat(config, seed, root, saved, tally)


def read_folder_test(
    config: DataConfig, classes: Sequence[str], saved: SplitList | None
) -> Dataset:
    """Read what an evaluation needs; `train` is empty.

    With val/ or test/, these images. In a flat folder that holds all images of the run's split
    (`saved`), its test images; in one that holds none of them, every image. Classes may be absent.

    Raises:
        UserError: a class is unknown, no image is found, or only some of the run's images are.
    """
    root, tally = Path(config.root), Tally()
    names = set(folders_of(root)) - set(classes)  # a class may be called `test`
    split = next((name for name in TEST_FOLDERS if name in names), None)
    below = split or ""
    images = read_images(config, root, tally, (below,))
    place = shown(str(root / below))
    unknown = sorted({class_of(image, below) for image in images} - set(classes))
    if unknown:
        raise UserError(
            f"{place}: expected folders named after the checkpoint's {len(classes)} classes, such "
            f"as {classes[0]}, found {unknown[0]} ({len(unknown)} unknown); "
            + (rename_splits(unknown) or "is data.root right?")
        )
    new: tuple[Finding, ...] = ()
    if split is None and config.split != "official":
        everything = images
        images = without_training(config, images, saved, tally)
        if images is everything and images:
            new = (New(len(images), images[0].name),)
    if not images:
        raise UserError(f"{place}: expected images of the checkpoint's classes, found none")
    test = samples_of(images, below, classes)
    nothing = Samples((), np.zeros(0, np.int64), ())
    found = (*header_findings(config, images), *new)
    return Dataset(config.name, tuple(classes), nothing, test, tally.entries(), findings=found)


def _split_on_disk(root: Path) -> str | None:
    """The folder of test images beside train/; None if there is no split on disk."""
    names = folders_of(root)
    tests = [name for name in TEST_FOLDERS if name in names]
    return tests[0] if TRAIN_FOLDER in names and tests else None


def _read_official(
    config: DataConfig,
    root: Path,
    test: str | None,
    tally: Tally,
    seed: int,
    saved: SplitList | None,
) -> Dataset:
    if test is None:
        names = folders_of(root)
        raise UserError(
            f"{shown(str(root))}: expected train/<class>/* and val/<class>/* or test/<class>/* "
            f"inside, found {', '.join(map(shown, names[:3])) or 'no folders'}; "
            + (
                rename_splits(names)
                or "is data.root right? If its folders are the classes, set data.split=auto to "
                "draw a split"
            )
        )
    images = read_images(config, root, tally, (TRAIN_FOLDER, test))
    sides = {
        split: [image for image in images if image.folders[0] == split]
        for split in (TRAIN_FOLDER, test)
    }
    classes_of = {split: class_names(root / split) for split in sides}
    _same_classes(root, classes_of, test)
    for split in sides:
        refuse_empty_classes(root / split, classes_of[split], sides[split], split, tally)
    for name in folders_of(root):
        if name not in sides:
            tally.add(BESIDE, shown(name))
    classes = classes_of[TRAIN_FOLDER]
    dataset = Dataset(
        config.name,
        tuple(classes),
        samples_of(sides[TRAIN_FOLDER], TRAIN_FOLDER, classes),
        samples_of(sides[test], test, classes),
        tally.entries(),
        findings=header_findings(config, images),
    )
    if config.validation is not None:
        dataset = _with_validation(dataset, images, config, seed, saved, tally)
    return check_splits(dataset, shown(str(root)))


def _same_classes(root: Path, names: dict[str, list[str]], test: str) -> None:
    for split, other in ((TRAIN_FOLDER, test), (test, TRAIN_FOLDER)):
        unmatched = sorted(set(names[split]) - set(names[other]))
        if unmatched:
            raise UserError(
                f"{shown(str(root))}/{split}/{unmatched[0]}: {len(unmatched)} class"
                f"{'es' * (len(unmatched) > 1)} of {split}/ found no match in {other}/; expected "
                f"the same class folders in both: add some of its images to {other}/"
                f"{unmatched[0]}, or remove the folder; or put all images into one flat folder of "
                "classes, and set data.split=auto"
            )


def _with_validation(
    dataset: Dataset,
    images: Sequence[ImageFile],
    config: DataConfig,
    seed: int,
    saved: SplitList | None,
    tally: Tally,
) -> Dataset:
    """The data set with training images held out: those of the saved list, or drawn ones.

    Images that the saved list does not name are left out. Groups stay whole: near-identical shots,
    or what `data.group` says.
    """
    split = fitting(config.root, {image.name: image.size for image in images}, saved)
    if split is None:
        by_name = {image.name: image for image in images}
        ids = (*dataset.train.ids, *dataset.test.ids)
        ordered = [by_name[name] for name in ids]
        labels = np.concatenate([dataset.train.labels, dataset.test.labels])
        groups = pattern_groups(ids, config.group) if config.group else burst_groups(ordered)
        parts = [TRAIN] * len(dataset.train.ids) + [TEST] * len(dataset.test.ids)
        grouped = Grouped(ids, labels, groups, dataset.classes)
        drawn = validation_split(grouped, parts, config, seed).rows
        split = SplitList({n: replace(row, size=by_name[n].size) for n, row in drawn.items()})
    train, held = (take(dataset.train, split.ids(part)) for part in (TRAIN, HELD_OUT))
    test = take(dataset.test, split.ids(TEST))
    for name in (*dataset.train.ids, *dataset.test.ids):
        if name not in split.rows:
            tally.add(NOT_LISTED, name)
    return replace(
        dataset, train=train, validation=held, test=test, split=split, left_out=tally.entries()
    )
