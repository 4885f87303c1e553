"""A data set whose lists name each image, its class and its part of the official split.

A reader of such a set turns its files into a `Listing`. This module checks it, takes the official
split, a run's or a drawn one, and counts the files that no list names.

`split: random` ignores the official split. For each class, 10 % of the images (at least one) are
the test split and 80 % the training split. The other 10 % are in neither split. Use them to choose
settings: then the test accuracy stays unbiased. `data.validation` sets their share, and evaluates
them during training. The random split depends only on the seed and the image names.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets.drawing import Grouped, draw_parts, validation_split
from transfg_core.data.datasets.findings import New
from transfg_core.data.datasets.groups import pattern_groups
from transfg_core.data.datasets.regions import Corners, box_regions, footless_regions, no_boxes
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
from transfg_core.data.walk import Tally, relative_to, shown, walk
from transfg_core.errors import UserError

NOT_IN_A_LIST = "images that no list of the data set names"
HELD_OUT_IMAGES = "images that data.split: random holds out"

Boxes = tuple[NDArray[np.float32], ...]


@dataclass(frozen=True)
class ListedImage:
    """One image of a list; `part` is TRAIN or TEST, or None without an official split."""

    name: str  # path below the folder of images, with forward slashes
    label: int  # in [0, C)
    part: str | None
    where: str  # the file and line or entry, for messages


@dataclass(frozen=True)
class Listing:
    """What a reader found; `classes_file`, `labels_file` and `split_file` are for messages."""

    folder: Path  # that the names of images are below
    images: Sequence[ListedImage]
    classes: tuple[str, ...]
    classes_file: Path
    labels_file: Path
    split_file: Path
    below: tuple[str, ...] = ("",)  # folders of images below `folder`
    part_boxes: Boxes | None = None
    boxes: Callable[[], Sequence[Corners]] | None = None  # of all images, for data.box_crop
    banner: int = 0  # rows at the foot of each image that data.banner cuts off


def find_root(root: Path, names: Sequence[str], nested: Sequence[str]) -> Path:
    """The folder that holds one of the files `names`: `root`, or one of `nested` below it.

    Raises:
        UserError: none of them does.
    """
    for below in ("", *nested):
        if any((root / below / name).exists() for name in names):
            return root / below
    for name in names:
        if "/" in name and (root / Path(name).name).exists():
            raise UserError(
                f"{shown(str(root))}: expected {name} inside, found {Path(name).name} without the "
                f"folder; put it into a folder {Path(name).parent}/, or give the folder above as "
                "data.root"
            )
    found = "a folder without them" if root.is_dir() else f"no such folder{relative_to(root)}"
    raise UserError(
        f"{shown(str(root))}: expected {' or '.join(names)}"
        + (f", or {nested[0]}/{names[0]}" if nested else "")
        + f" inside, found {found}; is data.root right?"
    )


def names_by_label(images: Sequence[ListedImage], names: Sequence[str], path: Path) -> list[str]:
    """The class names in the order of labels, from the name that goes with each image.

    Raises:
        UserError: a label has two names, or labels have a gap; `path` is a list, for the message.
    """
    found: dict[int, str] = {}
    for image, name in zip(images, names, strict=True):
        if found.setdefault(image.label, name) != name:
            raise UserError(
                f"{image.where}: expected one class for each label, found {name} and "
                f"{found[image.label]} for one label; do the lists belong together?"
            )
    count = max(found, default=-1) + 1
    missing = [label for label in range(count) if label not in found]
    if missing:
        raise UserError(
            f"{path}: expected labels without gaps, found no image of label {missing[0]} (from 0) "
            f"of {count}; is the copy complete?"
        )
    return [found[label] for label in range(count)]


def read_listing(
    config: DataConfig, seed: int | None, saved: SplitList | None, listing: Listing
) -> Dataset:
    """The data set of a listing.

    Where the split is drawn, `saved`, a run's split.csv, decides if all of its images are listed.
    If none of them is, `seed` draws another split. An evaluation has no seed and draws nothing:
    it needs `saved`, and tests with every image if none of them is in that list.

    With `on_bad_image: skip`, absent images stay listed, and the loader counts them.

    Raises:
        UserError: something is missing or inconsistent; the text names file and line.
    """
    tally = Tally()
    _check_images(listing, config.on_bad_image == "error")
    _check_classes(listing)
    ids = [image.name for image in listing.images]
    labels = np.array([image.label for image in listing.images], dtype=np.int64)
    split, source = None, listing.split_file
    parts = [image.part or "" for image in listing.images]
    own = _is_official(config, all(parts), ids, saved)
    if not own:
        source = listing.labels_file
        split = _split(config, seed, saved, ids, labels, listing)
        listed = {name: row.part for name, row in split.rows.items()} if split else {}
        parts = [listed.get(name, HELD_OUT if split else TEST) for name in ids]
    elif not all(parts):
        raise UserError(
            f"{source}: cannot read the official split: no such file; restore it, or set "
            "data.split=random"
        )
    elif config.validation is not None and seed is not None:
        grouped = _grouped(config, ids, labels, listing)
        split = fitting(config.root, dict.fromkeys(ids, 0), saved)
        split = split or validation_split(grouped, parts, config, seed)
        parts = [split.rows[name].part if name in split.rows else "" for name in ids]
    train, test, held = (
        np.array([k for k, p in enumerate(parts) if p == part], dtype=np.int64)
        for part in (TRAIN, TEST, HELD_OUT)
    )
    if config.validation is None or seed is None:
        held = held[:0]
    _count_left_out(listing, {ids[k] for k in (*train, *test, *held)}, ids, split, tally)
    paths = [os.path.join(listing.folder, name) for name in ids]
    boxes, regions = listing.part_boxes, _regions(config, listing, paths)

    def take(chosen: NDArray[np.int64]) -> Samples:
        return Samples(
            paths=tuple(paths[i] for i in chosen),
            labels=labels[chosen],
            ids=tuple(ids[i] for i in chosen),
            part_boxes=None if boxes is None else tuple(boxes[i] for i in chosen),
            regions=None if regions is None else regions[chosen],
        )

    dataset = Dataset(
        config.name,
        listing.classes,
        take(train),
        take(test),
        tally.entries(),
        split,
        findings=() if own or split or not ids else (New(len(ids), ids[0]),),
        validation=take(held) if len(held) else None,
    )
    if seed is None and not len(train):
        return dataset
    return check_splits(dataset, str(source))


def _regions(
    config: DataConfig, listing: Listing, paths: Sequence[str]
) -> NDArray[np.int32] | None:
    """What to use of each image (N, 4); None for all of it."""
    if config.box_crop:
        if listing.boxes is None:
            raise no_boxes(config.name, listing.folder)
        return box_regions(listing.boxes(), paths, [image.where for image in listing.images])
    if listing.banner and config.banner == "cut":
        return footless_regions(len(paths), listing.banner)
    return None


def _check_images(listing: Listing, must_exist: bool) -> None:
    """Check that each path is listed once and in the folder; with `must_exist`, that it exists."""
    places: dict[str, str] = {}
    for image in listing.images:
        if image.name in places:
            raise UserError(
                f"{image.where}: expected each image once, found {image.name} also on "
                f"{_line_of(places[image.name])}; remove one of the lines"
            )
        parts = image.name.split("/")
        if image.name.startswith("/") or ".." in parts or "\0" in image.name:
            raise UserError(
                f"{image.where}: expected a path inside {shown(str(listing.folder))}, found "
                f"{image.name!r}; correct the list"
            )
        places[image.name] = image.where
    if not must_exist:
        return
    absent = [name for name in places if not os.path.isfile(os.path.join(listing.folder, name))]
    if absent:
        raise UserError(
            f"{places[absent[0]]}: {os.path.join(listing.folder, absent[0])} is listed but absent "
            f"({len(absent)} of {len(places)} images are absent); restore the files, or set "
            "data.on_bad_image=skip"
        )


def _line_of(where: str) -> str:
    """`line 3` of `file:3`, and other places as they are."""
    line = where.rpartition(":")[2]
    return f"line {line}" if line.isdecimal() else where


def _check_classes(listing: Listing) -> None:
    """Check that every class has images, and a name of its own."""
    labels = [image.label for image in listing.images]
    empty = np.flatnonzero(np.bincount(labels, minlength=len(listing.classes)) == 0)
    if len(empty):
        raise UserError(
            f"{listing.classes_file}: class {empty[0] + 1} {listing.classes[empty[0]]} has no "
            f"images in {listing.labels_file.name} ({len(empty)} of {len(listing.classes)} classes "
            "have none); expected at least one; is the copy complete?"
        )
    seen: dict[str, int] = {}
    for number, name in enumerate(listing.classes, 1):
        if name in seen:
            raise UserError(
                f"{listing.classes_file}: expected a name of its own for each class, found "
                f"{name!r} for classes {seen[name]} and {number}; rename one of them"
            )
        seen[name] = number


def _is_official(
    config: DataConfig, exists: bool, ids: Sequence[str], saved: SplitList | None
) -> bool:
    """Whether the official split counts. With `auto`, a run's list of these images goes first.

    Raises:
        UserError: `data.folds` asks for another split, but `data.split: random` does not.
    """
    if config.split == "auto" and exists and config.folds is not None:
        raise UserError(
            f"data.folds: the data set {shown(config.root)} has an official split, which has no "
            "folds; set data.split=random"
        )
    if config.split == "auto" and exists:
        return saved is None or saved.rows.keys().isdisjoint(ids)
    return config.split == "official"


def _tenths(images: int) -> tuple[int, int]:
    """A tenth for testing, at least one image, and a tenth that is held out."""
    tenth = (images + 5) // 10
    return max(tenth, 1), tenth


def _split(
    config: DataConfig,
    seed: int | None,
    saved: SplitList | None,
    ids: list[str],
    labels: NDArray[np.int64],
    listing: Listing,
) -> SplitList | None:
    """The saved or a drawn split; None for an evaluation of images that no list names."""
    if seed is None and saved is None:
        auto = f", or restore {listing.split_file.name} if the run used it"
        raise no_list(config.root, auto if config.split == "auto" else "")
    split = fitting(config.root, dict.fromkeys(ids, 0), saved)
    if split or seed is None:
        return split
    grouped = _grouped(config, ids, labels, listing)
    parts = draw_parts(grouped, config, seed, _tenths)
    return SplitList(dict(zip(ids, map(SplitRow, parts, grouped.groups), strict=True)))


def _grouped(
    config: DataConfig, ids: list[str], labels: NDArray[np.int64], listing: Listing
) -> Grouped:
    """The images with their groups: each is one of its own unless `data.group` says otherwise."""
    groups = pattern_groups(ids, config.group) if config.group else ids
    return Grouped(ids, labels, groups, listing.classes)


def _count_left_out(
    listing: Listing,
    used: set[str],
    listed: Sequence[str],
    split: SplitList | None,
    tally: Tally,
) -> None:
    """Count the files in the folders of images that are not used."""
    names = {shown(name) for name in listed}
    below = [folder for folder in listing.below if (listing.folder / folder).is_dir()]
    if below:
        for image in walk(listing.folder, tally, below, skip_unreadable=True):
            if image.name not in names:
                tally.add(NOT_IN_A_LIST, image.name)
    for name in sorted(set(listed) - used):
        tally.add(HELD_OUT_IMAGES if split and name in split.rows else NOT_LISTED, name)
