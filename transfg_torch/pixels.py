"""Normalisation of images on the model's device. Twin: `transfg_jt/pixels.py`."""

import torch
from torch import Tensor, nn

from transfg_core.backend import FLOAT_TYPES
from transfg_core.config.sections import NORMALISATION, Config


class Normalise(nn.Module):  # native: Jittor's compiler would change the divisions
    """(x / 255 - mean) / deviation by channel in float32, then in the parameters' type.

    Gives the bits of `transfg_core.data.transforms.normalise`.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.dtype = getattr(torch, FLOAT_TYPES[config.run.precision].name)
        # arrays on the device: on CUDA, PyTorch multiplies by the reciprocal of a number
        constants = torch.tensor([[255.0] * 3, *NORMALISATION[config.data.normalise]])
        self.register_buffer("constants", constants.reshape(3, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 -> (B, 3, H, W), contiguous."""
        planes = images.permute(0, 3, 1, 2)
        planes = planes.to(torch.float32, memory_format=torch.contiguous_format)
        white, mean, deviation = self.constants
        return planes.div_(white).sub_(mean).div_(deviation).to(self.dtype)
