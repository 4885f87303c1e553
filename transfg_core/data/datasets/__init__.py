"""Readers of data set layouts: one small module each, all returning `Dataset`.

Everything that can be wrong with a data set is found here, before the first step: missing files,
malformed rows, labels out of range, classes without images.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets.cub import read_cub
from transfg_core.data.datasets.folder import read_folder
from transfg_core.data.datasets.samples import Dataset, Samples

__all__ = ["Dataset", "Samples", "read_dataset"]

READERS: dict[str, Callable[[DataConfig, int], Dataset]] = {
    "toy": read_cub,  # rendered in this layout, with part_boxes.txt
    "cub": read_cub,
    "folder": read_folder,
}


def read_dataset(config: DataConfig, seed: int) -> Dataset:
    """Read `config.name` from `config.root`; `seed` matters only to `split: random`.

    The toy set is rendered first where it is absent.

    Raises:
        UserError: the data set is incomplete or inconsistent; the text names file and line.
    """
    if config.name == "toy":
        from transfg_core.data.toy.writing import ensure_toy

        ensure_toy(Path(config.root), config.toy, partial(print, file=sys.stderr))
    return READERS[config.name](config, seed)
