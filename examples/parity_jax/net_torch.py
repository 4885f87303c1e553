"""A small network in PyTorch: the baseline."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Net(nn.Module):
    """(N, 3, height, width) -> (N, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 8, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        """The logits of images."""
        x = F.max_pool2d(F.relu(self.norm1(self.conv1(x))), 2)
        x = F.relu(self.norm2(self.conv2(x)))
        return self.head(F.max_pool2d(x, 5).flatten(1))


class BiasedNorm(nn.BatchNorm2d):
    """A batch norm whose running variance follows the biased variance, as flax's does."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, height, width) -> the same shape."""
        if not self.training:
            return super().forward(x)
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance, self.momentum)
        return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)
