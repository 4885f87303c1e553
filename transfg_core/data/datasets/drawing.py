"""Drawing a split: by class, from a seed, and so that no group lies on both sides.

A group is a set of images that must stay together: near-identical shots, or one value of
`data.group`. A group may hold images of several classes. For each class, in the order of a seeded
shuffle, groups move from training to the other parts while that brings the class closer to its
share. A class keeps at least one training image and gets at least one test image.

A drawing depends only on the names, the groups and the seed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets.split import PARTS, TEST, TRAIN, SplitList, SplitRow
from transfg_core.errors import UserError

SPLIT_STREAM = 3  # a random stream apart from the loader's (STREAMS in sample_reader.py)
VALIDATION, FOLDS = 1, 2  # streams below it; the split itself has none
OTHERS = "groups that other classes need"

# Images of a class -> how many of them are for testing, and how many are held out.
Shares = Callable[[int], tuple[int, int]]


@dataclass(frozen=True)
class Grouped:
    """N images to be split: ids, labels (N,) in [0, C), groups by name, and C class names."""

    ids: Sequence[str]
    labels: NDArray[np.int64]
    groups: Sequence[str]
    classes: Sequence[str]

    def take(self, rows: NDArray[np.int64]) -> "Grouped":
        """These images alone."""
        ids, groups = ([values[row] for row in rows] for values in (self.ids, self.groups))
        return Grouped(ids, self.labels[rows], groups, self.classes)


def draw_parts(images: Grouped, config: DataConfig, seed: int, shares: Shares) -> list[str]:
    """The part of each image, one of PARTS: a drawn split or one of its folds, and validation.

    Raises:
        UserError: a class has too few groups.
    """
    if config.folds is not None:
        folds = draw_folds(images, seed, config.folds)
        parts = [TEST if fold == config.fold else TRAIN for fold in folds]
    elif config.validation is not None:
        parts = draw_split(images, seed, lambda count: (shares(count)[0], 0))
    else:
        parts = draw_split(images, seed, shares)
    counts = np.bincount(images.labels, minlength=len(images.classes))
    return draw_validation(images, parts, config.validation, seed, counts)


def draw_split(images: Grouped, seed: int, shares: Shares) -> list[str]:
    """The part of each image, one of PARTS.

    Raises:
        UserError: a class has too few groups.
    """
    purpose = "one for training and one for testing"
    drawing = _Drawing(images, [seed, SPLIT_STREAM], 2, purpose)
    counts = np.bincount(images.labels, minlength=len(images.classes)).tolist()
    for part in (1, 2):
        for label in drawing.rarest:
            drawing.fill(part, label, shares(counts[label])[part - 1])
    for label in np.flatnonzero(drawing.count[1] == 0)[:1]:
        raise _too_few(images.classes[label], counts[label], OTHERS, 2, purpose)
    return drawing.parts()


def draw_validation(
    images: Grouped,
    parts: Sequence[str],
    share: float | None,
    seed: int,
    counts: NDArray[np.int64],
) -> list[str]:
    """Hold out training images of each class (at least one) to choose the best step.

    Args:
        images: N images.
        parts: (N,) of PARTS; only images of TRAIN are held out.
        share: how many of a class's `counts` (C,) images; None: none.

    Raises:
        UserError: a class has too few groups of training images.
    """
    result = list(parts)
    if share is None:
        return result
    rows = np.array([row for row, part in enumerate(parts) if part == TRAIN], dtype=np.int64)
    train = images.take(rows)
    purpose = "one for training and one for data.validation"
    drawing = _Drawing(train, [seed, SPLIT_STREAM, VALIDATION], 2, purpose)
    for label in drawing.rarest:
        drawing.fill(2, label, max(1, round(share * int(counts[label]))))
    for label in np.flatnonzero(drawing.count[2] == 0)[:1]:
        found = int((train.labels == label).sum())
        raise _too_few(images.classes[label], found, OTHERS, 2, purpose)
    for row, part in zip(rows, drawing.parts(), strict=True):
        result[row] = part
    return result


def validation_split(
    images: Grouped, parts: Sequence[str], config: DataConfig, seed: int
) -> SplitList:
    """An official split with `config.validation` of each class's training images held out.

    Raises:
        UserError: a class has too few groups of training images.
    """
    train = np.array([part == TRAIN for part in parts])
    counts = np.bincount(images.labels[train], minlength=len(images.classes))
    parts = draw_validation(images, parts, config.validation, seed, counts)
    rows = map(SplitRow, parts, images.groups)
    return SplitList(dict(zip(images.ids, rows, strict=True)))


def draw_folds(images: Grouped, seed: int, folds: int) -> NDArray[np.int64]:
    """The fold of each image, (N,) in [0, folds); each class has images in each fold.

    Groups stay whole. Large groups come first, each to the fold with the fewest images of its
    class, so that folds have nearly as many images of each class.

    Raises:
        UserError: a class has too few groups.
    """
    purpose = f"one for each of data.folds {folds}"
    drawing = _Drawing(images, [seed, SPLIT_STREAM, FOLDS], folds, purpose)
    count = np.zeros((len(images.classes), folds), dtype=np.int64)
    fold_of = np.full(len(drawing.of_group), -1)
    for label in drawing.rarest:
        sizes = {group: drawing.of_group[group][label] for group in drawing.orders[label]}
        for group in sorted(sizes, key=lambda group: -sizes[group]):
            if fold_of[group] < 0:
                fold = np.lexsort((count.sum(axis=0), count[label]))[0]
                fold_of[group] = fold
                for member, number in drawing.of_group[group].items():
                    count[member, fold] += number
    for label in np.flatnonzero((count == 0).any(axis=1))[:1]:
        raise _too_few(images.classes[label], int(count[label].sum()), OTHERS, folds, purpose)
    folds_of_images: NDArray[np.int64] = fold_of[drawing.groups]
    return folds_of_images


class _Drawing:
    """The state of one drawing: which part each group is in, and the images of each class.

    `orders` holds each class's groups in a random order, `rarest` the classes from the fewest
    groups to the most.
    """

    def __init__(self, images: Grouped, stream: Sequence[int], least: int, purpose: str) -> None:
        rng = np.random.default_rng(stream)
        labels, classes = images.labels, len(images.classes)
        by_name = np.array(sorted(range(len(labels)), key=images.ids.__getitem__))
        numbers: dict[str, int] = {}
        for i in by_name:
            numbers.setdefault(images.groups[i], len(numbers))
        groups = np.array([numbers[group] for group in images.groups])
        self.groups, self.orders = groups, list[list[int]]()
        for label, name in enumerate(images.classes):
            own = dict.fromkeys(groups[by_name[labels[by_name] == label]].tolist())
            if len(own) < least:
                where = "one group" if len(own) == 1 else f"{len(own)} groups"
                raise _too_few(name, int((labels == label).sum()), where, least, purpose)
            self.orders.append(rng.permutation(np.array(list(own), dtype=np.int64)).tolist())
        self.rarest = sorted(range(classes), key=lambda label: len(self.orders[label]))
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

    def parts(self) -> list[str]:
        """The part of each image."""
        return [PARTS[self.part[group]] for group in self.groups]

    def fill(self, part: int, label: int, wanted: int) -> None:
        """Move groups of a class while that brings the part closer to the wanted images."""
        order = self.orders[label]
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


def _too_few(name: str, images: int, where: str, least: int, purpose: str) -> UserError:
    number = "two" if least == 2 else str(least)
    return UserError(
        f"data.split: class {name}: expected at least {number} groups of images, {purpose}, found "
        f"{images} image{'s' * (images != 1)} in {where}; add images from another occasion, remove "
        "the class"
        + (", lower data.folds" if least > 2 else "")
        + (", or set data.group='(.+)' to split image by image" if images >= least else "")
    )
