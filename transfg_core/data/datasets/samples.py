"""The result of every reader: file names and labels of a training and a test split."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transfg_core.data.datasets.findings import Finding
from transfg_core.data.datasets.split import SplitList
from transfg_core.data.decoding import Region
from transfg_core.data.walk import LeftOut
from transfg_core.errors import UserError


@dataclass(frozen=True, eq=False)
class Samples:
    """One split of N images, in the order of the data set's own list.

    `paths` are the files; `ids` name them in predictions: paths relative to the image folder, with
    forward slashes. Readers give both as `Names`, which are small in millions. `labels` is (N,)
    int64 in [0, C). `part_boxes` is None if the data set has no boxes, else it holds (n, 4) float32
    rows x0, y0, x1, y1 in pixels of each stored image.

    `regions`, if not None, is (N, 4) int32: left, top, right, bottom in pixels of each image as
    read. Only this part of an image is used (`transforms.region_box`); right and bottom of zero or
    less count from the right and lower border, so that (0, 0, 0, -20) leaves out the last 20 rows.
    """

    paths: Sequence[str]
    labels: NDArray[np.int64]
    ids: Sequence[str]
    part_boxes: tuple[NDArray[np.float32], ...] | None = None
    regions: NDArray[np.int32] | None = None

    def region(self, index: int) -> Region | None:
        """The region of one image, for `decoding.read_image`; None for the whole image."""
        if self.regions is None:
            return None
        left, top, right, bottom = self.regions[index].tolist()
        return left, top, right, bottom


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set: its name, C class names in the order of labels, and its splits.

    `validation` holds training images that choose the best step (`data.validation`); None if the
    test split chooses it.

    `left_out` says which files were found and not used. `split` is the list of a drawn split.
    `findings` is what a person should know of the files that are used, and `caution` what a reader
    of an accuracy on this data set must know. `class_ids` are the set's own ids of the classes
    where these have gaps, as in NABirds; a checkpoint keeps them.
    """

    name: str
    classes: tuple[str, ...]
    train: Samples
    test: Samples
    left_out: tuple[LeftOut, ...] = ()
    split: SplitList | None = None
    findings: tuple[Finding, ...] = ()
    caution: str = ""
    class_ids: tuple[str, ...] = ()
    validation: Samples | None = None

    def notes(self) -> list[str]:
        """Lines about a drawn split, what was left out, and what was found."""
        lines = [f"left out: {entry}" for entry in self.left_out]
        lines += map(str, self.findings)
        if self.caution:
            lines.append(f"caution: {self.caution}")
        if self.split:
            groups = len({row.group for row in self.split.rows.values()})
            lines.insert(0, f"split.csv: {len(self.split.rows)} images in {groups} groups")
        return lines

    def digest(self) -> str:
        """SHA-256 of the ids and labels of both splits, in order."""
        found = hashlib.sha256()
        for samples in (self.train, self.test):
            for name, label in zip(samples.ids, samples.labels.tolist(), strict=True):
                found.update(f"{name}\0{label}\n".encode())
            found.update(b"\0")
        return found.hexdigest()

    def counts(self) -> dict[str, Any]:
        """What is used and what is left out, for env.json."""
        return {
            "classes": len(self.classes),
            "training_images": len(self.train.labels),
            "test_images": len(self.test.labels),
            "validation_images": len(self.validation.labels) if self.validation else 0,
            "left_out": [asdict(entry) for entry in self.left_out],
            "findings": {each.kind: each.record() for each in self.findings},
            "caution": self.caution,
        }


def check_splits(dataset: Dataset, source: str) -> Dataset:
    """Check that there are two classes or more, each with images in both splits.

    Returns the data set.

    Raises:
        UserError: there is one class, a split is empty or lacks a class; the message begins with
            `source`, the file or folder that defines the splits.
    """
    count = len(dataset.classes)
    if count < 2:
        raise UserError(
            f"{source}: expected at least two classes, found {dataset.classes[0]} alone; add "
            "images of another class"
        )
    splits = {"training": dataset.train, "test": dataset.test}
    for split, samples in splits.items():
        if not samples.paths:
            raise UserError(
                f"{source}: expected {split} images, found none; "
                "check that the list or the folder is complete"
            )
    present = {name: np.bincount(s.labels, minlength=count) > 0 for name, s in splits.items()}
    for split in splits:
        absent = np.flatnonzero(~present[split])
        if len(absent):
            names = ", ".join(dataset.classes[i] for i in absent[:3])
            more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
            raise UserError(
                f"{source}: expected {split} images of each of {count} classes, found none of "
                f"{names}{more}; move images of it to this split, or remove the class from both"
            )
    return dataset
