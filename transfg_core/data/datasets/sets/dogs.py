"""Stanford Dogs (Khosla et al. 2011): 120 breeds.

    Images/n02085620-Chihuahua/n02085620_5927.jpg   also images/Images/
    Annotation/n02085620-Chihuahua/n02085620_5927   XML, for data.box_crop; also annotations/
    train_list.mat, test_list.mat                   file_list and labels from 1
    dog_train.txt, dog_val.txt                      instead, rows `<label from 0> <path>`

Lists lie at the root or in lists/. A class is named after its folder, without the WordNet id. An
annotation may hold several dogs, all of one breed: the crop holds all of them.
"""

from pathlib import Path

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets.listed import read_listing
from transfg_core.data.datasets.listing import (
    ListedImage,
    Listing,
    NoListsHere,
    find_root,
    names_by_label,
)
from transfg_core.data.datasets.regions import Corners
from transfg_core.data.datasets.samples import Dataset
from transfg_core.data.datasets.sets.boxes import read_annotation
from transfg_core.data.datasets.sets.mat import integers, read_mat, texts
from transfg_core.data.datasets.sets.rows import lines_of
from transfg_core.data.datasets.split import TEST, TRAIN, SplitList
from transfg_core.errors import UserError

ANNOTATIONS = ("Annotation", "annotations/Annotation", "annotation/Annotation")
FOLDERS = ("Images", "images/Images", "images")
LISTS = {
    TRAIN: ("train_list.mat", "dog_train.txt", "train_list.txt", "train.txt"),
    TEST: ("test_list.mat", "dog_val.txt", "test_list.txt", "test.txt", "dog_test.txt", "val.txt"),
}
MOST_CLASSES = 10_000


def read_dogs(config: DataConfig, seed: int | None, saved: SplitList | None = None) -> Dataset:
    """Read Stanford Dogs from `config.root`, or from a folder stanford_dogs/ inside it.

    Raises:
        UserError: see `read_listing`.
    """
    root = find_root(Path(config.root), FOLDERS, ["stanford_dogs", "StanfordDogs", "dogs"])
    folder = next(root / name for name in FOLDERS if (root / name).is_dir())
    images: list[ListedImage] = []
    paths = {part: _find_list(root, names) for part, names in LISTS.items()}
    for part, path in paths.items():
        images += _read_mat(path, part) if path.suffix == ".mat" else _read_text(path, part)
    folders = [image.name.partition("/")[0] for image in images]
    names = [folder.partition("-")[2] or folder for folder in folders]
    classes = tuple(names_by_label(images, names, paths[TRAIN]))
    listing = Listing(
        folder=folder,
        images=images,
        classes=classes,
        classes_file=paths[TRAIN],
        labels_file=paths[TRAIN],
        split_file=paths[TEST],
        boxes=lambda: _boxes(root, images),
    )
    return read_listing(config, seed, saved, listing)


def _boxes(root: Path, images: list[ListedImage]) -> list[Corners]:
    """The box around all dogs of each image."""
    folder = next((root / name for name in ANNOTATIONS if (root / name).is_dir()), None)
    if folder is None:
        raise UserError(
            f"{root}: expected a folder {' or '.join(ANNOTATIONS)} with the boxes, found none; "
            "unpack annotation.tar, or leave data.box_crop out"
        )
    return [read_annotation((folder / image.name).with_suffix("")) for image in images]


def _find_list(root: Path, names: tuple[str, ...]) -> Path:
    for folder in (root, root / "lists"):
        for name in names:
            if (folder / name).is_file():
                return folder / name
    raise NoListsHere(
        f"{root}: expected {names[0]} or {names[1]}, there or in lists/, found none; is the copy "
        "complete?"
    )


def _read_mat(path: Path, part: str) -> list[ListedImage]:
    files, labels = read_mat(path, ["file_list", "labels"])
    names, numbers = texts(files), integers(path, "labels", labels, 1, MOST_CLASSES)
    if len(names) != len(numbers):
        raise UserError(
            f"{path}: expected one label for each file, found {len(names)} files and "
            f"{len(numbers)} labels; copy it again"
        )
    return [
        ListedImage(name, number - 1, part, f"{path}, file_list({place})")
        for place, (name, number) in enumerate(zip(names, numbers, strict=True), 1)
    ]


def _read_text(path: Path, part: str) -> list[ListedImage]:
    images = []
    for line, text in lines_of(path):
        label, _, name = text.strip().partition(" ")
        if not (label.isascii() and label.isdigit() and int(label) < MOST_CLASSES and name.strip()):
            raise UserError(f"{path}:{line}: expected `label path`, found {text!r}")
        images.append(ListedImage(name.strip(), int(label), part, f"{path}:{line}"))
    return images
