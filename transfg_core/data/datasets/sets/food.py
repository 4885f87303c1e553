"""Food-101 (Bossard et al. 2014): 101 dishes.

meta/train.txt, meta/test.txt   <class>/<number>, without .jpg   (or train.json, test.json)
images/<class>/<number>.jpg
"""

import json
from pathlib import Path

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets.listed import read_listing
from transfg_core.data.datasets.listing import ListedImage, Listing, find_root
from transfg_core.data.datasets.samples import Dataset
from transfg_core.data.datasets.sets.rows import lines_of
from transfg_core.data.datasets.split import TEST, TRAIN, SplitList
from transfg_core.errors import UserError


def read_food(config: DataConfig, seed: int | None, saved: SplitList | None = None) -> Dataset:
    """Read Food-101 from `config.root`, or from a folder food-101/ inside it.

    Raises:
        UserError: see `read_listing`.
    """
    root = find_root(Path(config.root), ["meta/train.txt", "meta/train.json"], ["food-101"])
    found: dict[str, list[tuple[str, str]]] = {}
    paths = {}
    for part, name in ((TRAIN, "train"), (TEST, "test")):
        text = root / "meta" / f"{name}.txt"
        paths[part] = text if text.is_file() else text.with_suffix(".json")
        found[part] = _lines(text) if text.is_file() else _json(paths[part])
    for rows in found.values():
        for name, where in rows:
            if name.count("/") != 1:
                raise UserError(f"{where}: expected `class/number`, found {name!r}")
    classes = sorted({name.split("/")[0] for rows in found.values() for name, _ in rows})
    number = {name: label for label, name in enumerate(classes)}
    images = [
        ListedImage(f"{name}.jpg", number[name.split("/")[0]], part, where)
        for part, rows in found.items()
        for name, where in rows
    ]
    listing = Listing(
        root / "images", images, tuple(classes), paths[TRAIN], paths[TRAIN], paths[TEST]
    )
    return read_listing(config, seed, saved, listing)


def _lines(path: Path) -> list[tuple[str, str]]:
    return [(text.strip(), f"{path}:{line}") for line, text in lines_of(path)]


def _json(path: Path) -> list[tuple[str, str]]:
    """The lists of each class in a JSON file."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        return [(str(name), f"{path}, {key}") for key, names in tree.items() for name in names]
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(
            f'{path}: expected {{"class": ["class/number", ...]}}, but reading it failed '
            f"({type(error).__name__}: {error}); copy it again"
        ) from error
