"""Small PyTorch networks that together use what most published ones are made of.

Sizes of axes differ from one another, so that a swapped axis shows. Each class is a builder without
arguments; `INPUTS` holds the inputs of each.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from parity import normal
from parity.recording.draw import Draw

BATCH = 6


class ConvNet(nn.Module):
    """Convolutions with batch norms and pools: (B, 3, 19, 17) -> (B, 7)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(8)
        self.act1 = nn.ReLU()
        self.max_pool = nn.MaxPool2d(3, 2, padding=1)
        self.wide = nn.Conv2d(8, 12, 3, padding=2, dilation=2, groups=4)
        self.norm2 = nn.BatchNorm2d(12)
        self.act2 = nn.ReLU()
        self.mean_pool = nn.AvgPool2d(3, 1, padding=1, count_include_pad=False)
        self.thin = nn.Conv2d(12, 10, 1)
        self.act3 = nn.LeakyReLU(0.01)
        self.adaptive = nn.AdaptiveAvgPool2d((4, 2))
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(80, 7)
        self.auxiliary = nn.Linear(80, 4)  # not used: it has no gradient

    def features(self, x: Tensor) -> Tensor:
        """Images -> (B, 80)."""
        x = self.max_pool(self.act1(self.norm1(self.stem(x))))
        x = self.mean_pool(self.act2(self.norm2(self.wide(x))))
        return self.adaptive(self.act3(self.thin(x))).flatten(1)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """Class scores of images."""
        return self.head(self.dropout(self.features(x)))  # type: ignore[no-any-return]


class Residual(nn.Module):
    """Two residual blocks: (B, 3, 18, 14) -> (B, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.ReLU(inplace=True)
        self.layer1 = Block(8, 8, 1)
        self.layer2 = Block(8, 12, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores of images."""
        x = self.layer2(self.layer1(self.act(self.norm(self.stem(x)))))
        return self.head(self.pool(x).flatten(1))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Two convolutions beside a shortcut (He et al. 2016): (B, C, H, W) -> (B, width, ...)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.act = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module | None = None
        if stride != 1 or channels != width:
            conv = nn.Conv2d(channels, width, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """The block."""
        y = self.norm2(self.conv2(self.act(self.norm1(self.conv1(x)))))
        y += x if self.shortcut is None else self.shortcut(x)
        return self.act(y)  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """Patches, two kinds of attention with a mask, and mean tokens: (B, 3, 12, 15) -> (B, 6).

    The first block has a fused linear layer for q, k and v, and attention as functions; the second
    has PyTorch's module.
    """

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 3, 3)
        self.positions = nn.Parameter(torch.zeros(1, 20, 16))
        self.block1 = FusedBlock(16, 4)
        self.block2 = MaskedBlock(16, 2)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 6)
        self.spare = nn.Linear(16, 3)  # not used: it has no gradient

    def forward(self, x: Tensor) -> Tensor:
        """Class scores of images."""
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        x = self.norm(self.block2(self.block1(x)))
        return self.head(x.mean(1))  # type: ignore[no-any-return]


def band(tokens: int) -> Tensor:
    """What attention hides: keys more than 4 places ahead, or more than 8 behind. (T, T), bool."""
    places = torch.arange(tokens)
    ahead = places[None] - places[:, None]
    return (ahead > 4) | (ahead < -8)


def slopes(tokens: int) -> Tensor:
    """A bias of attention by distance, larger ahead than behind (Press et al. 2022): (T, T)."""
    places = torch.arange(tokens)
    ahead = (places[None] - places[:, None]).float()
    return -0.2 * ahead.clamp(min=0) + 0.05 * ahead.clamp(max=0)


