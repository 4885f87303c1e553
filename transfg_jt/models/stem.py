"""The convolutional stem of hybrid Vision Transformers, in Jittor.

Source: Dosovitskiy et al. 2021 (arXiv 2010.11929), "Hybrid Architecture", as
google-research/vision_transformer computes it; docs/spec.md, "Hybrids".
Twin: `transfg_torch/models/stem.py`.

Shapes: B batch, H and W rows and columns, C and F channels.
"""

import jittor as jt
from jittor import Var, nn

from transfg_core.config.stem import GROUPS, STEMS
from transfg_core.models.stem import EXPANSION, KERNEL, ROOT, stride_of
from transfg_jt.checkpointing import recompute
from transfg_jt.models.taps import Tap, no_tap, under
from transfg_jt.ops.convolution import conv2d
from transfg_jt.ops.feature_maps import add_relu, max_pool2d
from transfg_jt.ops.group_norm import group_norm, standardise
from transfg_jt.ops.padding import pad

DEVIATION_EPS = 1e-5  # added to the deviation of a kernel; google-research/vision_transformer
GROUP_NORM_EPS = 1e-6  # the default of flax, which that program has


def pad_same(x: Var, kernel: int, stride: int) -> Var:
    """Zeros around x as the padding `SAME` of XLA has them: (B, C, H, W) -> (B, C, H', W').

    ceil(H / stride) windows fit, and of an odd number of rows or columns the last has one more.
    """
    rows, columns = (
        max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[2:]
    )
    if not rows and not columns:
        return x
    return pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


class StdConv2d(nn.Module):
    """A convolution with a standardised weight and `SAME` padding, without a bias."""

    def __init__(self, channels: int, features: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.weight = jt.zeros(features, channels, kernel, kernel)

    def execute(self, x: Var) -> Var:
        """(B, C, H, W) -> (B, F, ceil(H / stride), ceil(W / stride))."""
        weight = standardise(self.weight, DEVIATION_EPS)
        if self.stride == 1:
            return conv2d(x, weight, padding=self.kernel // 2)
        return conv2d(pad_same(x, self.kernel, self.stride), weight, stride=self.stride)


class GroupNorm(nn.Module):
    """Normalise each group of neighbouring channels, then scale and shift each channel.

    Source: Wu and He 2018 (arXiv 1803.08494).
    """

    def __init__(self, channels: int, relu: bool = False) -> None:
        super().__init__()
        self.relu = relu
        self.weight = jt.ones(channels)
        self.bias = jt.zeros(channels)

    def execute(self, x: Var) -> Var:  # native: Jittor has one operator for both
        """(B, C, H, W) -> (B, C, H, W), in the type of x."""
        return group_norm(x, GROUPS, self.weight, self.bias, GROUP_NORM_EPS, self.relu)


class Root(nn.Module):
    """The first convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = StdConv2d(3, width, ROOT, stride=2)
        self.norm = GroupNorm(width, relu=True)

    def execute(self, x: Var, tap: Tap = no_tap) -> Var:
        """(B, 3, H, W) -> (B, F, H / 2, W / 2)."""
        return self.norm(tap("conv", self.conv(x)))


class Downsample(nn.Module):
    """The shortcut of a stage's first unit, which changes the number of channels."""

    def __init__(self, channels: int, features: int, stride: int) -> None:
        super().__init__()
        self.conv = StdConv2d(channels, features, 1, stride)
        self.norm = GroupNorm(features)

    def execute(self, x: Var, tap: Tap = no_tap) -> Var:
        """(B, C, H, W) -> (B, F, H / stride, W / stride)."""
        return tap("norm", self.norm(tap("conv", self.conv(x))))


class Unit(nn.Module):
    """Bottleneck: 1 x 1, 3 x 3 and 1 x 1 convolutions beside a shortcut, then ReLU."""

    def __init__(self, channels: int, inner: int, stride: int, first: bool) -> None:
        super().__init__()
        features = EXPANSION * inner
        self.conv1 = StdConv2d(channels, inner, 1)
        self.norm1 = GroupNorm(inner, relu=True)
        self.conv2 = StdConv2d(inner, inner, KERNEL, stride)
        self.norm2 = GroupNorm(inner, relu=True)
        self.conv3 = StdConv2d(inner, features, 1)
        self.norm3 = GroupNorm(features)
        self.first = first
        if first:
            self.downsample = Downsample(channels, features, stride)

    def execute(self, x: Var, tap: Tap = no_tap) -> Var:
        """(B, C, H, W) -> (B, F, H / stride, W / stride)."""
        shortcut = self.downsample(x, under(tap, "downsample")) if self.first else x
        y = tap("norm1", self.norm1(tap("conv1", self.conv1(x))))
        y = tap("norm2", self.norm2(tap("conv2", self.conv2(y))))
        y = tap("norm3", self.norm3(tap("conv3", self.conv3(y))))
        return add_relu(shortcut, y)


class Stem(nn.Module):
    """Root, max pool, and the stages of units."""

    def __init__(self, name: str) -> None:
        super().__init__()
        width, stages = STEMS[name]
        self.root = Root(width)
        self.stages = nn.ModuleList()
        channels = width
        for stage, count in enumerate(stages):
            units, inner = nn.ModuleList(), width * 2**stage
            for unit in range(count):
                units.append(Unit(channels, inner, stride_of(stage, unit), first=not unit))
                channels = EXPANSION * inner
            self.stages.append(units)

    def execute(self, images: Var, tap: Tap = no_tap, recomputes: bool = False) -> Var:
        """(B, 3, H, W) -> the last map (B, F, h, w); with `recomputes`, units save their inputs."""
        x = tap("root", self.root(images, under(tap, "root")))
        # zeros as padding, where `SAME` has none: after ReLU the maximum is the same
        x = tap("pool", max_pool2d(pad_same(x, 3, 2), 3, 2))
        for stage, units in enumerate(self.stages):
            for number, unit in enumerate(units):
                name = f"unit{stage}_{number:02d}"
                if recomputes and tap is no_tap:
                    x = recompute(unit, x)
                else:
                    x = unit(x, under(tap, name))
                x = tap(name, x)
        return x
