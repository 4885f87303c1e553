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
from itertools import pairwise
from pathlib import Path

import numpy as np

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets.groups import burst_groups, pattern_groups
from transfg_core.data.datasets.samples import Dataset, Samples, check_splits
from transfg_core.data.datasets.split import TEST, TRAIN, SplitList, SplitRow, draw_split
from transfg_core.data.walk import ImageFile, Tally, shown, subfolders, walk
from transfg_core.errors import UserError

TRAIN_FOLDER, TEST_FOLDERS = "train", ("val", "test")

OUTSIDE = "images outside a class folder"
BESIDE = "folders beside the splits"
NOT_LISTED = "images that are not in the run's split.csv"
OF_TRAINING = "images that the run trained with"


def read_folder(config: DataConfig, seed: int, saved: SplitList | None) -> Dataset:
    """Read the layout above for training.

    Raises:
        UserError: a folder is missing, empty or unreadable, the splits have different classes, or
            the split in `saved` does not fit the images.
    """
    root, tally = Path(config.root), Tally()
    test = _split_on_disk(root)
    if test and config.split == "random":
        raise UserError(
            f"data.split: random: {shown(str(root))} has splits on disk, {TRAIN_FOLDER}/ and "
            f"{test}/; set data.split=official"
        )
    if test or config.split == "official":
        if config.group:
            raise UserError(
                "data.group: only a drawn split has groups; leave data.group out, or set "
                "data.split=auto for one flat folder of class folders"
            )
        return _read_official(config, root, test, tally)
    return _read_flat(config, seed, root, saved, tally)


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
    names = set(_folders(root))
    split = next((name for name in TEST_FOLDERS if name in names), None)
    below = split or ""
    images = _images(config, root, tally, (below,))
    place = shown(str(root / below))
    unknown = sorted({_class_of(image, below) for image in images} - set(classes))
    if unknown:
        raise UserError(
            f"{place}: expected folders named after the checkpoint's {len(classes)} classes, such "
            f"as {classes[0]}, found {unknown[0]} ({len(unknown)} unknown); is data.root right?"
        )
    if split is None and config.split != "official":
        images = _without_training(config, images, saved, tally)
    if not images:
        raise UserError(f"{place}: expected images of the checkpoint's classes, found none")
    test = _samples(images, below, classes)
    nothing = Samples((), np.zeros(0, np.int64), ())
    return Dataset(config.name, tuple(classes), nothing, test, tally.entries())


def _folders(root: Path) -> list[str]:
    if not root.is_dir():
        raise UserError(
            f"{shown(str(root))}: expected train/<class>/* and val/<class>/*, or <class>/*, found "
            "no such folder; is data.root right?"
        )
    return subfolders(root)


def _split_on_disk(root: Path) -> str | None:
    """The folder of test images beside train/; None if there is no split on disk."""
    names = _folders(root)
    tests = [name for name in TEST_FOLDERS if name in names]
    return tests[0] if TRAIN_FOLDER in names and tests else None


def _images(config: DataConfig, root: Path, tally: Tally, below: Sequence[str]) -> list[ImageFile]:
    """All images in class folders below the given folders of the root."""
    found = walk(root, tally, below, config.on_bad_image == "skip")
    for left, right in pairwise(found):
        if left.name == right.name:
            raise UserError(
                f"{shown(str(root))}: expected each name once, found two files {left.name} that "
                "differ only in the Unicode form of an accent; rename one of them"
            )
    inside = []
    for image in found:
        if _class_of(image, below[0]):
            inside.append(image)
        else:
            tally.add(OUTSIDE, image.name)
    return inside


def _class_of(image: ImageFile, below: str) -> str:
    """The class folder of an image; empty if it is in none."""
    return "/".join(image.folders[bool(below) : bool(below) + 1])


def _samples(images: Sequence[ImageFile], below: str, classes: Sequence[str]) -> Samples:
    """The images sorted by class, then by name."""
    number = {name: label for label, name in enumerate(classes)}
    labels = [number[_class_of(image, below)] for image in images]
    order = np.argsort(labels, kind="stable")
    return Samples(
        paths=tuple(images[i].path for i in order),
        labels=np.array(labels, dtype=np.int64)[order],
        ids=tuple(images[i].name for i in order),
    )


def _class_names(folder: Path) -> list[str]:
    names = sorted({shown(name) for name in subfolders(folder)})
    if not names:
        raise UserError(f"{shown(str(folder))}: expected one folder for each class, found none")
    return names


def _refuse_empty_classes(
    folder: Path, names: Sequence[str], images: Sequence[ImageFile], below: str, tally: Tally
) -> None:
    empty = sorted(set(names) - {_class_of(image, below) for image in images})
    if empty:
        left_out = "; ".join(map(str, tally.entries()))
        raise UserError(
            f"{shown(str(folder))}/{empty[0]}: expected images, found none ({len(empty)} of "
            f"{len(names)} class folders have none); add images, or remove the folder"
            + (f". Left out: {left_out}" if left_out else "")
        )