class FusedBlock(nn.Module):
    """Attention with one matrix for q, k and v, as functions; then two dense layers."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.register_buffer("mask", slopes(20))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.fc1 = nn.Linear(width, 2 * width)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(0.1)

    def attend(self, qkv: Tensor) -> Tensor:
        """(B, T, 3 D) -> (B, T, D)."""
        batch, tokens, _ = qkv.shape
        q, k, v = qkv.reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5 + self.mask
        return (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, tokens, -1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = x + self.proj(self.attend(self.qkv(self.norm1(x))))
        return x + self.dropout(  # type: ignore[no-any-return]
            self.fc2(self.act(self.fc1(self.norm2(x))))
        )


class MaskedBlock(nn.Module):
    """PyTorch's attention with a mask, then two dense layers with SiLU."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 2 * width)
        self.act = nn.SiLU()
        self.fc2 = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        y = self.norm1(x)
        mask = band(x.shape[1])
        x = x + self.attention(y, y, y, attn_mask=mask, need_weights=False)[0]
        return x + self.fc2(self.act(self.fc1(self.norm2(x))))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Transposed convolutions and upsampling: (B, 4, 5, 7) -> (B, 2, 20, 28)."""

    def __init__(self) -> None:
        super().__init__()
        self.up1 = nn.ConvTranspose2d(4, 8, 3, 2, 1, output_padding=1)
        self.norm1 = nn.GroupNorm(4, 8)
        self.act1 = nn.SiLU()
        self.mix = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
        self.norm2 = nn.BatchNorm2d(8)
        self.act2 = nn.LeakyReLU(0.2)
        self.up2 = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.last = nn.ConvTranspose2d(8, 2, 3, padding=2, dilation=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """A picture from a small map."""
        x = self.act1(self.norm1(self.up1(x)))
        x = self.act2(self.norm2(self.mix(x)))
        return self.last(self.up2(x))  # type: ignore[no-any-return]


class Mobile(nn.Module):
    """Depthwise convolutions, channel shuffle and squeeze-and-excitation: (B, 3, 17, 13) -> (B, 9).

    Cardinality 3 of the shuffle differs from the 4 channels of a group.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, 2, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(12, eps=1e-3, momentum=0.01)
        self.act1 = nn.Hardswish()
        self.grouped = nn.Conv2d(12, 12, 1, groups=3, bias=False)
        self.shuffle = nn.ChannelShuffle(3)
        self.depthwise = nn.Conv2d(12, 12, 3, 1, 1, groups=12, bias=False)
        self.norm2 = nn.BatchNorm2d(12, eps=1e-3, momentum=0.01)
        self.squeeze = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(12, 5, 1)
        self.act2 = nn.ReLU6()
        self.expand = nn.Conv2d(5, 12, 1)
        self.gate = nn.Hardsigmoid()
        self.pool = nn.AdaptiveMaxPool2d((2, 5))
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(120, 9)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores of images."""
        x = self.act1(self.norm1(self.stem(x)))
        x = self.norm2(self.depthwise(self.shuffle(self.grouped(x))))
        x = x * self.gate(self.expand(self.act2(self.reduce(self.squeeze(x)))))
        x = F.dropout(x, 0.1, self.training)
        return self.head(self.dropout(self.pool(x).flatten(1)))  # type: ignore[no-any-return]


class Long(nn.Module):
    """A mean of 16256 positive numbers: (B, 3, 130, 129) -> (B, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 2, 3)
        self.act = nn.Sigmoid()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(2, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores of images."""
        return self.head(self.pool(self.act(self.stem(x))).flatten(1))  # type: ignore[no-any-return]


NETS: dict[str, Callable[[], nn.Module]] = {
    "conv": ConvNet,
    "residual": Residual,
    "transformer": Transformer,
    "decoder": Decoder,
    "mobile": Mobile,
    "long": Long,
}
INPUTS: dict[str, dict[str, Draw]] = {
    "conv": {"x": normal(BATCH, 3, 19, 17)},
    "residual": {"x": normal(BATCH, 3, 18, 14)},
    "transformer": {"x": normal(BATCH, 3, 12, 15)},
    "decoder": {"x": normal(BATCH, 4, 5, 7)},
    "mobile": {"x": normal(BATCH, 3, 17, 13)},
    "long": {"x": normal(BATCH, 3, 130, 129)},
}
