"""Candidates that are built otherwise: right ones for the controls, and faults of whole models."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tools.planted_pairs.plants import Plant, forward

FAR = 30.0  # a mean this many deviations from zero makes a one-pass variance cancel


def without_gradient(net: nn.Module, name: str) -> nn.Module:
    """A parameter is frozen."""
    net.get_parameter(name).requires_grad_(False)
    return net


def zero_gradient(net: nn.Module, path: str) -> nn.Module:
    """Parameters that are not used get a gradient of zero, not none."""
    known: Any = type(net)

    def run(self: Any, x: Tensor) -> Tensor:
        unused = sum(p.sum() for p in self.get_submodule(path).parameters())
        return known.forward(self, x) + 0.0 * unused  # type: ignore[no-any-return]

    net.__class__ = type(known.__name__, (known,), {"forward": run})
    return net


def shifted(path: str, shift: float) -> Plant:
    """A layer whose output is shifted by a constant."""

    def run(self: Any, x: Tensor) -> Tensor:
        return type(self).__mro__[1].forward(self, x) + shift  # type: ignore[no-any-return,attr-defined]

    return forward(path, run)


def with_auxiliary(returned: bool) -> Plant:
    """A convolutional network with an auxiliary head in training, whose output may be dropped."""

    def run(self: Any, x: Tensor) -> Any:
        features = self.features(x)
        scores = self.head(self.dropout(features))
        if not self.training:
            return scores
        more = self.auxiliary(features)
        return (scores, more) if returned else scores

    return forward("", run)


def unfolded(self: Any, x: Tensor) -> Tensor:
    """A convolution of one group as one product of matrices, with a border of zeros."""
    columns = F.unfold(x, self.kernel_size, self.dilation, self.padding, self.stride)
    y = self.weight.flatten(1) @ columns
    if self.bias is not None:
        y = y + self.bias[:, None]
    rows = (x.shape[2] + 2 * self.padding[0] - self.kernel_size[0]) // self.stride[0] + 1
    return y.unflatten(2, (rows, -1))


def depthwise_by_shifts(self: Any, x: Tensor) -> Tensor:
    """A depthwise convolution, 3 x 3, as a sum of nine shifted images."""
    rows, columns = x.shape[2:]
    padded = F.pad(x, (1, 1, 1, 1))
    parts = [
        padded[:, :, i : i + rows, j : j + columns] * self.weight[:, 0, i, j].view(-1, 1, 1)
        for i in range(3)
        for j in range(3)
    ]
    return torch.stack(parts).sum(0)


def hard_swish(self: Any, x: Tensor) -> Tensor:
    """x · relu6(x + 3) / 6."""
    return x * F.relu6(x + 3) / 6


def fused_kernel(self: Any, qkv: Tensor) -> Tensor:
    """Attention by PyTorch's own kernel: (B, T, 3 D) -> (B, T, D)."""
    batch, tokens, _ = qkv.shape
    q, k, v = qkv.reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)
    return mixed.transpose(1, 2).reshape(batch, tokens, -1)


def channels_last(net: nn.Module) -> nn.Module:
    """Weights whose channels lie together in memory: other kernels, the same shapes."""
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


class Transposed(nn.Module):
    """A linear layer with its weight as (in, out)."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(linear.weight.detach().T.contiguous())
        self.bias = nn.Parameter(linear.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """x W + b."""
        return x @ self.weight + self.bias


class Renamed(nn.Module):
    """The residual network of `nets.py`, with other names and a list of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            RenamedBlock(8, 8, 1),
            RenamedBlock(8, 12, 2),
        )
        self.classifier = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores of images."""
        return self.classifier(self.features(x).mean((2, 3)))  # type: ignore[no-any-return]


class RenamedBlock(nn.Module):
    """A residual block whose layers are a list."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.downsample = nn.Sequential()
        if stride != 1 or channels != width:
            self.downsample.append(nn.Conv2d(channels, width, 1, stride, bias=False))
            self.downsample.append(nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """The block."""
        return F.relu(self.body(x) + self.downsample(x))
