"""FGVC-Aircraft (Maji et al. 2013): 10,000 images, 100 variants, 70 families, 30 manufacturers.

    data/images_variant_trainval.txt   <id> <name, which may hold spaces>   also _test, and family,
                                       manufacturer instead of variant: `data.level`
    data/images_box.txt                <id> <xmin> <ymin> <xmax> <ymax>     (for data.box_crop)
    data/images/<id>.jpg

Training takes trainval, as papers do. Classes are sorted by name. The lowest 20 rows of each image
are a banner with its source, which is cut off (`data.banner`); the boxes lie above it.
"""

from pathlib import Path

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets.listed import read_listing
from transfg_core.data.datasets.listing import ListedImage, Listing, find_root
from transfg_core.data.datasets.regions import Corners
from transfg_core.data.datasets.samples import Dataset
from transfg_core.data.datasets.sets.rows import read_rows
from transfg_core.data.datasets.split import TEST, TRAIN, SplitList
from transfg_core.errors import UserError

SPLITS = {TRAIN: "trainval", TEST: "test"}
BOXES = "images_box.txt"
BANNER = 20  # rows


def read_aircraft(config: DataConfig, seed: int | None, saved: SplitList | None = None) -> Dataset:
    """Read FGVC-Aircraft from `config.root`, its data/, or a folder fgvc-aircraft-2013b/ inside it.

    Raises:
        UserError: see `read_listing`.
    """
    lists = {part: f"images_{config.level}_{name}.txt" for part, name in SPLITS.items()}
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
    listing = Listing(
        folder=root / "images",
        images=images,
        classes=tuple(names),
        classes_file=root / lists[TRAIN],
        labels_file=root / lists[TRAIN],
        split_file=root / lists[TEST],
        boxes=lambda: _boxes(root / BOXES, images),
        banner=BANNER,
    )
    return read_listing(config, seed, saved, listing)


def _boxes(path: Path, images: list[ListedImage]) -> list[Corners]:
    """The box of each image; the file counts pixels from 1, and the last one belongs to it."""
    rows = read_rows(path)
    boxes = []
    for image in images:
        row = rows.get(image.name.removesuffix(".jpg"))
        try:
            left, top, right, bottom = map(int, row.value.split() if row else ())
        except ValueError as error:
            found = f"{row.value!r} on line {row.line}" if row else "no such row"
            raise UserError(
                f"{path}: expected `id xmin ymin xmax ymax` of {image.name}, found {found}; copy "
                "the file again, or leave data.box_crop out"
            ) from error
        boxes.append((left - 1.0, top - 1.0, float(right), float(bottom)))
    return boxes
