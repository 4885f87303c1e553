"""Modules on the maps of several stages: SwinFC's attention, alignment and fusion, in PyTorch.

Source: Xiang, Chen and Yang 2023, SwinFC (doi 10.3778/j.issn.1002-8331.2211-0456), equations 1 to
12; the fusion is that of Song and Yang 2021 (FBSD, arXiv 2103.02782). What the paper leaves open is
marked "inferred". Twin: `transfg_jt/models/multi_scale.py`.

No convolution here has a bias: batch norm or a softmax would cancel it, or, behind the memories,
a matrix of memories has none.
Shapes: B batch, F channels, H and W map, N and S positions of two maps.
"""

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import Linear

from transfg_core.config.swinfc import SwinFCConfig
from transfg_torch.attention import at_least_float32
from transfg_torch.models.batch_norm import BatchNorm
from transfg_torch.models.layers import cast_once
from transfg_torch.models.taps import Tap, no_tap, under


class ExternalAttention(nn.Module):
    """EA: attention to memories that all images share, plus the input (equations 1 to 3).

    A' = Conv1d(X) reads the memories with kernel 3 along the positions, A = Norm(A'), and
    X + Conv1d(A) with kernel 1 writes them. Inferred: `model.memories`, `model.ea_norm`, and the
    padding 1, without which the sum has no meaning.
    """

    def __init__(self, channels: int, config: SwinFCConfig) -> None:
        super().__init__()
        self.read = nn.Conv2d(channels, config.memories, (3, 1), padding=(1, 0), bias=False)
        self.norm = BatchNorm(config.memories) if config.ea_norm == "batch" else None
        self.write = nn.Conv2d(config.memories, channels, 1, bias=False)

    def forward(self, x: Tensor, tap: Tap = no_tap) -> Tensor:
        """(B, F, H, W) -> (B, F, H, W); the positions are in one line, row by row."""
        line = x.flatten(2).unsqueeze(3)
        memories = tap("read", self.read(cast_once(line)))
        if self.norm is None:
            memories = tap("norm", double_norm(memories))
        else:
            memories = tap("norm", self.norm(memories))
        return tap("out", line + self.write(cast_once(memories))).reshape(x.shape)


def double_norm(memories: Tensor) -> Tensor:
    """Softmax over the positions, then each position's memories divided by their sum: (B, M, N, 1).

    Source: Guo et al. 2021, External Attention (arXiv 2105.02358), equations 9 and 10.
    """
    # torch block for 2 lines: as above
    weights = F.softmax(at_least_float32(memories), dim=2)
    return weights / weights.sum(1, keepdim=True)


class CrossSpaceAttention(nn.Module):
    """CA: each channel weighed by its rows and by its columns (equations 4 to 6).

    The means over columns and over rows each go through a convolution of kernel 3 and a softmax
    over the positions that are left. Inferred: one convolution for each direction, over all
    channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.rows = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0), bias=False)
        self.columns = nn.Conv2d(channels, channels, (1, 3), padding=(0, 1), bias=False)

    def forward(self, x: Tensor, tap: Tap = no_tap) -> Tensor:
        """(B, F, H, W) -> (B, F, H, W)."""
        over_columns, over_rows = x.mean(3, keepdim=True), x.mean(2, keepdim=True)
        rows = tap("rows", self.rows(cast_once(over_columns)))
        columns = tap("columns", self.columns(cast_once(over_rows)))
        by_row = tap("by_row", F.softmax(at_least_float32(rows), dim=2))
        by_column = tap("by_column", F.softmax(at_least_float32(columns), dim=3))
        return tap("out", x * by_row + x * by_column)  # two products, which save nothing new


class Eaca(nn.Module):
    """EACA: the sum of EA and CA of one map, or the one that `model.ea` and `model.ca` leave."""

    def __init__(self, channels: int, config: SwinFCConfig) -> None:
        super().__init__()
        self.ea = ExternalAttention(channels, config) if config.ea else None
        self.ca = CrossSpaceAttention(channels) if config.ca else None

    def forward(self, x: Tensor, tap: Tap = no_tap) -> Tensor:
        """(B, F, H, W) -> (B, F, H, W)."""
        if self.ca is None:
            return x if self.ea is None else self.ea(x, under(tap, "ea"))
        crossed = self.ca(x, under(tap, "ca"))
        return crossed if self.ea is None else self.ea(x, under(tap, "ea")) + crossed


class Align(nn.Module):
    """One width for the maps of all stages, before FFM (inferred).

    1x1 convolution to `model.align_width`, 3x3 convolution to `model.fused_width`; each with batch
    norm and ReLU.
    """

    def __init__(self, channels: int, config: SwinFCConfig) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, config.align_width, 1, bias=False)
        self.norm1 = BatchNorm(config.align_width)
        self.conv2 = nn.Conv2d(config.align_width, config.fused_width, 3, padding=1, bias=False)
        self.norm2 = BatchNorm(config.fused_width)

    def forward(self, x: Tensor, tap: Tap = no_tap) -> Tensor:
        """(B, F, H, W) -> (B, G, H, W)."""
        x = tap("norm1", self.norm1(tap("conv1", self.conv1(cast_once(x)))))
        x = tap("conv2", self.conv2(tap("relu1", F.relu(x))))
        return F.relu(tap("norm2", self.norm2(x)))


class LinearHead(Linear):
    """The classifier of a stage: a linear layer on the mean over its positions."""

    def __init__(self, width: int, config: SwinFCConfig) -> None:
        super().__init__(width, config.classes)

    def forward(self, x: Tensor, tap: Tap = no_tap) -> Tensor:
        """(B, F) -> (B, C)."""
        return super().forward(cast_once(x))


class MlpHead(nn.Module):
    """The classifier of FBSD (inferred, `model.stage_head: mlp`): batch norm, linear, batch norm,
    ELU, linear. A batch needs at least two images in training."""

    def __init__(self, width: int, config: SwinFCConfig) -> None:
        super().__init__()
        self.norm1 = BatchNorm(width)
        self.fc1 = nn.Linear(width, config.align_width)
        self.norm2 = BatchNorm(config.align_width)
        self.fc2 = nn.Linear(config.align_width, config.classes)

    def forward(self, x: Tensor, tap: Tap = no_tap) -> Tensor:
        """(B, F) -> (B, C)."""
        x = tap("fc1", self.fc1(cast_once(tap("norm1", self.norm1(x)))))
        return self.fc2(tap("elu", F.elu(tap("norm2", self.norm2(x)))))
