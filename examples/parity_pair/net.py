"""A small residual network, as a trusted program has it."""

import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """x + norm(conv(relu(norm(conv(x)))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, h, w) -> the same."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(x + self.norm2(self.conv2(y)))


class Net(nn.Module):
    """(n, 3, h, w) images -> (n, 7) logits."""

    def __init__(self, width: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 5, stride=2, padding=2)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.blocks = nn.Sequential(Block(width), Block(width))
        self.head = nn.Linear(width, 7)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images."""
        x = self.blocks(self.pool(self.stem(images)))
        return self.head(x.mean((2, 3)))
