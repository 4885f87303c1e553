"""A ResNet-18 with three planted faults: the answer must have three findings, and nothing else.

He et al. 2016; the names are torchvision's. The faults: another epsilon in `layer2.0.bn1`; the
border of zeros of the first pool takes part; the shortcut of `layer3.0` has no gradient.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from parity import Pair, Side, normal
from tools.planted_pairs import functions as f
from tools.planted_pairs.plants import both, forward

WIDTHS = (64, 128, 256, 512)
# finding's place -> its code
EXPECTED = {
    "pool": "count_include_pad",
    "layer2.0.bn1": "eps",
    "layer3.0.downsample.0.weight": "frozen",
}


class Block(nn.Module):
    """Two convolutions beside a shortcut: (B, C, H, W) -> (B, width, H / stride, W / stride)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != width:
            conv = nn.Conv2d(channels, width, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """The block."""
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)  # type: ignore[no-any-return]


class ResNet18(nn.Module):
    """(B, 3, H, W) -> (B, 1000). Its first pool is a mean pool, so that its border can count."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AvgPool2d(3, 2, 1, count_include_pad=False)
        channels = 64
        for number, width in enumerate(WIDTHS, 1):
            blocks = nn.Sequential(
                Block(channels, width, 1 if number == 1 else 2), Block(width, width, 1)
            )
            setattr(self, f"layer{number}", blocks)
            channels = width
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores of images."""
        x = self.pool(self.relu(self.bn1(self.conv1(x))))
        for number in range(1, len(WIDTHS) + 1):
            x = getattr(self, f"layer{number}")(x)
        return self.fc(self.avgpool(x).flatten(1))  # type: ignore[no-any-return]


def faulty() -> nn.Module:
    """The network with three faults that no setting shows."""
    plant = both(
        forward("layer2.0.bn1", f.batch_norm(eps=1e-3)),
        forward("pool", f.mean_pool(include=True)),
        forward("layer3.0.downsample.0", detached_convolution),
    )
    return plant(ResNet18())


def detached_convolution(self: Any, x: Tensor) -> Tensor:
    """A convolution whose weight gets no gradient."""
    return F.conv2d(x, self.weight.detach(), None, self.stride, self.padding)


def make_pair() -> Pair:
    """The pair: images of 64 pixels."""
    return Pair(Side("torch", ResNet18), Side("torch", faulty), {"x": normal(2, 3, 64, 64)})
