"""Residual networks with basic blocks or bottlenecks, in Jittor.

Source: He et al. 2016 (arXiv 1512.03385), with the stride in the 3 x 3 convolution, as in
torchvision; transfg_core/models/resnet.py lists parameters and taps. Twin:
`transfg_torch/models/resnet.py`.

Shapes: B batch, H and W image, F and G channels, h and w positions, C classes.
"""

from jittor import Var, nn

from transfg_core.config.resnet import ResNetConfig
from transfg_core.models.resnet import POOL, STEM, joins, sizes, stride_of, units
from transfg_jt.checkpointing import recompute
from transfg_jt.models.batch_norm import BatchNorm
from transfg_jt.models.layers import Dropout
from transfg_jt.models.output import Output
from transfg_jt.models.taps import Tap, no_tap, under
from transfg_jt.ops.bfloat16 import cast_once, to_float32
from transfg_jt.ops.convolution import Conv2d
from transfg_jt.ops.exact import Linear, mean_over_positions
from transfg_jt.ops.feature_maps import add_relu, max_pool2d, relu


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut (section 3.3)."""

    def __init__(self, entry: int, inner: int, out: int, stride: int, joins: bool) -> None:
        super().__init__()
        self.conv1 = Conv2d(entry, inner, 3, stride, 1, bias=False)
        self.bn1 = BatchNorm(inner)
        self.conv2 = Conv2d(inner, out, 3, 1, 1, bias=False)
        self.bn2 = BatchNorm(out)
        self.downsample = shortcut(entry, out, stride) if joins else None

    def execute(self, x: Var, tap: Tap = no_tap) -> Var:
        """(B, F, h, w) -> (B, G, h, w), or half as many rows and columns."""
        y = tap("relu1", relu(tap("bn1", self.bn1(tap("conv1", self.conv1(x))))))
        y = tap("bn2", self.bn2(tap("conv2", self.conv2(y))))
        return add_relu(y, project(self.downsample, x, tap))  # jittor: one operator


class Bottleneck(nn.Module):
    """A 3 x 3 convolution between two 1 x 1 convolutions, beside a shortcut (figure 5)."""

    def __init__(self, entry: int, inner: int, out: int, stride: int, joins: bool) -> None:
        super().__init__()
        self.conv1 = Conv2d(entry, inner, 1, bias=False)
        self.bn1 = BatchNorm(inner)
        self.conv2 = Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.bn2 = BatchNorm(inner)
        self.conv3 = Conv2d(inner, out, 1, bias=False)
        self.bn3 = BatchNorm(out)
        self.downsample = shortcut(entry, out, stride) if joins else None

    def execute(self, x: Var, tap: Tap = no_tap) -> Var:
        """(B, F, h, w) -> (B, G, h, w), or half as many rows and columns."""
        y = tap("relu1", relu(tap("bn1", self.bn1(tap("conv1", self.conv1(x))))))
        y = tap("relu2", relu(tap("bn2", self.bn2(tap("conv2", self.conv2(y))))))
        y = tap("bn3", self.bn3(tap("conv3", self.conv3(y))))
        return add_relu(y, project(self.downsample, x, tap))  # jittor: one operator


def shortcut(entry: int, out: int, stride: int) -> nn.Module:
    """A 1 x 1 convolution and a batch norm: (B, F, h, w) -> (B, G, h / stride, w / stride)."""
    return nn.Sequential(Conv2d(entry, out, 1, stride, bias=False), BatchNorm(out))


def project(downsample: nn.Module | None, x: Var, tap: Tap) -> Var:
    """What a block adds: x through its shortcut, or x itself: (B, F, h, w) -> (B, G, h, w)."""
    if downsample is None:
        return x
    conv, norm = downsample
    return tap("downsample", norm(tap("downsample.conv", conv(x))))


class ResNet(nn.Module):
    """A stem, up to four stages of blocks, the mean over positions, and a linear classifier."""

    def __init__(self, config: ResNetConfig, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.config = config
        self.grad_checkpointing = False
        channels = sizes(config)
        kernel, stride, padding = STEM
        self.conv1 = Conv2d(3, config.width, kernel, stride, padding, bias=False)
        self.bn1 = BatchNorm(config.width)
        block, entry = Bottleneck if config.bottleneck else BasicBlock, config.width
        stages: dict[int, list[nn.Module]] = {}
        for stage, unit in units(config):
            inner, out = channels[f"F{stage}"], channels[f"G{stage}"]
            join = joins(config, stage, unit)
            made = block(entry, inner, out, stride_of(stage, unit), join)
            stages.setdefault(stage, []).append(made)
            entry = out
        for stage, blocks in stages.items():
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.dropout = Dropout(config.dropout)
        self.head = Linear(entry, config.classes)

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks of all stages in order."""
        stages = range(1, len(self.config.blocks) + 1)
        return [block for stage in stages for block in getattr(self, f"layer{stage}")]

    def execute(self, images: Var, tap: Tap = no_tap) -> Output:
        """(B, 3, H, W) -> Output, with features (B, G) after dropout."""
        x = tap("bn1", self.bn1(tap("conv1", self.conv1(cast_once(images)))))
        x = tap("pool1", max_pool2d(tap("relu1", relu(x)), *POOL))
        for depth, block in enumerate(self.blocks):
            if self.grad_checkpointing and tap is no_tap:
                x = recompute(block, x)
            else:
                x = block(x, under(tap, f"block{depth:02d}"))
            x = tap(f"block{depth:02d}", x)
        x = tap("pool", mean_over_positions(x))  # jittor: its mean has float32 constants
        features = tap("features", self.dropout(x))
        # jittor: its argmax does not support bfloat16 on every device
        logits = to_float32(tap("logits", self.head(cast_once(features))))
        return Output(logits, features)
