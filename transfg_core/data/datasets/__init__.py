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
from transfg_core.data.datasets.cub import read_cub
from transfg_core.data.datasets.findings import equal_files
from transfg_core.data.datasets.folder import read_folder, read_folder_test
from transfg_core.data.datasets.samples import Dataset, Samples
from transfg_core.data.datasets.split import SplitList

__all__ = ["Dataset", "Samples", "SplitList", "read_dataset", "read_test", "with_equal_files"]

READERS: dict[str, Callable[[DataConfig, int, SplitList | None], Dataset]] = {
    "toy": read_cub,  # rendered in this layout, with part_boxes.txt
    "cub": read_cub,
    "folder": read_folder,
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
    return READERS[config.name](config, seed, saved)


def with_equal_files(dataset: Dataset) -> Dataset:
    """The data set, with a finding if test images are also training images."""
    train, test = dataset.train, dataset.test
    equal = equal_files(train.paths, test.paths, (train.ids, test.ids))
    return replace(dataset, findings=(*dataset.findings, *equal))


def read_test(config: DataConfig, classes: Sequence[str], saved: SplitList | None) -> Dataset:
    """Read what an evaluation of a checkpoint with these classes needs; `train` may be empty.

    The toy set is never rendered, and no split is drawn: `saved` is needed instead.

    Raises:
        UserError: see `read_dataset`.
    """
    if config.name == "folder":
        return read_folder_test(config, classes, saved)
    if config.name == "toy":
        from transfg_core.data.toy.writing import require_toy

        require_toy(Path(config.root), config.toy)
    return read_cub(config, None, saved)
