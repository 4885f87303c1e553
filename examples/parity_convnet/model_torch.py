"""Two convolutions with batch norm and a linear head, as PyTorch users write it."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

Tap = Callable[[str, Tensor], Tensor]


class ConvNet(nn.Module):
    """Images (B, R, H, W) -> logits (B, C)."""

    def __init__(self, colours: int, channels: list[int], classes: int) -> None:
        super().__init__()
        one, two = channels
        self.conv1 = nn.Conv2d(colours, one, 3)
        self.norm1 = nn.BatchNorm2d(one)
        self.conv2 = nn.Conv2d(one, two, 3, stride=2)
        self.norm2 = nn.BatchNorm2d(two)
        self.head = nn.Linear(two, classes)

    def forward(self, x: Tensor, tap: Tap) -> Tensor:
        x = tap("conv1", self.conv1(x))
        x = tap("norm1", self.norm1(x))
        x = tap("relu1", F.relu(x))
        x = tap("conv2", self.conv2(x))
        x = tap("norm2", self.norm2(x))
        x = tap("relu2", F.relu(x))
        x = tap("pool", x.mean(dim=(2, 3)))
        return tap("logits", self.head(x))


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, mean over the batch: (B, C) and (B,) -> scalar."""
    return F.cross_entropy(logits, labels)