def _read_official(config: DataConfig, root: Path, test: str | None, tally: Tally) -> Dataset:
    if test is None:
        names = _folders(root)
        raise UserError(
            f"{shown(str(root))}: expected train/<class>/* and val/<class>/* or test/<class>/* "
            f"inside, found {', '.join(map(shown, names[:3])) or 'no folders'}; is data.root "
            "right? If its folders are the classes, set data.split=auto to draw a split"
        )
    images = _images(config, root, tally, (TRAIN_FOLDER, test))
    sides = {
        split: [image for image in images if image.folders[0] == split]
        for split in (TRAIN_FOLDER, test)
    }
    classes_of = {split: _class_names(root / split) for split in sides}
    _same_classes(root, classes_of, test)
    for split in sides:
        _refuse_empty_classes(root / split, classes_of[split], sides[split], split, tally)
    for name in _folders(root):
        if name not in sides:
            tally.add(BESIDE, shown(name))
    classes = classes_of[TRAIN_FOLDER]
    dataset = Dataset(
        config.name,
        tuple(classes),
        _samples(sides[TRAIN_FOLDER], TRAIN_FOLDER, classes),
        _samples(sides[test], test, classes),
        tally.entries(),
    )
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


def _read_flat(
    config: DataConfig, seed: int, root: Path, saved: SplitList | None, tally: Tally
) -> Dataset:
    """A flat folder: the split is the saved one, or drawn."""
    images = _images(config, root, tally, ("",))
    classes = _class_names(root)
    _refuse_empty_classes(root, classes, images, "", tally)
    if len(classes) < 2:
        raise UserError(
            f"{shown(str(root))}: expected folders of at least two classes, found {classes[0]} "
            "alone; add a class" + (
                f", or set data.root={shown(str(root / TRAIN_FOLDER))}"
                if classes == [TRAIN_FOLDER] else ""
            )
        )  # fmt: skip
    samples = _samples(images, "", classes)
    if saved and not _holds_all(config, images, saved):
        saved = None  # other images than those of the run that this one starts from
    if saved is None:
        by_name = {image.name: image for image in images}
        ordered = [by_name[name] for name in samples.ids]
        groups = (
            pattern_groups(samples.ids, config.group) if config.group else burst_groups(ordered)
        )
        parts = draw_split(samples.ids, samples.labels, groups, classes, seed, _fifth)
        rows = zip(samples.ids, parts, groups, (image.size for image in ordered), strict=True)
        saved = SplitList({name: SplitRow(part, group, size) for name, part, group, size in rows})
    train, test = (_take(samples, saved.ids(part)) for part in (TRAIN, TEST))
    for name in samples.ids:
        if name not in saved.rows:
            tally.add(NOT_LISTED, name)
    dataset = Dataset(config.name, tuple(classes), train, test, tally.entries(), saved)
    return check_splits(dataset, shown(str(root)))


def _fifth(images: int) -> tuple[int, int]:
    return max(1, round(images / 5)), 0


def _take(samples: Samples, wanted: set[str]) -> Samples:
    rows = [i for i, name in enumerate(samples.ids) if name in wanted]
    return replace(
        samples,
        paths=tuple(samples.paths[i] for i in rows),
        labels=samples.labels[rows],
        ids=tuple(samples.ids[i] for i in rows),
    )


def _holds_all(config: DataConfig, images: Sequence[ImageFile], saved: SplitList) -> bool:
    """Whether the images are those of a split: all of them, or none.

    Raises:
        UserError: some are and some are not.
    """
    sizes = {image.name: image.size for image in images}
    absent = [name for name, row in saved.rows.items() if sizes.get(name) != row.size]
    if absent and len(absent) < len(saved.rows):
        raise UserError(
            f"{shown(config.root)}: expected all images of the run's split.csv, or none, found "
            f"{len(saved.rows) - len(absent)} of {len(saved.rows)}; absent or changed is "
            f"{absent[0]}; restore the images, or put new images into a folder of their own"
        )
    return not absent


def _without_training(
    config: DataConfig, images: list[ImageFile], saved: SplitList | None, tally: Tally
) -> list[ImageFile]:
    """The images that an evaluation may use in a flat folder; see `read_folder_test`."""
    if saved is None:
        raise UserError(
            f"{shown(config.root)}: expected the split.csv of the checkpoint's run, to tell its "
            "test images from its training images, found none; copy it beside the checkpoint, or "
            "give a data.root with test/<class>/*"
        )
    if not _holds_all(config, images, saved):
        return images
    test = saved.ids(TEST)
    for image in images:
        if image.name not in test:
            tally.add(OF_TRAINING if image.name in saved.rows else NOT_LISTED, image.name)
    return [image for image in images if image.name in test]
