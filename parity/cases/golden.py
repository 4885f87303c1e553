"""Traces of the authors' published program, under this project's names.

`golden/README.md` describes their source. Each trace holds one forward and backward pass and six
updates on one batch, and the weights that they started from.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from transfg_core.backend import Arrays, Batch
from transfg_core.checkpoints.authors import to_canonical
from transfg_core.config.loading import build_config
from transfg_core.config.sections import Config

FOLDER = Path(__file__).parent / "golden"
MODEL = {"width": 24, "heads": 2, "depth": 4, "mlp": 40, "patch": 8, "classes": 7, "dropout": 0.0}


@dataclass(frozen=True)
class Golden:
    """One published trace, with the settings that its files do not hold."""

    name: str
    image_size: int
    stride: int
    label_smoothing: float = 0.0
    updates: int = 6
    continued: int = 0
    fine: bool = False

    def config(self, precision: str = "float32") -> Config:
        """The published program's settings in this project's terms."""
        tree: dict[str, Any] = {
            "run": {"precision": precision},
            "data": {"crop": self.image_size},
            "model": MODEL | {"stride": self.stride},
            "loss": {"label_smoothing": self.label_smoothing},
            "optim": {"name": "sgd", "lr": 0.03, "momentum": 0.9, "clip": 1.0, "warmup": 2},
            "train": {"steps": self.updates, "batch_size": 6},
        }
        return build_config(tree, f"golden {self.name}")

    @property
    def checkpoint(self) -> Path:
        """The published program's own checkpoint, a torch pickle."""
        return FOLDER / f"{self.name}_checkpoint.bin"

    def trace(self) -> Arrays:
        """Every array of the trace; names under `grad/` and `after/` become canonical."""
        arrays: Arrays = {}
        with np.load(FOLDER / f"{self.name}_trace.npz", allow_pickle=False) as stored:
            for key in stored.files:
                section, slash, name = key.partition("/")
                arrays[f"{section}/{to_canonical(name)}" if slash else key] = stored[key]
        return arrays

    def batches(self) -> list[Batch]:
        """The traced batch, once for every update: images (6, 3, H, W), labels (6,)."""
        trace = self.trace()
        return [Batch(trace["images"], trace["labels"])] * self.updates


GOLDENS = (
    Golden("nonoverlap", 32, 8),
    Golden("overlap", 38, 6),
    Golden("smooth", 33, 5, label_smoothing=0.1),
)
BY_GOLDEN = {f"golden-{golden.name}": golden for golden in GOLDENS}
