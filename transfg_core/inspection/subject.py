"""Which data set a command inspects: that of a configuration, or a folder whose form is known."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transfg_core.config.loading import apply_overrides, build_config, load_config
from transfg_core.config.sections import Config
from transfg_core.data.datasets import Dataset, read_dataset
from transfg_core.data.datasets.samples import Samples
from transfg_core.data.walk import relative_to, shown
from transfg_core.errors import UserError

# What the papers do with CUB-200-2011, Stanford Dogs and NABirds; for a folder without a
# configuration (He et al. 2022, section 4.1).
PAPER_SIZES = {"resize": [600, 600], "crop": [448, 448]}
# data.name -> files of its layout, as patterns; one of each tuple must exist
LAYOUTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "nabirds": (("images.txt",), ("image_class_labels.txt",), ("hierarchy.txt",)),
    "cub": (("images.txt",), ("image_class_labels.txt",)),
    "cars": (("devkit/cars_meta.mat", "cars_annos.mat", "cars_meta.mat", "cars_train_annos.mat"),),
    "dogs": (("train_list.mat", "lists/dog_train.txt", "dog_train.txt"),),
    "aircraft": (("data/images_variant_trainval.txt", "images_variant_trainval.txt"),),
    "flowers": (("imagelabels.mat", "setid.mat"),),
    "pets": (("annotations/trainval.txt",),),
    "food": (("meta/train.txt", "meta/train.json"),),
    "inat2017": (("train2017.json",),),
    "cifar10": (("batches.meta", "cifar-10-python.tar.gz"),),
    "cifar100": (("meta", "cifar-100-python.tar.gz"),),
    "list": (("train.csv", "train.txt"),),
    "parquet": (("*.parquet",),),
}
FOLDER_SETS = ("web-bird", "web-aircraft", "web-car")  # with train/ in a folder of this name
MOST_FOLDERS = 30  # folders of a root that are searched; a root with more holds classes


def load_subject(source: Path, overrides: Iterable[str] = ()) -> tuple[Config, str]:
    """The configuration that `source` stands for, and a line on what was assumed ("" if nothing).

    `source` is a YAML file, or the folder of a data set. For a folder, `data.name` is that of the
    layout found there, else `folder`; `data.split` is `auto`, and sizes are those of the papers.

    Raises:
        UserError: there is no such file or folder, or a key or value is wrong.
    """
    overrides = tuple(overrides)
    try:
        is_folder = stat.S_ISDIR(source.stat().st_mode)
    except OSError as error:
        raise UserError(
            f"{shown(str(source))}: expected a configuration (YAML) or the folder of a data set, "
            f"found {(error.strerror or str(error)).lower()}{relative_to(source)}; check the path"
        ) from error
    if not is_folder:
        return load_config(source, overrides), ""
    tree: dict[str, Any] = {}
    apply_overrides(tree, overrides)
    given = tree.get("data", {})
    if not isinstance(given, dict):
        return build_config(tree, "defaults"), ""  # the message says what is wrong
    name, mark = guess_layout(source)
    assumed: dict[str, Any] = {"name": name, "root": str(source), "split": "auto"}
    if not {"resize", "crop", "random_resized_crop"} & given.keys():
        assumed |= PAPER_SIZES
    settings = [f"data.{key}={value}" for key, value in assumed.items() if key not in given]
    config = build_config(tree | {"data": assumed | given}, "overrides")
    found = f" (found {mark})" if mark and "name" not in given else ""
    return config, f"without a configuration: {' '.join(settings)}{found}"


def guess_layout(root: Path) -> tuple[str, str]:
    """`data.name` for a folder, and the name that decided; ("folder", "") if none did."""
    with os.scandir(root) as entries:
        folders = [entry.name for entry in entries if entry.is_dir()]
    inner = sorted(folders) if len(folders) <= MOST_FOLDERS else []
    for below in ("", *inner):
        for name, groups in LAYOUTS.items():
            marks = [
                next((p for mark in group for p in (root / below).glob(mark) if p.is_file()), None)
                for group in groups
            ]
            if marks[-1] and all(marks):
                return name, marks[-1].relative_to(root).as_posix()
        for name in FOLDER_SETS:
            if (root / below / name / "train").is_dir():
                return name, (Path(below) / name / "train").as_posix()
    return "folder", ""


def read_subject(config: Config) -> Dataset:
    """The data set as a run with this configuration reads it; absent and empty files stay in.

    Raises:
        UserError: the data set is incomplete or inconsistent.
    """
    data = config.data.model_copy(update={"on_bad_image": "skip"})
    return read_dataset(data, config.run.seed)


def splits_of(dataset: Dataset) -> dict[str, Samples]:
    """The splits by name, without an empty one."""
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    return {name: samples for name, samples in splits.items() if samples and samples.paths}
