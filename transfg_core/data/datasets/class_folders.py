"""Folders of classes: their names, and the images in them."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets.samples import Samples
from transfg_core.data.decoding import allow_megapixels
from transfg_core.data.names import Names
from transfg_core.data.walk import ImageFile, Tally, relative_to, shown, subfolders, walk
from transfg_core.errors import UserError

OUTSIDE = "images outside a class folder"


def folders_of(root: Path) -> list[str]:
    """The folders directly in a data set's root.

    Raises:
        UserError: the root is no folder.
    """
    if not root.is_dir():
        raise UserError(
            f"{shown(str(root))}: expected train/<class>/* and val/<class>/*, or <class>/*, found "
            f"no such folder{relative_to(root)}; is data.root right?"
        )
    return subfolders(root)


def read_images(
    config: DataConfig, root: Path, tally: Tally, below: Sequence[str]
) -> list[ImageFile]:
    """All images in class folders below the given folders of the root.

    Raises:
        UserError: a folder or file cannot be read, or two names are the same.
    """
    allow_megapixels(config)
    found = walk(root, tally, below, config.on_bad_image == "skip")
    for left, right in pairwise(found):
        if left.name == right.name:
            raise UserError(
                f"{shown(str(root))}: expected each name once, found two files {left.name} that "
                "differ only in the Unicode form of an accent; rename one of them"
            )
    inside = []
    for image in found:
        if class_of(image, below[0]):
            inside.append(image)
        else:
            tally.add(OUTSIDE, image.name)
    return inside


def class_of(image: ImageFile, below: str) -> str:
    """The class folder of an image; empty if it is in none."""
    return "/".join(image.folders[bool(below) : bool(below) + 1])


def samples_of(images: Sequence[ImageFile], below: str, classes: Sequence[str]) -> Samples:
    """The images sorted by class, then by name."""
    number = {name: label for label, name in enumerate(classes)}
    labels = [number[class_of(image, below)] for image in images]
    order = np.argsort(labels, kind="stable")
    return Samples(
        paths=Names(images[i].path for i in order),
        labels=np.array(labels, dtype=np.int64)[order],
        ids=Names(images[i].name for i in order),
    )


def class_names(folder: Path) -> list[str]:
    """The sorted shown names of the class folders.

    Raises:
        UserError: there are none.
    """
    names = sorted({shown(name) for name in subfolders(folder)})
    if not names:
        raise UserError(f"{shown(str(folder))}: expected one folder for each class, found none")
    return names


def refuse_empty_classes(
    folder: Path, names: Sequence[str], images: Sequence[ImageFile], below: str, tally: Tally
) -> None:
    """Refuse class folders without images; the message says what was left out.

    Raises:
        UserError: a class is empty.
    """
    empty = sorted(set(names) - {class_of(image, below) for image in images})
    if empty:
        left_out = "; ".join(map(str, tally.entries()))
        raise UserError(
            f"{shown(str(folder))}/{empty[0]}: expected images (.jpg, .png and others), "
            f"found none ({len(empty)} of {len(names)} class folders have none); add images, or "
            "remove the folder" + (f". Left out: {left_out}" if left_out else "")
        )
