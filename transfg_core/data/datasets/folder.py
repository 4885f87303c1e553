"""A data set as folders: `train/<class>/*` and `val/<class>/*` (or `test/<class>/*`).

Classes are sorted by name, images by path; a class folder may hold sub-folders. The suffix decides
whether a file is an image; names that begin with a dot are ignored. If both `val/` and `test/`
exist, the reader takes `val/`.
"""

import os
from pathlib import Path

import numpy as np

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets.samples import Dataset, Samples, check_splits
from transfg_core.errors import UserError

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


def read_folder(config: DataConfig, seed: int) -> Dataset:
    """Read the layout above; `seed` is unused, because nothing is random.

    Raises:
        UserError: a folder is missing or empty, or the splits have different classes.
    """
    root = Path(config.root)
    if config.split != "official":
        raise UserError(
            f"data.split: {config.split}: a folder data set has fixed splits on disk; "
            "set data.split=official"
        )
    train = _split_folder(root, ("train",))
    test = _split_folder(root, ("val", "test"))
    classes = _class_names(train)
    _same_classes(train, classes, test, _class_names(test))
    dataset = Dataset(
        config.name,
        classes,
        _read_split(root, train, classes),
        _read_split(root, test, classes),
    )
    return check_splits(dataset, str(root))


def _split_folder(root: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (root / name).is_dir():
            return root / name
    wanted = " or ".join(f"{name}/<class>/*" for name in names)
    found = "which has no such folder" if root.is_dir() else "which is not a folder"
    raise UserError(f"{root}: expected {wanted} inside, {found}; is data.root right?")


def _class_names(split: Path) -> tuple[str, ...]:
    names = sorted(p.name for p in split.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not names:
        raise UserError(f"{split}: expected one folder for each class, found none")
    return tuple(names)


def _same_classes(
    left: Path, left_names: tuple[str, ...], right: Path, right_names: tuple[str, ...]
) -> None:
    for split, counterpart, unmatched in (
        (left, right, sorted(set(left_names) - set(right_names))),
        (right, left, sorted(set(right_names) - set(left_names))),
    ):
        if unmatched:
            raise UserError(
                f"{split / unmatched[0]}: {len(unmatched)} class{'es' * (len(unmatched) > 1)} "
                f"of {split.name}/ found no match in {counterpart}; "
                "expected the same class folders in both"
            )


def _read_split(root: Path, split: Path, classes: tuple[str, ...]) -> Samples:
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        images = _images_below(split / name)
        if not images:
            raise UserError(
                f"{split / name}: expected images ({' '.join(sorted(SUFFIXES))}), found none; "
                "add images, or remove the folder from both splits"
            )
        files += images
        labels += [label] * len(images)
    return Samples(
        paths=tuple(str(file) for file in files),
        labels=np.array(labels, dtype=np.int64),
        ids=tuple(file.relative_to(root).as_posix() for file in files),
    )


def _images_below(folder: Path) -> list[Path]:
    images = [
        Path(parent, name)
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
        if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
    ]
    return sorted(images, key=lambda path: path.as_posix())
