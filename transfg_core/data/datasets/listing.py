"""What a reader of a set with lists found: its images, classes and splits, and checks of them."""

import os
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from transfg_core.data.datasets.regions import Corners
from transfg_core.data.walk import relative_to, shown
from transfg_core.errors import UserError

Boxes = tuple[NDArray[np.float32], ...]


class NoListsHere(UserError):
    """A folder holds none of the files that a reader looks for first."""


class ListedImage(NamedTuple):
    """One image of a list; `part` is TRAIN or TEST, or None without an official split.

    `source` and `place`, one after the other, say where it is listed: a file and a line, for
    example. Very many images may share a `source`.
    """

    name: str  # path below the folder of images, with forward slashes
    label: int  # in [0, C)
    part: str | None
    source: str
    place: int | str = ""

    @property
    def where(self) -> str:
        """The place in the list, for messages."""
        return f"{self.source}{self.place}"


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
    class_ids: tuple[str, ...] = ()  # the set's own ids of the classes, if they have gaps
    part_boxes: Boxes | None = None
    boxes: Callable[[], Sequence[Corners]] | None = None  # of all images, for data.box_crop
    banner: int = 0  # rows at the foot of each image that data.banner cuts off


def find_root(root: Path, names: Sequence[str], nested: Sequence[str]) -> Path:
    """The folder that holds one of the files `names`: `root`, or one of `nested` below it.

    Raises:
        NoListsHere: none of them does.
        UserError: a file lies there without the folder that it belongs to.
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
    raise NoListsHere(
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


def check_paths(listing: Listing) -> None:
    """Check that each path is listed once, and lies in the folder of images.

    Raises:
        UserError: one is listed twice, leads elsewhere, or is no text; the text names the place.
    """
    total = len(listing.images)
    wrong = next((image for image in listing.images if not _is_file_name(image.name)), None)
    if wrong:
        raise UserError(
            f"{wrong.where}: expected the name of a file, found {wrong.name!r}, which no file can "
            "have (half of a character); correct the list"
        )
    outside = [image for image in listing.images if _leads_outside(image.name)]
    if outside:
        raise UserError(
            f"{outside[0].where}: expected a path inside {shown(str(listing.folder))}, found "
            f"{outside[0].name!r} ({len(outside)} of {total} paths lead elsewhere); correct the "
            "list"
        )
    more = total - len({image.name for image in listing.images})
    places: dict[str, str] = {}
    for image in listing.images if more else ():
        if image.name in places:
            raise UserError(
                f"{image.where}: expected each image once, found {image.name} also on "
                f"{_line_of(places[image.name])} ({more} of {total} lines repeat an image); remove "
                "one of the lines"
            )
        places[image.name] = image.where


def _is_file_name(name: str) -> bool:
    """Whether a text can be encoded: surrogates stand for undecodable bytes of file names alone."""
    try:
        name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _leads_outside(name: str) -> bool:
    return name.startswith("/") or "\0" in name or (".." in name and ".." in name.split("/"))


def check_files(listing: Listing, found: AbstractSet[str]) -> None:
    """Check that each listed image exists; those in `found` are known to.

    Raises:
        UserError: some are absent; the text names the first and says how many.
    """
    absent = [
        image
        for image in listing.images
        if image.name not in found and not os.path.isfile(os.path.join(listing.folder, image.name))
    ]
    if absent:
        raise UserError(
            f"{absent[0].where}: {os.path.join(listing.folder, absent[0].name)} is listed but "
            f"absent ({len(absent)} of {len(listing.images)} images are absent); restore the "
            "files, or set data.on_bad_image=skip"
        )


def _line_of(where: str) -> str:
    """`line 3` of `file:3`, and other places as they are."""
    line = where.rpartition(":")[2]
    return f"line {line}" if line.isdecimal() else where


def check_classes(listing: Listing) -> None:
    """Check that every class has images, and a name of its own.

    Raises:
        UserError: one has none, or two have one name.
    """
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
        if not _is_file_name(name):
            raise UserError(
                f"{listing.classes_file}: expected a text as the name of class {number}, found "
                f"{name!r} (half of a character); correct the file"
            )
        if name in seen:
            raise UserError(
                f"{listing.classes_file}: expected a name of its own for each class, found "
                f"{name!r} for classes {seen[name]} and {number}; rename one of them"
            )
        seen[name] = number
