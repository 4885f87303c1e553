"""The port: other names, and convolutions written as matrix products over patches."""

import torch.nn.functional as F
from torch import Tensor, nn


class Patches(nn.Conv2d):
    """A convolution as one matrix product of all patches."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, in, h, w) -> (n, out, h', w')."""
        kernel, stride, padding = self.kernel_size[0], self.stride[0], int(self.padding[0])
        height, width = ((s + 2 * padding - kernel) // stride + 1 for s in x.shape[2:])
        patches = F.unfold(x, kernel, padding=padding, stride=stride)
        y = (self.weight.flatten(1) @ patches).unflatten(2, (height, width))
        return y if self.bias is None else y + self.bias[:, None, None]


class Residual(nn.Module):
    """x + the branch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            Patches(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            Patches(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, h, w) -> the same."""
        y = self.branch(x)
        y += x
        return self.relu(y)


class Net(nn.Sequential):
    """(n, 3, h, w) images -> (n, 7) logits."""

    def __init__(self, width: int = 10) -> None:
        super().__init__(
            Patches(3, width, 5, stride=2, padding=2),
            nn.MaxPool2d(3, 2, 1),
            Residual(width),
            Residual(width),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width, 7),
        )
