"""The Swin Transformer, in PyTorch.

Source: Liu et al. 2021 (arXiv 2103.14030); docs/spec.md, "Swin Transformer".
Twin: `transfg_jt/models/swin.py`.

Shapes: B batch, H and W image; in each stage T tokens of the map, row by row, U tokens after
padding to whole windows, D width, K heads, M width of the MLP; C classes.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transfg_core.config.swin import SwinConfig
from transfg_core.models.swin import NORM_EPS, STAGES, map_sizes, windows_of
from transfg_core.models.windows import Windows
from transfg_torch.attention import at_least_float32
from transfg_torch.checkpointing import recompute, recompute_input
from transfg_torch.models.layers import Dropout, DropPath, LayerNorm, Mlp, cast_once
from transfg_torch.models.output import Output
from transfg_torch.models.taps import Tap, no_tap, under
from transfg_torch.window_attention import window_attention


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows, with a bias for each offset (equation 4)."""

    def __init__(self, width: int, heads: int, windows: Windows) -> None:
        super().__init__()
        self.heads, self.windows = heads, windows
        self.bias_table = nn.Parameter(torch.zeros((2 * windows.window - 1) ** 2, heads))
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, tap: Tap = no_tap) -> tuple[Tensor, Tensor, Tensor]:
        """(B, U, D) -> (B, T, D), and the queries and keys (B, U, D)."""
        q, k = tap("query", self.query(x)), tap("key", self.key(x))
        v = tap("value", self.value(x))
        mix = window_attention(q, k, v, self.bias_table, self.windows)
        mix = tap("mix", crop(mix, self.windows))
        return tap("out", self.out(mix)), q, k


