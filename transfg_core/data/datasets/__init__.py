"""Readers of data set layouts; each returns a `Dataset`.

Readers check the whole data set before the first update: missing files, malformed rows, labels
out of range, classes without images.
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


def read_dataset(config: DataConfig, seed: int, may_render: bool = True) -> Dataset:
    """Read `config.name` from `config.root`; only `split: random` uses `seed`.

    The toy set is rendered first if it is absent, unless `may_render` is false.

    Raises:
        UserError: the data set is incomplete or inconsistent; the text names file and line.
    """
    if config.name == "toy":
        from transfg_core.data.toy.writing import ensure_toy, require_toy

        if may_render:
            ensure_toy(Path(config.root), config.toy, partial(print, file=sys.stderr))
        else:
            require_toy(Path(config.root), config.toy)
    return READERS[config.name](config, seed)
