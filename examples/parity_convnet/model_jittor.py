"""Two convolutions with batch norm and a linear head, as Jittor users write it."""

from collections.abc import Callable

import jittor as jt
from jittor import Var, nn

Tap = Callable[[str, Var], Var]


class BatchNorm(nn.BatchNorm):
    """Batch norm whose running variance is unbiased, as PyTorch's; Jittor's own is biased."""

    def execute(self, x: Var) -> Var:
        if not self.is_train:
            return super().execute(x)
        mean = x.mean((0, 2, 3), keepdims=True)
        variance = ((x - mean) * (x - mean)).mean((0, 2, 3), keepdims=True)
        count = x.numel() // x.shape[1]
        for running, now in (
            (self.running_mean, mean),
            (self.running_var, variance * (count / (count - 1))),
        ):
            running.update(running + (now.reshape((-1,)) - running) * self.momentum)
        scale, shift = (one.reshape((1, -1, 1, 1)) for one in (self.weight, self.bias))
        return (x - mean) / jt.sqrt(variance + self.eps) * scale + shift


class ConvNet(nn.Module):
    """Images (B, R, H, W) -> logits (B, C)."""

    def __init__(self, colours: int, channels: list[int], classes: int) -> None:
        super().__init__()
        one, two = channels
        self.conv1 = nn.Conv(colours, one, 3)
        self.norm1 = BatchNorm(one)
        self.conv2 = nn.Conv(one, two, 3, stride=2)
        self.norm2 = BatchNorm(two)
        self.head = nn.Linear(two, classes)

    def execute(self, x: Var, tap: Tap) -> Var:
        x = tap("conv1", self.conv1(x))
        x = tap("norm1", self.norm1(x))
        x = tap("relu1", nn.relu(x))
        x = tap("conv2", self.conv2(x))
        x = tap("norm2", self.norm2(x))
        x = tap("relu2", nn.relu(x))
        x = tap("pool", x.mean((2, 3)))
        return tap("logits", self.head(x))


def loss_of(logits: Var, labels: Var) -> Var:
    """Cross-entropy, mean over the batch: (B, C) and (B,) -> scalar."""
    return nn.cross_entropy_loss(logits, labels)
