"""A data set whose lists name each image, its class and its part of the official split.

A reader of such a set turns its files into a `Listing`. This module checks it, takes the official
split, a run's or a drawn one, and counts the files that no list names.

`split: random` ignores the official split. For each class, 10 % of the images (at least one) are
the test split and 80 % the training split. The other 10 % are in neither split. Use them to choose
settings: then the test accuracy stays unbiased. `data.validation` sets their share, and evaluates
them during training. The random split depends only on the seed and the image names.
"""

import os
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets.drawing import Grouped, draw_parts, validation_split
from transfg_core.data.datasets.findings import New
from transfg_core.data.datasets.groups import pattern_groups
from transfg_core.data.datasets.listing import Listing, check_classes, check_files, check_paths
from transfg_core.data.datasets.regions import box_regions, footless_regions, no_boxes
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
from transfg_core.data.walk import ImageFile, Tally, shown, walk_listed
from transfg_core.errors import UserError

NOT_IN_A_LIST = "images that no list of the data set names"
HELD_OUT_IMAGES = "images that data.split: random holds out"


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
    check_paths(listing)
    unlisted, found = _look(listing, tally)
    other_case = _in_other_case(listing, unlisted, found)
    if config.on_bad_image == "error":
        check_files(listing, found | other_case.keys())
    check_classes(listing)
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
    taken = set(other_case.values())
    unlisted = [image for image in unlisted if image.path not in taken]
    _count_left_out(unlisted, {ids[k] for k in (*train, *test, *held)}, ids, split, tally)
    boxes, regions = listing.part_boxes, _regions(config, listing)

    def take(chosen: NDArray[np.int64]) -> Samples:
        names = Names(ids[i] for i in chosen)
        return Samples(
            paths=_paths(listing, names, other_case),
            labels=labels[chosen],
            ids=names,
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
        class_ids=listing.class_ids,
    )
    if seed is None and not len(train):
        return dataset
    return check_splits(dataset, str(source))


def _regions(config: DataConfig, listing: Listing) -> NDArray[np.int32] | None:
    """What to use of each image (N, 4); None for all of it."""
    if config.box_crop:
        if listing.boxes is None:
            raise no_boxes(config.name, listing.folder)
        paths = [os.path.join(listing.folder, image.name) for image in listing.images]
        return box_regions(listing.boxes(), paths, [image.where for image in listing.images])
    if listing.banner and config.banner == "cut":
        return footless_regions(len(listing.images), listing.banner)
    return None


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


def _look(listing: Listing, tally: Tally) -> tuple[list[ImageFile], set[str]]:
    """Image files that no list names, and the listed names that were found on the way."""
    below = [folder for folder in listing.below if (listing.folder / folder).is_dir()]
    listed = {image.name for image in listing.images}
    return walk_listed(listing.folder, tally, below, listed) if below else ([], set())


def _in_other_case(
    listing: Listing, unlisted: Sequence[ImageFile], found: set[str]
) -> dict[str, str]:
    """Listed name -> file, where the only such file differs in the case of letters alone."""
    if not unlisted:
        return {}
    files: dict[str, list[str]] = {}
    for image in unlisted:
        files.setdefault(image.name.casefold(), []).append(image.path)
    absent = [image.name for image in listing.images if image.name not in found]
    names = Counter(shown(name).casefold() for name in absent)
    matches = {}
    for name in absent:
        key = shown(name).casefold()
        alike = files.get(key, [])
        exists = os.path.isfile(os.path.join(listing.folder, name))
        if len(alike) == names[key] == 1 and not exists:
            matches[name] = alike[0]
    return matches


def _paths(listing: Listing, names: Names, other_case: dict[str, str]) -> Names:
    """The files of images; these share their block with the names where none differs."""
    if not other_case:
        return names.below(str(listing.folder))
    return Names(other_case.get(name, os.path.join(listing.folder, name)) for name in names)


def _count_left_out(
    unlisted: Sequence[ImageFile],
    used: set[str],
    listed: Sequence[str],
    split: SplitList | None,
    tally: Tally,
) -> None:
    """Count the images that no list names, and those that are in no split."""
    if unlisted:
        names = {shown(name) for name in listed}
        for image in unlisted:
            if image.name not in names:
                tally.add(NOT_IN_A_LIST, image.name)
    for name in sorted(set(listed) - used):
        tally.add(HELD_OUT_IMAGES if split and name in split.rows else NOT_LISTED, name)
