"""The `model` section of the small convolutional classifier (`model.name: convnet`)."""

from typing import Literal

from transfg_core.config.fields import Positive
from transfg_core.config.model import ModelConfig


class ConvNetConfig(ModelConfig):
    """Two convolutions with ReLU, the mean over positions, and a linear classifier.

    Both convolutions have the same kernel and stride, and no padding.
    """

    name: Literal["convnet"] = "convnet"
    width: Positive = 32  # channels of the first convolution
    width2: Positive = 64  # channels of the second
    kernel: Positive = 5
    stride: Positive = 2

    @property
    def smallest_image(self) -> tuple[int, str]:
        """The side that leaves the second convolution exactly one position for its kernel."""
        side = (self.kernel - 1) * self.stride + self.kernel
        return side, f"what model.kernel {self.kernel} and model.stride {self.stride} need, {side}"
