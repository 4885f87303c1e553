"""The layers of the Vision Transformer, in PyTorch.

Source: Dosovitskiy et al. 2021, ViT (arXiv 2010.11929); docs/spec.md, "Model".
Twin: `transfg_jt/models/layers.py`.

Shapes: B batch, T tokens, D width, K heads, M width of the MLP.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transfg_core.config.vit import VitConfig
from transfg_torch.attention import at_least_float32, attention
from transfg_torch.checkpointing import recompute_input
from transfg_torch.models.taps import Tap, no_tap, under

LAYER_NORM_EPS = 1e-6  # google-research/vision_transformer; the frameworks' default is 1e-5


class LayerNorm(nn.LayerNorm):
    """Normalise the last axis: (..., D) -> (..., D)."""

    def __init__(self, width: int, eps: float = LAYER_NORM_EPS) -> None:
        super().__init__(width, eps=eps)


class Dropout(nn.Dropout):  # native: on the CPU, PyTorch's saves its mask in float32
    """Zero elements at random and divide the others by 1 - p, in training: any shape."""

    def forward(self, x: Tensor) -> Tensor:
        """The saved mask takes one byte per element."""
        return self.draw(x)[0]

    def draw(self, x: Tensor) -> tuple[Tensor, Tensor | None]:  # native: for Mlp
        """The result, and its mask if elements are dropped, else None."""
        if not self.training or self.p == 0:
            return x, None
        return torch.native_dropout(x, self.p, True)

    def apply_mask(self, x: Tensor, mask: Tensor | None) -> Tensor:  # native: for Mlp, as `draw`
        """The result of `draw` for a given mask."""
        if mask is None:
            return x
        scale = 1 / (1 - self.p)
        if x.is_cuda:
            return torch.ops.aten.native_dropout_backward(x, mask, scale)
        return x * (mask * torch.tensor(scale, dtype=x.dtype))  # rounded, as native_dropout does


class DropPath(nn.Module):
    """Leave out a residual branch, in training (Huang et al. 2016, arXiv 1603.09382).

    Each image's branch (T, D) is zero with probability p, and is divided by 1 - p otherwise.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:  # native: Jittor's masks may be given
        """(B, T, D) -> (B, T, D), in float32 or float64 where branches are left out."""
        if not self.training or self.p == 0:
            return x
        x = at_least_float32(x)
        kept = torch.rand(len(x), 1, 1, device=x.device) >= self.p
        return x * kept / (1 - self.p)


class Attention(nn.Module):
    """Multi-head self-attention (ViT, equations 5 to 8)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, tap: Tap = no_tap) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, D) -> (B, T, D), and the queries and keys (B, T, D) for part selection."""
        q, k = tap("query", self.query(x)), tap("key", self.key(x))
        v = tap("value", self.value(x))
        mix = tap("mix", attention(q, k, v, self.heads))
        return tap("out", self.out(mix)), q, k


class Mlp(nn.Module):
    """Two linear layers with exact (erf) GELU between them; dropout after each."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, tap: Tap = no_tap) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        first = tap("fc1", self.fc1(x))
        hidden, mask = self.dropout.draw(tap("gelu", F.gelu(first)))
        compute = partial(self.hidden, mask=mask)
        y = tap("fc2", recompute_input(self.fc2, tap("hidden", hidden), compute, first))
        return tap("out", self.dropout(y))  # torch: addition casts its inputs

    def hidden(self, first: Tensor, mask: Tensor | None) -> Tensor:  # native: for `recompute_input`
        """Input of the second layer: GELU and dropout of the first one's output, (B, T, M)."""
        return self.dropout.apply_mask(F.gelu(first), mask)


def cast_once(x: Tensor) -> Tensor:  # native: Jittor has ops/bfloat16.py
    """x in autocast's type for linear layers, so that not each layer with input x casts it."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


class Block(nn.Module):
    """Pre-norm encoder block (ViT, equations 2 and 3)."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.norm1 = LayerNorm(config.width)
        self.attn = Attention(config.width, config.heads)
        self.norm2 = LayerNorm(config.width)
        self.mlp = Mlp(config.width, config.mlp, config.dropout)

    def forward(self, x: Tensor, tap: Tap = no_tap) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, D) -> (B, T, D), and the queries and keys (B, T, D)."""
        normed = tap("norm1", cast_once(self.norm1(x)))
        y, q, k = recompute_input(self.attn, normed, self.norm1, x, under(tap, "attn"))
        x = tap("mid", x + y)
        normed = tap("norm2", cast_once(self.norm2(x)))
        y = recompute_input(self.mlp, normed, self.norm2, x, under(tap, "mlp"))
        return x + y, q, k
