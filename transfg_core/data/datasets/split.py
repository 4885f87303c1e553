"""A split that is drawn: by class, from a seed, and so that no group lies on both sides.

A group is a set of images that must stay together: near-identical shots, or one value of
`data.group`. A group may hold images of several classes. For each class, in the order of a seeded
shuffle, groups move from training to the other parts while that brings the class closer to its
share. A class keeps at least one training image and gets at least one test image.

A run writes its drawn split as split.csv. The list, not the drawing, is what later commands use:
on images added later too, but never on a data set that lacks or changed some of its images.
"""

import csv
import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transfg_core.data.walk import shown
from transfg_core.errors import UserError

SPLIT_STREAM = 3  # a random stream apart from the loader's (STREAMS in sample_reader.py)
COLUMNS = ("image", "split", "group", "bytes")
TRAIN, TEST, HELD_OUT = PARTS = ("train", "test", "held out")
NOT_LISTED = "images that are not in the run's split.csv"
MOST_DIGITS = 18  # of a size in bytes

# Images of a class -> how many of them are for testing, and how many are held out.
Shares = Callable[[int], tuple[int, int]]


@dataclass(frozen=True)
class SplitRow:
    """One image of a split: its part (one of PARTS), its group, its size in bytes (0: unknown)."""

    part: str
    group: str
    size: int = 0


@dataclass(frozen=True)
class SplitList:
    """A drawn split: image id -> row."""

    rows: dict[str, SplitRow]

    def ids(self, part: str) -> set[str]:
        """The images of one part."""
        return {name for name, row in self.rows.items() if row.part == part}

    def csv(self) -> str:
        """The list as split.csv, one row for each image."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        rows = self.rows.items()
        writer.writerows((name, row.part, row.group, row.size or "") for name, row in rows)
        return text.getvalue()


def read_split(path: Path) -> SplitList | None:
    """Read a split.csv; None if there is none.

    Raises:
        UserError: the file is not such a list; the text names the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read the split: {error}; restore the file") from error
    table = csv.reader(io.StringIO(text, newline=""))
    rows: dict[str, SplitRow] = {}
    try:
        for number, fields in enumerate(table):
            if number == 0:
                sound = tuple(fields) == COLUMNS
            else:
                sound = _is_row(fields) and fields[0] not in rows
            if not sound:
                raise _damaged(path, table.line_num, str(fields))
            if number:
                rows[fields[0]] = SplitRow(fields[1], fields[2], int(fields[3] or 0))
    except csv.Error as error:
        raise _damaged(path, table.line_num, str(error)) from error
    if not rows:
        raise _damaged(path, table.line_num, "no images")
    return SplitList(rows)


def _is_row(fields: list[str]) -> bool:
    """Whether the fields are those of an image; the size may be empty."""
    if len(fields) != len(COLUMNS) or fields[1] not in PARTS:
        return False
    size = fields[3]
    return not size or (size.isdecimal() and len(size) <= MOST_DIGITS)


def _damaged(path: Path, line: int, found: str) -> UserError:
    short = found if len(found) <= 200 else f"{found[:200]}..."
    return UserError(
        f"{path}, line {line}: expected the header {','.join(COLUMNS)}, then each image once, "
        f"found {short}; restore the file"
    )


def fitting(
    root: str,
    sizes: Mapping[str, int],
    saved: SplitList | None,
    remedy: str = "put new images under new names into a folder of their own",
) -> SplitList | None:
    """A run's list if the data set has all of its images; None if it has none of their names.

    Args:
        root: the data set's folder, for messages.
        sizes: image id -> size in bytes (0: unknown), of the data set.
        saved: the run's list, if there is one.
        remedy: what to do with other images, for messages.

    Raises:
        UserError: some images are absent, or have another size.
    """
    if saved is None:
        return None
    if saved.rows.keys().isdisjoint(sizes):
        _refuse_other_suffixes(root, saved, sizes, remedy)
        return None
    unfit = [
        name
        for name, row in saved.rows.items()
        if name not in sizes or (row.size and sizes[name] and row.size != sizes[name])
    ]
    if unfit:
        raise UserError(
            f"{shown(root)}: expected all images of the run's split.csv, or none, found "
            f"{len(saved.rows) - len(unfit)} of {len(saved.rows)}: "
            f"{_what_is_unfit(unfit[0], saved, sizes)}; restore the images, or {remedy}"
        )
    return saved


def _refuse_other_suffixes(
    root: str, saved: SplitList, sizes: Mapping[str, int], remedy: str
) -> None:
    """Refuse images whose names differ from the list in the suffix or the separator alone."""
    listed = {_bare(name): name for name in saved.rows}
    for name in sizes:
        if _bare(name) in listed:
            raise UserError(
                f"{shown(root)}: expected the images of the run's split.csv or others, found "
                f"{name} for {listed[_bare(name)]}: the same images in another form? Write their "
                f"names into split.csv, or {remedy}"
            )


