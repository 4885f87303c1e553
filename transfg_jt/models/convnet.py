"""A small convolutional classifier, in Jittor.

Source: designed for this project; transfg_core/models/convnet.py lists its parameters and taps.
Twin: `transfg_torch/models/convnet.py`.

Shapes: B batch, H and W image, F and G channels, h and w positions, C classes.
"""

from jittor import Var, nn

from transfg_core.config.convnet import ConvNetConfig
from transfg_jt.models.layers import Dropout
from transfg_jt.models.output import Output
from transfg_jt.models.taps import Tap, no_tap
from transfg_jt.ops.bfloat16 import cast_once, to_float32
from transfg_jt.ops.convolution import Conv2d
from transfg_jt.ops.exact import Linear, mean_over_positions
from transfg_jt.ops.feature_maps import relu


class ConvNet(nn.Module):
    """Two convolutions with ReLU, the mean over positions, and a linear classifier."""

    def __init__(self, config: ConvNetConfig, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.config = config
        self.conv1 = Conv2d(3, config.width, config.kernel, config.stride)
        self.conv2 = Conv2d(config.width, config.width2, config.kernel, config.stride)

        self.dropout = Dropout(config.dropout)
        self.head = Linear(config.width2, config.classes)

    def execute(self, images: Var, tap: Tap = no_tap) -> Output:
        """(B, 3, H, W) -> Output, with features (B, G) after dropout."""
        x = tap("relu1", relu(tap("conv1", self.conv1(cast_once(images)))))
        x = tap("relu2", relu(tap("conv2", self.conv2(x))))

        x = tap("pool", mean_over_positions(x))  # jittor: its mean has float32 constants
        features = tap("features", self.dropout(x))
        # jittor: its argmax does not support bfloat16 on every device
        logits = to_float32(tap("logits", self.head(cast_once(features))))
        return Output(logits, features)
