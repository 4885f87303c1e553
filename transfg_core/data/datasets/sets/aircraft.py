"""FGVC-Aircraft (Maji et al. 2013): 10,000 images, 100 variants, 70 families, 30 manufacturers.

    data/images_variant_trainval.txt   <id> <name, which may hold spaces>   also _test, and family,
                                       manufacturer instead of variant: `data.level`
    data/images/<id>.jpg

Training takes trainval, as papers do. Classes are sorted by name. The lowest 20 rows of each image
are a banner with its source.
"""

from pathlib import Path

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets.listed import ListedImage, Listing, find_root, read_listing
from transfg_core.data.datasets.samples import Dataset
from transfg_core.data.datasets.sets.rows import read_rows
from transfg_core.data.datasets.split import TEST, TRAIN, SplitList


def read_aircraft(config: DataConfig, seed: int | None, saved: SplitList | None = None) -> Dataset:
    """Read FGVC-Aircraft from `config.root`, its data/, or a folder fgvc-aircraft-2013b/ inside it.

    Raises:
        UserError: see `read_listing`.
    """
    lists = {part: f"images_{config.level}_{name}.txt" for part, name in _SPLITS.items()}
    outer = ("fgvc-aircraft-2013b", "fgvc_aircraft")
    nested = ["data", *outer, *(f"{name}/data" for name in outer)]
    root = find_root(Path(config.root), [lists[TRAIN]], nested)
    rows = {part: read_rows(root / name) for part, name in lists.items()}
    names = sorted({row.value for part in rows.values() for row in part.values()})
    number = {name: label for label, name in enumerate(names)}
    images = [
        ListedImage(f"{key}.jpg", number[row.value], part, f"{root / lists[part]}:{row.line}")
        for part, keys in rows.items()
        for key, row in keys.items()
    ]
    first, second = root / lists[TRAIN], root / lists[TEST]
    return read_listing(
        config, seed, saved, Listing(root / "images", images, tuple(names), first, first, second)
    )


_SPLITS = {TRAIN: "trainval", TEST: "test"}
