"""iNaturalist 2017 (Van Horn et al. 2018): 5,089 species; validation is the test split.

    train2017.json, val2017.json    images, annotations and categories
    train_val_images/<group>/<species>/<file>.jpg

Annotations belong to images by id, never by position. Labels are the sorted ids of categories.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets.listed import read_listing
from transfg_core.data.datasets.listing import ListedImage, Listing, find_root
from transfg_core.data.datasets.samples import Dataset
from transfg_core.data.datasets.split import TEST, TRAIN, SplitList
from transfg_core.errors import UserError

FILES = {TRAIN: "train2017.json", TEST: "val2017.json"}
Row = tuple[str, int, str, str, int]  # path, category, split, source, id of the image
TABLES: dict[str, tuple[tuple[str, type], tuple[str, type]]] = {  # the keys that are used
    "images": (("id", int), ("file_name", str)),
    "annotations": (("image_id", int), ("category_id", int)),
    "categories": (("id", int), ("name", str)),
}


def read_inat2017(config: DataConfig, seed: int | None, saved: SplitList | None = None) -> Dataset:
    """Read iNat2017 from `config.root`, or from a folder inat2017/ inside it.

    Raises:
        UserError: see `read_listing`.
    """
    root = find_root(Path(config.root), [FILES[TRAIN]], ["inat2017", "iNat2017", "INat2017"])
    names: dict[int, str] = {}
    rows = [row for part, file in FILES.items() for row in _read(root / file, part, names)]
    number = {key: label for label, key in enumerate(sorted(names))}
    unknown = next((row for row in rows if row[1] not in number), None)
    if unknown:
        _, category, _, source, key = unknown
        raise UserError(
            f"{source}{key}: expected a category of the file, found {category!r}; copy the file "
            "again"
        )
    listing = Listing(
        folder=root,
        images=[
            ListedImage(name, number[category], part, source, key)
            for name, category, part, source, key in rows
        ],
        classes=tuple(names[key] for key in sorted(names)),
        class_ids=tuple(map(str, sorted(names))),
        classes_file=root / FILES[TRAIN],
        labels_file=root / FILES[TRAIN],
        split_file=root / FILES[TEST],
        below=("train_val_images",),
    )
    return read_listing(config, seed, saved, listing)


def _read(path: Path, part: str, names: dict[int, str]) -> Iterator[Row]:
    """The images of one file with the ids of their categories; adds to the names of these."""
    tables = _tables(path)
    for key, name in tables["categories"]:
        if names.setdefault(key, name) != name:
            raise UserError(
                f"{path}, category {key}: expected one name for each category in both files, found "
                f"{name!r} and {names[key]!r}; do the files belong together?"
            )
    category_of: dict[int, int] = {}
    source = f"{path}, image "
    for key, category in tables["annotations"]:
        if category_of.setdefault(key, category) != category:
            raise UserError(
                f"{source}{key}: expected one category, found annotations of categories "
                f"{category_of[key]} and {category}; remove one of them"
            )
    for key, name in tables["images"]:
        if key not in category_of:
            raise UserError(f"{source}{key}: expected an annotation, found none; copy it again")
        yield name, category_of[key], part, source, key


def _tables(path: Path) -> dict[str, Sequence[tuple[Any, Any]]]:
    """The rows of each table as pairs of the values that are used.

    Rows become pairs while the file is parsed: 675,170 dictionaries would fill the memory.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"), object_hook=_pair)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: expected the annotations as JSON, but reading it failed ({error}); copy it "
            "again"
        ) from error
    for table, keys in TABLES.items():
        rows = tree.get(table) if isinstance(tree, dict) else None
        if not isinstance(rows, list):
            raise UserError(
                f"{path}: expected the list {table!r}, found none; is it the right file?"
            )
        (first, one), (second, other) = keys
        for place, row in enumerate(rows):
            if type(row) is not tuple or type(row[0]) is not one or type(row[1]) is not other:
                raise UserError(
                    f"{path}, {table}[{place}]: expected {first} and {second}, found {row!r:.100}; "
                    "copy the file again"
                )
    return tree  # type: ignore[no-any-return]


def _pair(row: dict[str, Any]) -> Any:
    """The values of a row that are used; another object as it is."""
    for first, second in _PAIRS:
        if first in row and second in row:
            return row[first], row[second]
    return row


_PAIRS = [tuple(key for key, _ in keys) for keys in TABLES.values()]
