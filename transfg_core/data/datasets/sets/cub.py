"""CUB-200-2011 (Wah et al. 2011) and data sets in its layout; NABirds (Van Horn et al. 2015).

    images.txt              <image id> <path below images/>
    image_class_labels.txt  <image id> <class id>
    train_test_split.txt    <image id> <1: training, 0: test>
    classes.txt             <class id> <name>
    bounding_boxes.txt      <image id> <x> <y> <width> <height>               (for data.box_crop)
    part_boxes.txt          <image id> <part name> <x> <y> <width> <height>   (optional, not in CUB)

CUB's class ids are 1 to C. NABirds has 1,011 nodes with ids from 0, of which 555 have images: the
used ids, sorted, are the labels.
"""

from pathlib import Path

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets.listed import read_listing
from transfg_core.data.datasets.listing import ListedImage, Listing, find_root
from transfg_core.data.datasets.samples import Dataset
from transfg_core.data.datasets.sets.boxes import read_bounding_boxes, read_part_boxes
from transfg_core.data.datasets.sets.rows import Rows, read_rows
from transfg_core.data.datasets.split import TEST, TRAIN, SplitList
from transfg_core.errors import UserError

IMAGES, CLASSES = "images.txt", "classes.txt"
LABELS, SPLIT = "image_class_labels.txt", "train_test_split.txt"


def read_cub(config: DataConfig, seed: int | None, saved: SplitList | None = None) -> Dataset:
    """Read CUB's layout from `config.root`, or from `CUB_200_2011/` inside it.

    Raises:
        UserError: see `read_listing`.
    """
    nested = ["CUB_200_2011", "CUB_200_2011/CUB_200_2011", "cub_200_2011", "CUB-200-2011"]
    root = find_root(Path(config.root), [IMAGES], nested)
    classes = []
    for expected, (key, row) in enumerate(read_rows(root / CLASSES).items(), 1):
        if key != str(expected):
            raise UserError(
                f"{root / CLASSES}:{row.line}: expected class id {expected}, found {key!r}"
            )
        classes.append(row.value)
    images = read_rows(root / IMAGES)
    labels = _read_integers(root, LABELS, images, 1, len(classes))
    numbers = [value - 1 for value in labels]
    return _read(config, seed, saved, root, images, numbers, tuple(classes))


def read_nabirds(config: DataConfig, seed: int | None, saved: SplitList | None = None) -> Dataset:
    """Read NABirds from `config.root`, or from one or two folders `nabirds` inside it.

    Raises:
        UserError: see `read_listing`.
    """
    root = find_root(Path(config.root), [IMAGES], ["nabirds", "nabirds/nabirds"])
    nodes, images = read_rows(root / CLASSES), read_rows(root / IMAGES)
    labels = _read_integers(root, LABELS, images, 0, 10**6)
    used = sorted(set(labels))
    unknown = [node for node in used if str(node) not in nodes]
    if unknown:
        raise UserError(
            f"{root / LABELS}: expected class ids of {CLASSES}, found {unknown[0]} "
            f"({len(unknown)} unknown); do the files belong together?"
        )
    number = {node: label for label, node in enumerate(used)}
    classes = tuple(nodes[str(node)].value for node in used)
    numbers = [number[node] for node in labels]
    return _read(config, seed, saved, root, images, numbers, classes, tuple(map(str, used)))


def _read(
    config: DataConfig,
    seed: int | None,
    saved: SplitList | None,
    root: Path,
    images: Rows,
    labels: list[int],
    classes: tuple[str, ...],
    class_ids: tuple[str, ...] = (),
) -> Dataset:
    needed = config.split == "official" or (config.split == "auto" and (root / SPLIT).is_file())
    parts: list[str | None] = [None] * len(images)
    if needed:
        parts = [TRAIN if flag else TEST for flag in _read_integers(root, SPLIT, images, 0, 1)]
    rows = [
        ListedImage(row.value, label, part, f"{root / IMAGES}:{row.line}")
        for row, label, part in zip(images.values(), labels, parts, strict=True)
    ]
    listing = Listing(
        folder=root / "images",
        images=rows,
        classes=classes,
        class_ids=class_ids,
        classes_file=root / CLASSES,
        labels_file=root / LABELS,
        split_file=root / SPLIT,
        part_boxes=read_part_boxes(root / "part_boxes.txt", images),
        boxes=lambda: read_bounding_boxes(root / "bounding_boxes.txt", images),
    )
    return read_listing(config, seed, saved, listing)


def _read_integers(root: Path, name: str, images: Rows, low: int, high: int) -> list[int]:
    """One integer in [low, high] for each image, in the order of images.txt."""
    path, rows = root / name, read_rows(root / name)
    for left, left_rows, right, right_rows in (
        (IMAGES, images, name, rows),
        (name, rows, IMAGES, images),
    ):
        missing = [key for key in left_rows if key not in right_rows]
        if missing:
            raise UserError(
                f"{root / left}:{left_rows[missing[0]].line}: id {missing[0]} is not in {right} "
                f"({len(missing)} such ids); expected the same ids in both files; "
                "do they belong together?"
            )
    wrong = [
        rows[key]
        for key in images
        if not (rows[key].value.isascii() and rows[key].value.isdigit())
        or not low <= int(rows[key].value) <= high
    ]
    if wrong:
        raise UserError(
            f"{path}:{wrong[0].line}: expected an integer from {low} to {high}, found "
            f"{wrong[0].value!r} ({len(wrong)} of {len(images)} rows are wrong); correct the file"
        )
    return [int(rows[key].value) for key in images]
