"""Oxford Flowers-102 (Nilsback and Zisserman 2008) and Oxford-IIIT Pets (Parkhi et al. 2012).

    jpg/image_00001.jpg, imagelabels.mat (1 to 102), setid.mat (trnid, valid, tstid)      Flowers
    images/Abyssinian_100.jpg, annotations/trainval.txt, annotations/test.txt             Pets

Training takes Flowers' trnid and valid, and Pets' trainval, as papers do. Flowers has no official
names of classes; cat_to_name.json gives them if it is there.
"""

import json
import re
from pathlib import Path

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets.listed import read_listing
from transfg_core.data.datasets.listing import ListedImage, Listing, find_root, names_by_label
from transfg_core.data.datasets.samples import Dataset
from transfg_core.data.datasets.sets.mat import integers, read_mat
from transfg_core.data.datasets.sets.rows import lines_of
from transfg_core.data.datasets.split import TEST, TRAIN, SplitList
from transfg_core.errors import UserError

FLOWER_CLASSES = 102
LABELS, SETS, NAMES = "imagelabels.mat", "setid.mat", "cat_to_name.json"
PARTS = {"trnid": TRAIN, "valid": TRAIN, "tstid": TEST}


def read_flowers(config: DataConfig, seed: int | None, saved: SplitList | None = None) -> Dataset:
    """Read Flowers-102 from `config.root`, or from a folder of this name inside it.

    Raises:
        UserError: see `read_listing`.
    """
    root = find_root(
        Path(config.root), [LABELS], ["flowers102", "oxford_flowers102", "flowers-102"]
    )
    (values,) = read_mat(root / LABELS, ["labels"])
    labels = integers(root / LABELS, "labels", values, 1, FLOWER_CLASSES)
    part_of: dict[int, str] = {}
    for name, ids in zip(PARTS, read_mat(root / SETS, list(PARTS)), strict=True):
        for number in integers(root / SETS, name, ids, 1, len(labels)):
            if number in part_of:
                raise UserError(
                    f"{root / SETS}, {name}: expected each image once, found {number} twice; copy "
                    "the file again"
                )
            part_of[number] = PARTS[name]
    missing = [number for number in range(1, len(labels) + 1) if number not in part_of]
    if missing:
        raise UserError(
            f"{root / SETS}: expected each of {len(labels)} images in one set, found image "
            f"{missing[0]} in none ({len(missing)} such images); do the files belong together?"
        )
    images = [
        ListedImage(
            f"image_{number:05}.jpg",
            label - 1,
            part_of[number],
            f"{root / LABELS}, labels({number})",
        )
        for number, label in enumerate(labels, 1)
    ]
    classes = _flower_names(root / NAMES)
    listing = Listing(root / "jpg", images, classes, root / NAMES, root / LABELS, root / SETS)
    return read_listing(config, seed, saved, listing)


def _flower_names(path: Path) -> tuple[str, ...]:
    """The names in a cat_to_name.json, or numbers if there is none."""
    numbers = range(1, FLOWER_CLASSES + 1)
    if not path.is_file():
        return tuple(f"flower {number:03}" for number in numbers)
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
        return tuple(str(names[str(number)]) for number in numbers)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f'{path}: expected {{"1": "name", ...}} up to {FLOWER_CLASSES}, but reading it failed '
            f"({type(error).__name__}: {error}); copy it again, or remove it"
        ) from error


def read_pets(config: DataConfig, seed: int | None, saved: SplitList | None = None) -> Dataset:
    """Read Oxford-IIIT Pets from `config.root`, or from a folder oxford-iiit-pet/ inside it.

    Raises:
        UserError: see `read_listing`.
    """
    lists = {TRAIN: "annotations/trainval.txt", TEST: "annotations/test.txt"}
    root = find_root(Path(config.root), [lists[TRAIN]], ["oxford-iiit-pet", "pets"])
    images: list[ListedImage] = []
    breeds: list[str] = []
    for part, relative in lists.items():
        path = root / relative
        for line, text in lines_of(path):
            if text.startswith("#"):
                continue
            fields = text.split()
            match = re.fullmatch(r"(.+)_\d+", fields[0])
            number = fields[1] if len(fields) == 4 else ""
            if not match or not (number.isascii() and number.isdigit() and 1 <= int(number) <= 999):
                raise UserError(
                    f"{path}:{line}: expected `name_number class species breed`, found {text!r}"
                )
            label = int(number) - 1
            breeds.append(match[1].replace("_", " "))
            images.append(ListedImage(f"{fields[0]}.jpg", label, part, f"{path}:{line}"))
    classes = tuple(names_by_label(images, breeds, root / lists[TRAIN]))
    first, second = root / lists[TRAIN], root / lists[TEST]
    return read_listing(
        config, seed, saved, Listing(root / "images", images, classes, first, first, second)
    )
