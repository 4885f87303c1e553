"""iNaturalist 2017 (Van Horn et al. 2018): 5,089 species; validation is the test split.

    train2017.json, val2017.json    images, annotations and categories
    train_val_images/<group>/<species>/<file>.jpg

Annotations belong to images by id, never by position. Labels are the sorted ids of categories.
"""

import json
from pathlib import Path
from typing import Any

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets.listed import ListedImage, Listing, find_root, read_listing
from transfg_core.data.datasets.samples import Dataset
from transfg_core.data.datasets.split import TEST, TRAIN, SplitList
from transfg_core.errors import UserError

FILES = {TRAIN: "train2017.json", TEST: "val2017.json"}


def read_inat2017(config: DataConfig, seed: int | None, saved: SplitList | None = None) -> Dataset:
    """Read iNat2017 from `config.root`, or from a folder inat2017/ inside it.

    Raises:
        UserError: see `read_listing`.
    """
    root = find_root(Path(config.root), [FILES[TRAIN]], ["inat2017", "iNat2017", "INat2017"])
    names: dict[int, str] = {}
    rows = []
    for part, file in FILES.items():
        tree = _read(root / file)
        names |= {category["id"]: str(category["name"]) for category in tree["categories"]}
        category_of = {each["image_id"]: each["category_id"] for each in tree["annotations"]}
        for image in tree["images"]:
            where = f"{root / file}, image {image['id']}"
            if image["id"] not in category_of:
                raise UserError(f"{where}: expected an annotation, found none; copy the file again")
            rows.append((str(image["file_name"]), category_of[image["id"]], part, where))
    number = {key: label for label, key in enumerate(sorted(names))}
    unknown = [row for row in rows if row[1] not in number]
    if unknown:
        raise UserError(
            f"{unknown[0][3]}: expected a category of the file, found {unknown[0][1]!r}; copy the "
            "file again"
        )
    images = [ListedImage(name, number[key], part, where) for name, key, part, where in rows]
    listing = Listing(
        folder=root,
        images=images,
        classes=tuple(names[key] for key in sorted(names)),
        classes_file=root / FILES[TRAIN],
        labels_file=root / FILES[TRAIN],
        split_file=root / FILES[TEST],
        below=("train_val_images",),
    )
    return read_listing(config, seed, saved, listing)


def _read(path: Path) -> dict[str, Any]:
    """The three tables of a file, each row with the keys that are used."""
    wanted: dict[str, dict[str, type]] = {
        "images": {"id": int, "file_name": str},
        "annotations": {"image_id": int, "category_id": int},
        "categories": {"id": int, "name": str},
    }
    try:
        tree: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: expected the annotations as JSON, but reading it failed ({error}); copy it "
            "again"
        ) from error
    for table, keys in wanted.items():
        rows = tree.get(table) if isinstance(tree, dict) else None
        if not isinstance(rows, list):
            raise UserError(
                f"{path}: expected the list {table!r}, found none; is it the right file?"
            )
        for place, row in enumerate(rows):
            if not isinstance(row, dict) or not all(
                type(row.get(key)) is kind for key, kind in keys.items()
            ):
                raise UserError(
                    f"{path}, {table}[{place}]: expected {', '.join(keys)}, found {row!r:.100}; "
                    "copy the file again"
                )
    return tree
