"""Normalisation of images on the model's device. Twin: `transfg_torch/pixels.py`."""

import jittor as jt
import numpy as np
from jittor import Var, nn

from transfg_core.backend import FLOAT_TYPES
from transfg_core.config.sections import Config
from transfg_core.data.transforms import normalise


class Normalise(nn.Module):  # native: a table; -Ofast turns divisions into products
    """(x / 255 - mean) / deviation by channel in float32, then in the parameters' type.

    Gives the bits of `transfg_core.data.transforms.normalise`.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        values = np.arange(256, dtype=np.uint8)[None, None, :, None].repeat(3, axis=3)
        table = normalise(values, config.data)[0, :, 0].astype(FLOAT_TYPES[config.run.precision])
        self.table = jt.array(table).stop_grad()  # (3, 256)

    def execute(self, images: Var) -> Var:
        """(B, H, W, 3) uint8 -> (B, 3, H, W), contiguous."""
        batch, height, width, channels = images.shape
        place = ["i1", "@e0(i0, i2, i3, i1)"]
        return self.table.reindex([batch, channels, height, width], place, extras=[images])
