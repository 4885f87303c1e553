"""Any data set with a text or CSV list for each split.

    train.csv, test.csv    `path,label`    also .txt, and val. instead of test.
    train.txt, test.txt    `path label`

The label is a class name or a number. Numbers are class ids: they are sorted as numbers, and
classes.txt (rows `id name`) may name them. A first row of column names, such as `path,label` or
`class_id,dir`, is a header and says which columns they are; others do not matter. Paths are below
the folder of the lists, or below images/ in it. Without a list for testing, `data.split: random`
draws the split.
"""

import csv
import os
from pathlib import Path

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets.listed import read_listing
from transfg_core.data.datasets.listing import ListedImage, Listing, find_root
from transfg_core.data.datasets.samples import Dataset
from transfg_core.data.datasets.sets.rows import lines_of, read_rows
from transfg_core.data.datasets.split import TEST, TRAIN, SplitList
from transfg_core.errors import UserError

TRAIN_LISTS = ("train.csv", "train.txt")
TEST_LISTS = ("test.csv", "test.txt", "val.csv", "val.txt")
PATH_COLUMNS = {"path", "image", "file", "filename", "file_name", "dir"}
LABEL_COLUMNS = {"label", "class", "class_id", "class_name", "target"}
Rows = list[tuple[str, str, str]]  # path, label, place


def read_text_lists(
    config: DataConfig, seed: int | None, saved: SplitList | None = None
) -> Dataset:
    """Read the layout above from `config.root`.

    Raises:
        UserError: see `read_listing`.
    """
    return read_listing(config, seed, saved, text_listing(config))


def text_listing(config: DataConfig) -> Listing:
    """What the lists in `config.root` name.

    Raises:
        UserError: a list is absent or malformed.
    """
    root = find_root(Path(config.root), TRAIN_LISTS, [])
    tests = [name for name in TEST_LISTS if (root / name).is_file()]
    if not tests and config.split == "official":
        raise UserError(
            f"{root}: expected {', '.join(TEST_LISTS[:-1])} or {TEST_LISTS[-1]} beside the "
            "training list, found none; add a list of test images, or set data.split=random"
        )
    first = next(root / name for name in TRAIN_LISTS if (root / name).is_file())
    paths = {TRAIN: first} | ({TEST: root / tests[0]} if tests else {})
    rows = {part: _read(path) for part, path in paths.items()}
    given = {label for part in rows.values() for _, label, _ in part}
    numbers = all(label.isascii() and label.isdigit() for label in given)
    order = sorted(given, key=int) if numbers else sorted(given)
    label_of = {label: number for number, label in enumerate(order)}
    named = root / "classes.txt"
    names = read_rows(named) if named.is_file() else {}
    unnamed = [label for label in order if names and label not in names]
    if unnamed:
        raise UserError(
            f"{named}: expected a name for each class, found none for "
            f"{unnamed[0]}; add a row `{unnamed[0]} name`, or remove the file"
        )
    folder = root / "images" if _are_below(root / "images", rows[TRAIN]) else root
    images = [
        ListedImage(name, label_of[label], part if tests else None, where)
        for part, found in rows.items()
        for name, label, where in found
    ]
    classes = tuple(names[label].value if names else label for label in order)
    folders = {image.name.partition("/")[0] for image in images if "/" in image.name}
    return Listing(
        folder=folder,
        images=images,
        classes=classes,
        classes_file=named if names else first,
        labels_file=first,
        split_file=paths.get(TEST, first),
        below=tuple(sorted(folders)),
    )


def _are_below(folder: Path, rows: Rows) -> bool:
    """Whether the first image is in this folder."""
    return os.path.isfile(folder / rows[0][0])


def _header(fields: list[str]) -> tuple[int, int] | None:
    """The columns of path and label in a first row of column names; None if it is no such row."""
    names = [field.lower() for field in fields]
    found = [
        next((place for place, name in enumerate(names) if name in known), None)
        for known in (PATH_COLUMNS, LABEL_COLUMNS)
    ]
    return (found[0], found[1]) if found[0] is not None and found[1] is not None else None


def _fields(path: Path, line: int, text: str) -> list[str]:
    """The fields of one line of a CSV file."""
    try:
        return next(csv.reader([text]))
    except csv.Error as error:
        raise UserError(
            f"{path}:{line}: expected fields between commas, found {text[:50]!r} ({error}); "
            "correct the line"
        ) from error


def _read(path: Path) -> Rows:
    rows: Rows = []
    columns, width = (0, 1), 2  # of path and label, and how many there are
    for number, (line, text) in enumerate(lines_of(path)):
        if path.suffix == ".csv":
            fields = _fields(path, line, text.strip("\r"))
        else:
            fields = text.strip().rsplit(maxsplit=1)
        fields = [field.strip() for field in fields]
        header = _header(fields) if number == 0 else None
        if header:
            columns, width = header, len(fields)
            continue
        if len(fields) != width or not all(fields[column] for column in columns):
            form = "path,label" if path.suffix == ".csv" else "path label"
            expected = f"`{form}`" if width == 2 else f"{width} fields, as the header has"
            raise UserError(f"{path}:{line}: expected {expected}, found {text.strip()!r}")
        name, label = (fields[column] for column in columns)
        rows.append((name.removeprefix("./"), label, f"{path}:{line}"))
    if not rows:
        raise UserError(f"{path}: expected rows of images, found none; is the copy complete?")
    return rows
