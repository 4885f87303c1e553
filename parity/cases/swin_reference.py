"""Small and large Swin Transformers whose results timm and torchvision gave with the same weights.

`tools/swin_golden.py` writes the golden file; tests/backend/test_swin.py compares both twins with
it. A gradient is kept as SKETCH sums of its numbers, times random ones: relative errors of such
sums are about those of the gradient.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from transfg_core.backend import Array, Arrays, Batch
from transfg_core.checkpoints.programs import named_as
from transfg_core.config.loading import build_config
from transfg_core.config.sections import Config
from transfg_core.config.swin import SwinConfig
from transfg_core.models.swin import map_sizes
from transfg_core.params.initial import initial_params

GOLDEN = Path(__file__).with_name("golden") / "swin.json"
SKETCH = 4
SMALL = {"width": 8, "depths": [2, 2, 2, 2], "heads": [1, 2, 4, 4], "classes": 7}


@dataclass(frozen=True)
class Reference:
    """A configuration, and the program that computed it."""

    name: str
    program: str
    model: dict[str, Any]
    crop: tuple[int, int]

    def config(self) -> Config:
        """The configuration, without the contrastive loss."""
        model = {"name": "swin", "drop_path": 0.0} | self.model
        tree = {"data": {"crop": self.crop}, "model": model, "loss": {"contrastive": False}}
        return build_config(tree, self.name)

    def params(self) -> Arrays:
        """Initial values plus noise, float32."""
        config, rng = self.config(), np.random.default_rng(1)
        return {
            name: (value + 0.02 * rng.standard_normal(value.shape)).astype(np.float32)
            for name, value in initial_params(config.model, config.data.crop, 0).items()
        }

    def batch(self) -> Batch:
        """Images (2, 3, H, W) and labels."""
        rng = np.random.default_rng(2)
        return Batch(rng.standard_normal((2, 3, *self.crop)).astype(np.float32), np.array([3, 5]))

    def named(self, values: Arrays) -> Arrays:
        """Parameters or gradients under the program's names and shapes.

        timm's bias table of a clipped window has only the middle that the window uses.
        """
        model = self.config().model
        assert isinstance(model, SwinConfig)
        named, window = named_as(self.program, values, model), model.window
        for stage, size in enumerate(map_sizes(self.crop, model)):
            height, width = (min(side, window) for side in size)
            for name, value in named.items():
                if self.program == "timm" and name.startswith(f"layers.{stage}.blocks."):
                    if name.endswith("relative_position_bias_table"):
                        grid = value.reshape(2 * window - 1, 2 * window - 1, -1)
                        grid = grid[window - height : window + height - 1]
                        grid = grid[:, window - width : window + width - 1]
                        named[name] = grid.reshape(-1, value.shape[-1])
        return named


REFERENCES = (
    # windows that the maps divide, and clipped ones: torchvision clips none
    Reference("clipped", "timm", SMALL | {"window": 4}, (64, 128)),
    # windows that do not divide the map, and odd sides; timm pads after the shift, not before
    Reference("padded", "torchvision", SMALL | {"window": 3}, (108, 84)),
    Reference("T", "timm", {"size": "T", "window": 7, "classes": 1000}, (224, 224)),
)


def sketch(name: str, value: Array) -> Array:
    """Random sums of an array's numbers: (SKETCH,), float64."""
    rng = np.random.default_rng([3, zlib.crc32(name.encode())])
    signs = rng.integers(0, 2, (SKETCH, value.size), np.int8)
    flat = value.reshape(-1).astype(np.float64)
    return np.stack([flat[row == 1].sum() - flat[row == 0].sum() for row in signs])
