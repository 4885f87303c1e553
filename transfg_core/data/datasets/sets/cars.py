"""Stanford Cars (Krause et al. 2013): 196 classes, in either of its two numberings, or by class.

    devkit/cars_meta.mat, devkit/cars_train_annos.mat, cars_test_annos_withlabels.mat,
    cars_train/00001.jpg, cars_test/00001.jpg                      the development kit
    cars_annos.mat, car_ims/000001.jpg                             all images in one folder
    car_data/train/<class>/*.jpg, car_data/test/<class>/*.jpg      mirrors; see `by_class`

The test list with labels lies at the root or in devkit/. The kit's own cars_test_annos.mat has no
classes. Mirrors nest cars_train/cars_train/. Classes are in the order of the kit, which is not
sorted; in folders by class they are.
"""

from math import nan
from pathlib import Path
from typing import Any

import numpy as np

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets.listed import read_listing
from transfg_core.data.datasets.listing import ListedImage, Listing, find_root
from transfg_core.data.datasets.regions import Corners
from transfg_core.data.datasets.samples import Dataset
from transfg_core.data.datasets.sets.mat import integers, read_mat, texts
from transfg_core.data.datasets.split import TEST, TRAIN, SplitList
from transfg_core.errors import UserError

COMBINED, META = "cars_annos.mat", "devkit/cars_meta.mat"
TRAINING, WITH_LABELS = "devkit/cars_train_annos.mat", "cars_test_annos_withlabels.mat"
BOX = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
WITHOUT_LABELS = "cars_test_annos.mat"
OUTER = ("stanford_cars", "StanfordCars", "cars")
BY_CLASS = ("", *OUTER, "car_data", "car_data/car_data")


def read_cars(config: DataConfig, seed: int | None, saved: SplitList | None = None) -> Dataset:
    """Read Stanford Cars from `config.root`, or from a folder stanford_cars/ inside it.

    Raises:
        UserError: see `read_listing`.
    """
    root = find_root(Path(config.root), [META, COMBINED], OUTER)
    listing = _kit(root) if (root / META).exists() else _combined(root)
    return read_listing(config, seed, saved, listing)


def by_class(config: DataConfig) -> DataConfig | None:
    """The configuration for the folder reader; None if there are lists, or no train/ and test/."""
    root = Path(config.root)
    if any((root / name / file).exists() for name in ("", *OUTER) for file in (META, COMBINED)):
        return None
    for name in BY_CLASS:
        if (root / name / "train").is_dir() and (root / name / "test").is_dir():
            return config.model_copy(update={"root": str(root / name)})
    return None


def _kit(root: Path) -> Listing:
    (names,) = read_mat(root / META, ["class_names"])
    classes = tuple(texts(names))
    labelled = next(
        (path for path in (root / WITH_LABELS, root / "devkit" / WITH_LABELS) if path.exists()),
        root / WITH_LABELS,
    )
    if not labelled.exists():
        raise UserError(
            f"{labelled}: expected the labels of the test images, found "
            + (
                f"only devkit/{WITHOUT_LABELS}, which has none"
                if (root / "devkit" / WITHOUT_LABELS).exists()
                else "no such file"
            )
            + f"; put {WITH_LABELS} into the folder of the data set"
        )
    images: list[ListedImage] = []
    below, lists = [], []
    for path, part in ((root / TRAINING, TRAIN), (labelled, TEST)):
        own = f"cars_{part}"
        folder = f"{own}/{own}" if (root / own / own).is_dir() else own
        below.append(folder)
        entries = _entries(path)
        labels = _labels(path, entries, len(classes))
        lists.append(entries)
        names = _values(path, entries, "fname")
        images += [
            ListedImage(f"{folder}/{name}", label, part, f"{path}, entry {place}")
            for place, (name, label) in enumerate(zip(names, labels, strict=True), 1)
        ]
    return Listing(
        folder=root,
        images=images,
        classes=classes,
        classes_file=root / META,
        labels_file=root / TRAINING,
        split_file=labelled,
        below=tuple(below),
        boxes=lambda: [box for entries in lists for box in _boxes(entries)],
    )


def _combined(root: Path) -> Listing:
    path = root / COMBINED
    names, entries = read_mat(path, ["class_names", "annotations"])
    entries, classes = np.atleast_1d(entries), tuple(texts(names))
    columns = zip(
        _values(path, entries, "relative_im_path"),
        _labels(path, entries, len(classes)),
        integers(path, "test", _values(path, entries, "test"), 0, 1),
        strict=True,
    )
    images = [
        ListedImage(str(name), label, TEST if test else TRAIN, f"{path}, entry {place}")
        for place, (name, label, test) in enumerate(columns, 1)
    ]
    return Listing(
        root, images, classes, path, path, path, ("car_ims",), boxes=lambda: _boxes(entries)
    )


def _entries(path: Path) -> Any:
    (entries,) = read_mat(path, ["annotations"])
    return np.atleast_1d(entries)


def _boxes(entries: Any) -> list[Corners]:
    """The box of each entry; the files count pixels from 1, and the last one belongs to it."""
    boxes = []
    for entry in entries:
        try:
            left, top, right, bottom = (float(getattr(entry, name, nan)) for name in BOX)
        except (TypeError, ValueError):  # empty, or a text; `box_regions` refuses it
            left, top, right, bottom = (nan,) * 4
        boxes.append((left - 1, top - 1, right, bottom))
    return boxes


def _values(path: Path, entries: Any, name: str) -> list[Any]:
    """One field of each annotation.

    Raises:
        UserError: there are no annotations, or one has no such field.
    """
    if not len(entries):
        raise UserError(f"{path}: expected annotations of images, found none; copy it again")
    for place, entry in enumerate(entries, 1):
        if not hasattr(entry, name):
            raise UserError(
                f"{path}, entry {place}: expected the field `{name}`, found "
                f"{', '.join(getattr(entry, '_fieldnames', ['no fields']))}; copy the file again"
            )
    return [getattr(entry, name) for entry in entries]


def _labels(path: Path, entries: Any, classes: int) -> list[int]:
    """The classes of a list, from 0."""
    if len(entries) and not hasattr(entries[0], "class"):
        raise UserError(
            f"{path}: expected the field `class` in each annotation, found "
            f"{', '.join(getattr(entries[0], '_fieldnames', ['no fields']))}; this list has no "
            f"labels: put {WITH_LABELS} into the folder of the data set"
        )
    values = integers(path, "class", _values(path, entries, "class"), 1, classes)
    return [value - 1 for value in values]
