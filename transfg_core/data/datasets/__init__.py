"""Readers of data set layouts; each returns a `Dataset`.

Readers check the whole data set before the first update: missing files, malformed rows, labels
out of range, classes without images.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets.findings import EqualValidation, equal_files
from transfg_core.data.datasets.folder import read_folder, read_folder_test
from transfg_core.data.datasets.listing import NoListsHere
from transfg_core.data.datasets.official import official
from transfg_core.data.datasets.regions import no_boxes
from transfg_core.data.datasets.samples import Dataset, Samples
from transfg_core.data.datasets.sets.aircraft import read_aircraft
from transfg_core.data.datasets.sets.cars import by_class, read_cars
from transfg_core.data.datasets.sets.cifar import read_cifar
from transfg_core.data.datasets.sets.cub import read_cub, read_nabirds
from transfg_core.data.datasets.sets.dogs import read_dogs
from transfg_core.data.datasets.sets.food import read_food
from transfg_core.data.datasets.sets.inat import read_inat2017
from transfg_core.data.datasets.sets.oxford import read_flowers, read_pets
from transfg_core.data.datasets.sets.parquet import read_parquet, read_shards
from transfg_core.data.datasets.sets.shards import parquet_files, split_in_name
from transfg_core.data.datasets.sets.text_lists import read_text_lists
from transfg_core.data.datasets.sets.webfg import with_own_folder
from transfg_core.data.datasets.split import SplitList

__all__ = ["Dataset", "Samples", "SplitList", "read_dataset", "read_test", "with_equal_files"]

Reader = Callable[[DataConfig, int | None, SplitList | None], Dataset]
LISTED: dict[str, Reader] = {  # data sets whose lists name the images
    "toy": read_cub,  # rendered in this layout, with part_boxes.txt
    "cub": read_cub,
    "nabirds": read_nabirds,
    "cars": read_cars,
    "dogs": read_dogs,
    "aircraft": read_aircraft,
    "flowers": read_flowers,
    "pets": read_pets,
    "food": read_food,
    "inat2017": read_inat2017,
    "cifar10": read_cifar,
    "cifar100": read_cifar,
    "list": read_text_lists,
    "parquet": read_parquet,
}
# data sets that are folders of classes, and None for a copy of them that is not
FOLDERS: dict[str, Callable[[DataConfig], DataConfig | None]] = {
    "folder": lambda config: config,
    "cars": by_class,
    **dict.fromkeys(("web-bird", "web-aircraft", "web-car"), with_own_folder),
}


def read_dataset(config: DataConfig, seed: int, saved: SplitList | None = None) -> Dataset:
    """Read `config.name` from `config.root`.

    A drawn split depends on `seed`; `saved`, the split.csv of a run, takes its place. The toy set
    is rendered first if it is absent.

    Raises:
        UserError: the data set is incomplete or inconsistent; the text names file and line.
    """
    if config.name == "toy":
        from transfg_core.data.toy.writing import ensure_toy

        ensure_toy(Path(config.root), config.toy, partial(print, file=sys.stderr))
    folders = _folders(config)
    if folders:
        return _with_caution(config, read_folder(folders, seed, saved))
    return _with_caution(config, _read_lists(config, seed, saved))


def _folders(config: DataConfig) -> DataConfig | None:
    """The configuration for the folder reader, if the data set consists of folders of classes."""
    folders = FOLDERS[config.name](config) if config.name in FOLDERS else None
    if folders and config.box_crop:
        raise no_boxes(config.name, Path(folders.root))
    return folders


def _with_caution(config: DataConfig, dataset: Dataset) -> Dataset:
    """The data set with what is known of its test images."""
    facts = official(config)
    return replace(dataset, caution=facts.caution) if facts else dataset


def _read_lists(config: DataConfig, seed: int | None, saved: SplitList | None) -> Dataset:
    """Read a set with lists; where these are absent, a mirror of it in Parquet."""
    try:
        return LISTED[config.name](config, seed, saved)
    except NoListsHere:
        shards = parquet_files(Path(config.root))
        if not any(map(split_in_name, shards)):
            raise
    return read_shards(config, seed, saved, shards)


def with_equal_files(dataset: Dataset) -> Dataset:
    """The data set, with a finding if test or validation images are also training images."""
    train, test, held = dataset.train, dataset.test, dataset.validation
    equal = equal_files(train.paths, test.paths, (train.ids, test.ids))
    if held:
        names = train.ids, held.ids
        equal += equal_files(train.paths, held.paths, names, EqualValidation)
    return replace(dataset, findings=(*dataset.findings, *equal))


def read_test(config: DataConfig, classes: Sequence[str], saved: SplitList | None) -> Dataset:
    """Read what an evaluation of a checkpoint with these classes needs; `train` may be empty.

    The toy set is never rendered, and no split is drawn: `saved` is needed instead.

    Raises:
        UserError: see `read_dataset`.
    """
    folders = _folders(config)
    if folders:
        return _with_caution(config, read_folder_test(folders, classes, saved))
    if config.name == "toy":
        from transfg_core.data.toy.writing import require_toy

        require_toy(Path(config.root), config.toy)
    return _with_caution(config, _read_lists(config, None, saved))