class Block(nn.Module):
    """Pre-norm block (equation 3), whose windows are shifted in every second one."""

    def __init__(self, config: SwinConfig, stage: int, windows: Windows, drop_path: float) -> None:
        super().__init__()
        width = config.width * 2**stage
        self.windows = windows
        self.norm1 = LayerNorm(width, NORM_EPS)
        self.attn = WindowAttention(width, config.heads[stage], windows)
        self.norm2 = LayerNorm(width, NORM_EPS)
        self.mlp = Mlp(width, width * config.mlp_ratio, config.dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, tap: Tap = no_tap) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, D) -> (B, T, D), and the queries and keys (B, U, D)."""
        normed = pad(tap("norm1", cast_once(self.norm1(x))), self.windows)
        y, q, k = recompute_input(self.attn, normed, self.padded_norm, x, under(tap, "attn"))
        x = tap("mid", x + self.drop_path(y))
        normed = tap("norm2", cast_once(self.norm2(x)))
        y = recompute_input(self.mlp, normed, self.norm2, x, under(tap, "mlp"))
        return x + self.drop_path(y), q, k

    def padded_norm(self, x: Tensor) -> Tensor:
        """Input of the attention: (B, T, D) -> (B, U, D)."""
        return pad(self.norm1(x), self.windows)


class Merging(nn.Module):
    """Patches of 2 x 2 tokens become one token of twice the width (section 3.1)."""

    def __init__(self, width: int, rows: int, columns: int) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns
        self.norm = LayerNorm(4 * width, NORM_EPS)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor, tap: Tap = no_tap) -> Tensor:
        """(B, rows x columns, D) -> (B, a quarter as many, rounded up, 2 D).

        An odd side is padded. Of a patch, the first column comes first, each from above.
        """
        x = tap("patches", merge_patches(x, self.rows, self.columns))
        normed = tap("norm", cast_once(self.norm(x)))
        return at_least_float32(recompute_input(self.reduction, normed, self.norm, x))


class Stages(NamedTuple):
    """The maps of the four stages before merging, (B, T, D) with the T and D of each.

    `queries` and `keys` (B, U, D) are those of the last stage's blocks, in order.
    """

    maps: list[Tensor]
    queries: list[Tensor]
    keys: list[Tensor]


class Stage(nn.Module):
    """The blocks of one stage, and the merging at its end, which the last stage lacks."""

    def __init__(self, config: SwinConfig, image_size: tuple[int, int], stage: int) -> None:
        super().__init__()
        first, total = sum(config.depths[:stage]), sum(config.depths)
        self.blocks = nn.ModuleList(
            [
                Block(
                    config,
                    stage,
                    windows_of(config, image_size, stage, depth),
                    config.drop_path * (first + depth) / max(total - 1, 1),
                )
                for depth in range(config.depths[stage])
            ]
        )
        if stage < STAGES[-1]:
            rows, columns = map_sizes(image_size, config)[stage]
            self.merging = Merging(config.width * 2**stage, rows, columns)


class Swin(nn.Module):
    """Swin Transformer: four stages of blocks, the mean over tokens, a linear classifier."""

    def __init__(self, config: SwinConfig, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.config = config
        self.grad_checkpointing = False
        self.patch_embed = nn.Conv2d(3, config.width, config.patch, stride=config.patch)
        self.patch_norm = LayerNorm(config.width, NORM_EPS)
        self.dropout = Dropout(config.dropout)
        self.stages = nn.ModuleList([Stage(config, image_size, stage) for stage in STAGES])
        self.norm = LayerNorm(config.width * 2 ** STAGES[-1], NORM_EPS)
        self.head = nn.Linear(config.width * 2 ** STAGES[-1], config.classes)

    @property
    def blocks(self) -> list[Block]:
        """The blocks of all stages."""
        return [block for stage in self.stages for block in stage.blocks]

    def forward(self, images: Tensor, tap: Tap = no_tap) -> Output:
        """(B, 3, H, W) -> Output, with features (B, D) of the last stage."""
        x = self.stage_maps(images, tap).maps[-1]
        x = tap("norm", self.norm(x))
        features = tap("features", x.mean(1))
        logits = tap("logits", self.head(cast_once(features)))
        return Output(logits, features)

    def stage_maps(self, images: Tensor, tap: Tap = no_tap) -> Stages:
        """(B, 3, H, W) -> the maps of all stages; the last one is before the last norm."""
        x = tap("patch_embed", self.patch_embed(cast_once(images)).flatten(2).transpose(1, 2))
        x = tap("embed", self.dropout(tap("patch_norm", self.patch_norm(at_least_float32(x)))))
        maps, queries, keys = [], [], []
        for number, stage in enumerate(self.stages):
            for depth, block in enumerate(stage.blocks):
                name = f"stage{number}_block{depth:02d}"
                if self.grad_checkpointing and tap is no_tap:
                    x, q, k = recompute(block, x)
                else:
                    x, q, k = block(x, under(tap, name))
                x = tap(name, x)
                if number == STAGES[-1]:  # the others are freed
                    queries.append(q)
                    keys.append(k)
            maps.append(x)
            if number < STAGES[-1]:
                name = f"merging{number}"
                x = tap(name, stage.merging(x, under(tap, name)))
        return Stages(maps, queries, keys)


def merge_patches(x: Tensor, rows: int, columns: int) -> Tensor:
    """(B, rows x columns, D) -> (B, T', 4 D): each patch of 2 x 2 tokens, zeros beyond the map."""
    batch, _, width = x.shape
    x = pad_map(x, (rows, columns), (rows + rows % 2, columns + columns % 2))
    x = x.reshape(batch, (rows + 1) // 2, 2, (columns + 1) // 2, 2, width)
    return x.permute(0, 1, 3, 4, 2, 5).reshape(batch, -1, 4 * width)


def pad(x: Tensor, windows: Windows) -> Tensor:
    """The map with zeros below and at the right, up to whole windows: (B, T, D) -> (B, U, D)."""
    return pad_map(x, (windows.rows, windows.columns), windows.padded)


def crop(x: Tensor, windows: Windows) -> Tensor:
    """The map without its padding: (B, U, D) -> (B, T, D)."""
    rows, columns = windows.rows, windows.columns
    if windows.padded == (rows, columns):
        return x
    grid = x.reshape(x.shape[0], *windows.padded, x.shape[-1])
    return grid[:, :rows, :columns].reshape(x.shape[0], rows * columns, x.shape[-1])


def pad_map(x: Tensor, size: tuple[int, int], padded: tuple[int, int]) -> Tensor:
    """A map of `size` (rows, columns) with zeros up to `padded`: (B, T, D) -> (B, U, D)."""
    if padded == size:
        return x
    grid = x.reshape(x.shape[0], *size, x.shape[-1])
    # torch block for 1 line: Jittor's own padding
    grid = F.pad(grid, (0, 0, 0, padded[1] - size[1], 0, padded[0] - size[0]))
    return grid.reshape(x.shape[0], padded[0] * padded[1], x.shape[-1])
