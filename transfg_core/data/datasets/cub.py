"""CUB-200-2011 (Wah et al. 2011) and data sets in its layout.

    images.txt              <image id> <path below images/>
    image_class_labels.txt  <image id> <class id, from 1>
    train_test_split.txt    <image id> <1: training, 0: test>
    classes.txt             <class id> <name>
    part_boxes.txt          <image id> <part name> <x> <y> <width> <height>   (optional, not in CUB)

`split: random` ignores train_test_split.txt. For each class, 10 % of the images (at least one) are
the test split and 80 % the training split. The other 10 % are in neither split. Use them
to choose settings: then the test accuracy stays unbiased. The random split depends only on the seed
and the image names.
"""

import os
from collections import defaultdict
from collections.abc import Sequence
from math import isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets.groups import pattern_groups
from transfg_core.data.datasets.rows import Rows, lines_of, read_rows
from transfg_core.data.datasets.samples import Dataset, Samples, check_splits
from transfg_core.data.datasets.split import (
    HELD_OUT,
    NOT_LISTED,
    TEST,
    TRAIN,
    SplitList,
    SplitRow,
    draw_split,
    fitting,
    no_list,
)
from transfg_core.data.walk import Tally, relative_to, shown, walk
from transfg_core.errors import UserError

NOT_IN_IMAGES_TXT = "images that images.txt does not list"
HELD_OUT_IMAGES = "images that data.split: random holds out"

Boxes = tuple[NDArray[np.float32], ...]


def read_cub(config: DataConfig, seed: int | None, saved: SplitList | None = None) -> Dataset:
    """Read the layout above from `config.root`, or from `CUB_200_2011/` inside it.

    Where the split is drawn, `saved`, a run's split.csv, decides if all of its images are listed.
    If none of them is, `seed` draws another split. An evaluation has no seed and draws nothing:
    it needs `saved`, and tests with every image if none of them is in that list.

    With `on_bad_image: skip`, absent images stay listed, and the loader counts them.

    Raises:
        UserError: something is missing or inconsistent; the text names file and line.
    """
    tally = Tally()
    root = _find_root(Path(config.root))
    classes = _read_classes(root / "classes.txt")
    images = read_rows(root / "images.txt")
    _check_images(root, images, config.on_bad_image == "error")
    labels = _read_integers(root, "image_class_labels.txt", images, 1, len(classes)) - 1
    _check_every_class(root, classes, labels)
    ids, split = [row.value for row in images.values()], None
    source = root / "train_test_split.txt"
    if _is_official(config, source, ids, saved):
        is_train = _read_integers(root, source.name, images, 0, 1)
        parts = [TRAIN if flag else TEST for flag in is_train]
    else:
        source = root / "image_class_labels.txt"
        split = _split(config, seed, saved, ids, labels, classes)
        listed = {name: row.part for name, row in split.rows.items()} if split else {}
        parts = [listed.get(name, HELD_OUT if split else TEST) for name in ids]
    train, test = (
        np.array([k for k, p in enumerate(parts) if p == part], dtype=np.int64)
        for part in (TRAIN, TEST)
    )
    _count_left_out(root, [ids[k] for k in (*train, *test)], ids, split, tally)
    boxes = _read_part_boxes(root / "part_boxes.txt", images)

    def take(chosen: NDArray[np.int64]) -> Samples:
        return Samples(
            paths=tuple(str(root / "images" / ids[i]) for i in chosen),
            labels=labels[chosen],
            ids=tuple(ids[i] for i in chosen),
            part_boxes=None if boxes is None else tuple(boxes[i] for i in chosen),
        )

    dataset = Dataset(config.name, classes, take(train), take(test), tally.entries(), split)
    if seed is None and not len(train):
        return dataset
    return check_splits(dataset, str(source))


def _find_root(root: Path) -> Path:
    for candidate in (root, root / "CUB_200_2011"):
        if (candidate / "images.txt").is_file():
            return candidate
    found = "a folder without them" if root.is_dir() else f"no such folder{relative_to(root)}"
    raise UserError(
        f"{root}: expected images.txt or CUB_200_2011/images.txt inside, found {found}; "
        "is data.root right?"
    )


def _read_classes(path: Path) -> tuple[str, ...]:
    names = []
    for expected, (key, row) in enumerate(read_rows(path).items(), 1):
        if key != str(expected):
            raise UserError(f"{path}:{row.line}: expected class id {expected}, found {key!r}")
        names.append(row.value)
    return tuple(names)


