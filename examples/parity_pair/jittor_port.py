"""The same network in Jittor, written as its users write it."""

import jittor as jt
from jittor import nn


class Block(nn.Module):
    """relu(x + norm(conv(relu(norm(conv(x))))))."""

    def __init__(self, width: int) -> None:
        self.conv1 = nn.Conv(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm(width)
        self.conv2 = nn.Conv(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm(width)

    def execute(self, x: jt.Var) -> jt.Var:
        """(n, width, h, w) -> the same."""
        y = nn.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        y += x
        return nn.relu(y)


class Net(nn.Module):
    """(n, 3, h, w) images -> (n, 7) logits."""

    def __init__(self, width: int = 10) -> None:
        self.stem = nn.Conv(3, width, 5, stride=2, padding=2)
        self.pool = nn.Pool(3, 2, 1, op="maximum")
        self.blocks = nn.Sequential(Block(width), Block(width))
        self.head = nn.Linear(width, 7)

    def execute(self, images: jt.Var) -> jt.Var:
        """Logits of images."""
        x = self.blocks(self.pool(self.stem(images)))
        return self.head(x.mean([2, 3]))
