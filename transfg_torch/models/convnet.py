"""A small convolutional classifier, in PyTorch.

Source: designed for this project; transfg_core/models/convnet.py lists its parameters and taps.
Twin: `transfg_jt/models/convnet.py`.

Shapes: B batch, H and W image, F and G channels, h and w positions, C classes.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from transfg_core.config.convnet import ConvNetConfig
from transfg_torch.models.layers import Dropout, cast_once
from transfg_torch.models.output import Output
from transfg_torch.models.taps import Tap, no_tap


class ConvNet(nn.Module):
    """Two convolutions with ReLU, the mean over positions, and a linear classifier."""

    def __init__(self, config: ConvNetConfig, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.config = config
        self.conv1 = nn.Conv2d(3, config.width, config.kernel, config.stride)
        self.conv2 = nn.Conv2d(config.width, config.width2, config.kernel, config.stride)

        self.dropout = Dropout(config.dropout)
        self.head = nn.Linear(config.width2, config.classes)

    def forward(self, images: Tensor, tap: Tap = no_tap) -> Output:
        """(B, 3, H, W) -> Output, with features (B, G) after dropout."""
        x = tap("relu1", F.relu(tap("conv1", self.conv1(cast_once(images)))))
        x = tap("relu2", F.relu(tap("conv2", self.conv2(x))))

        x = tap("pool", x.mean((2, 3)))
        features = tap("features", self.dropout(x))
        logits = tap("logits", self.head(cast_once(features)))
        return Output(logits, features)