def _check_images(root: Path, images: Rows, must_exist: bool) -> None:
    """Check that each path is listed once and, if `must_exist`, that the file exists."""
    path, lines = root / "images.txt", dict[str, int]()
    for row in images.values():
        if row.value in lines:
            raise UserError(
                f"{path}:{row.line}: expected each image once, found {row.value} also on line "
                f"{lines[row.value]}; remove one of the lines"
            )
        lines[row.value] = row.line
    folder = os.path.join(root, "images")
    absent = [name for name in lines if not os.path.isfile(os.path.join(folder, name))]
    if absent and must_exist:
        raise UserError(
            f"{path}:{lines[absent[0]]}: {os.path.join(folder, absent[0])} is listed but absent "
            f"({len(absent)} of {len(lines)} images are absent); restore the files, or set "
            "data.on_bad_image=skip"
        )


def _read_integers(root: Path, name: str, images: Rows, low: int, high: int) -> NDArray[np.int64]:
    """One integer in [low, high] for each image: (N,), in the order of images.txt."""
    path, rows = root / name, read_rows(root / name)
    for left, left_rows, right, right_rows in (
        ("images.txt", images, name, rows),
        (name, rows, "images.txt", images),
    ):
        missing = [key for key in left_rows if key not in right_rows]
        if missing:
            raise UserError(
                f"{root / left}:{left_rows[missing[0]].line}: id {missing[0]} is not in {right} "
                f"({len(missing)} such ids); expected the same ids in both files; "
                "do they belong together?"
            )
    values = []
    for key in images:
        value, line = rows[key]
        if not (value.isascii() and value.isdigit() and low <= int(value) <= high):
            raise UserError(
                f"{path}:{line}: expected an integer from {low} to {high}, found {value!r}"
            )
        values.append(int(value))
    return np.array(values, dtype=np.int64)


def _check_every_class(root: Path, classes: tuple[str, ...], labels: NDArray[np.int64]) -> None:
    empty = np.flatnonzero(np.bincount(labels, minlength=len(classes)) == 0)
    if len(empty):
        raise UserError(
            f"{root / 'classes.txt'}: class {empty[0] + 1} {classes[empty[0]]} has no images in "
            f"image_class_labels.txt ({len(empty)} of {len(classes)} classes have none); "
            "expected at least one; is the copy complete?"
        )


def _is_official(
    config: DataConfig, source: Path, ids: Sequence[str], saved: SplitList | None
) -> bool:
    """Whether `source` defines the split. With `auto`, a run's list of these images goes first."""
    if config.split == "auto" and source.is_file():
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
    classes: tuple[str, ...],
) -> SplitList | None:
    """The saved or a drawn split; None for an evaluation of images that are not in the saved one.

    In a drawn one, each image is a group of its own unless `data.group` says otherwise.
    """
    if seed is None and saved is None:
        auto = ", or restore train_test_split.txt if the run used it"
        raise no_list(config.root, auto if config.split == "auto" else "")
    split = fitting(config.root, dict.fromkeys(ids, 0), saved)
    if split or seed is None:
        return split
    groups = pattern_groups(ids, config.group) if config.group else ids
    parts = draw_split(ids, labels, groups, classes, seed, _tenths)
    return SplitList(dict(zip(ids, map(SplitRow, parts, groups), strict=True)))


def _count_left_out(
    root: Path, used: Sequence[str], listed: Sequence[str], split: SplitList | None, tally: Tally
) -> None:
    """Count the files below images/ that are not used."""
    below = {shown(name) for name in listed}
    if (root / "images").is_dir():
        for image in walk(root / "images", tally, skip_unreadable=True):
            if image.name not in below:
                tally.add(NOT_IN_IMAGES_TXT, image.name)
    for name in sorted(set(listed) - set(used)):
        tally.add(HELD_OUT_IMAGES if split and name in split.rows else NOT_LISTED, name)


def _read_part_boxes(path: Path, images: Rows) -> Boxes | None:
    """Boxes of each image, (n, 4) as x0, y0, x1, y1; None if the file does not exist."""
    if not path.is_file():
        return None
    boxes: dict[str, list[list[float]]] = defaultdict(list)
    for line, text in lines_of(path):
        key, *rest = text.split()
        try:
            x, y, width, height = (float(field) for field in rest[-4:])
            well_formed = len(rest) >= 5 and min(width, height) > 0 and isfinite(x + y)
        except ValueError:
            well_formed = False
        if not well_formed:
            raise UserError(
                f"{path}:{line}: expected `image_id part_name x y width height`, found {text!r}"
            )
        if key not in images:
            raise UserError(
                f"{path}:{line}: expected an image id from images.txt, found image id {key}; "
                "do the files belong together?"
            )
        boxes[key].append([x, y, x + width, y + height])
    return tuple(np.array(boxes[key], dtype=np.float32).reshape(-1, 4) for key in images)