def _bare(name: str) -> str:
    """A name without its suffix, with forward slashes."""
    return os.path.splitext(name.replace("\\", "/").replace("//", "/"))[0]


def _what_is_unfit(name: str, saved: SplitList, sizes: Mapping[str, int]) -> str:
    """How an image differs from the list, and what to do if it is still the same picture."""
    if name not in sizes:
        return f"{name} is absent"
    return (
        f"{name} has {sizes[name]} bytes instead of {saved.rows[name].size} (if it shows the same "
        f"picture, write {sizes[name]} into split.csv)"
    )


def no_list(root: str, remedy: str) -> UserError:
    """The error where only a run's list tells which images the run trained with."""
    return UserError(
        f"{shown(root)}: expected the split.csv of the checkpoint's run, to tell its test images "
        f"from its training images, found none; copy it beside the checkpoint{remedy}"
    )


class _Drawing:
    """The state of one drawing: which part each group is in, and the images of each class."""

    def __init__(self, labels: NDArray[np.int64], groups: NDArray[np.int64], classes: int) -> None:
        self.part = np.zeros(groups.max() + 1, dtype=np.int64)  # index into PARTS
        self.of_group: list[dict[int, int]] = [{} for _ in self.part]  # class -> images
        self.count = np.zeros((len(PARTS), classes), dtype=np.int64)
        for label, group in zip(labels.tolist(), groups.tolist(), strict=True):
            members = self.of_group[group]
            members[label] = members.get(label, 0) + 1
            self.count[0, label] += 1

    def may_move(self, group: int) -> bool:
        """Whether a group is in training, and every class keeps a training image without it."""
        members = self.of_group[group].items()
        return not self.part[group] and all(self.count[0, c] > n for c, n in members)

    def move(self, group: int, part: int) -> None:
        self.part[group] = part
        for label, images in self.of_group[group].items():
            self.count[0, label] -= images
            self.count[part, label] += images

    def fill(self, part: int, label: int, order: Sequence[int], wanted: int) -> None:
        """Move groups of a class while that brings the part closer to the wanted images."""
        for group in order:
            missing = wanted - self.count[part, label]
            if missing <= 0:
                return
            if self.of_group[group][label] < 2 * missing and self.may_move(group):
                self.move(group, part)
        if not self.count[part, label]:
            free = [group for group in order if self.may_move(group)]
            if free:
                self.move(min(free, key=lambda group: self.of_group[group][label]), part)


def draw_split(
    ids: Sequence[str],
    labels: NDArray[np.int64],
    groups: Sequence[str],
    classes: Sequence[str],
    seed: int,
    shares: Shares,
) -> list[str]:
    """The part of each image, one of PARTS; depends only on the names, groups and the seed.

    Args:
        ids: names of the N images.
        labels: (N,) in [0, C).
        groups: the group of each image, by name.
        classes: the C names, for messages.
        shares: images of a class -> numbers of test and of held-out images.

    Raises:
        UserError: a class has too few groups.
    """
    rng = np.random.default_rng([seed, SPLIT_STREAM])
    by_name = np.array(sorted(range(len(ids)), key=ids.__getitem__))
    numbers: dict[str, int] = {}
    for i in by_name:
        numbers.setdefault(groups[i], len(numbers))
    group_of = np.array([numbers[group] for group in groups])
    orders = []
    for label, name in enumerate(classes):
        own = dict.fromkeys(group_of[by_name[labels[by_name] == label]].tolist())
        if len(own) < 2:
            raise _too_few(name, int((labels == label).sum()), "one group")
        orders.append(rng.permutation(np.array(list(own))).tolist())
    drawing = _Drawing(labels, group_of, len(classes))
    rarest = sorted(range(len(classes)), key=lambda label: len(orders[label]))
    images = np.bincount(labels, minlength=len(classes)).tolist()
    for part in (1, 2):
        for label in rarest:
            drawing.fill(part, label, orders[label], shares(images[label])[part - 1])
    for label in np.flatnonzero(drawing.count[1] == 0)[:1]:
        raise _too_few(classes[label], images[label], "groups that other classes need")
    return [PARTS[drawing.part[group]] for group in group_of]


def _too_few(name: str, images: int, what: str) -> UserError:
    return UserError(
        f"data.split: class {name}: expected at least two groups of images, one for training and "
        f"one for testing, found {images} image{'s' * (images != 1)} in {what}; add images from "
        "another occasion, remove the class"
        + (", or set data.group='(.+)' to split image by image" if images > 1 else "")
    )
