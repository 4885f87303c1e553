"""TransFG and the plain Vision Transformer, in PyTorch.

Source: He et al. 2022, TransFG (arXiv 2103.07976); Dosovitskiy et al. 2021, ViT (arXiv
2010.11929); where TransFG's paper and its published program differ, the program
(docs/architecture.md, "What the numbers must be"). Twin: `transfg_jt/model.py`.

Shapes: B batch, H and W image, P patch, S stride, N patches, T = N + 1 tokens, D width, K heads,
L layers, C classes.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transfg_core.config import ModelConfig
from transfg_core.params import grid_size
from transfg_torch.attention import attention, cls_scores, propagate
from transfg_torch.checkpointing import feed, recompute

LAYER_NORM_EPS = 1e-6  # google-research/vision_transformer; the frameworks' default is 1e-5

Tap = Callable[[str, Tensor], Tensor]


class Output(NamedTuple):
    """logits (B, C); features (B, D): the class token after the last norm; with part selection
    part_index (B, K) int64, counted with the class token at 0, and part_scores (B, K, N)."""

    logits: Tensor
    features: Tensor
    part_index: Tensor | None
    part_scores: Tensor | None


def no_tap(name: str, value: Tensor) -> Tensor:
    """The default tap: records nothing."""
    return value


def under(tap: Tap, prefix: str) -> Tap:
    """The tap for what lies inside a module: `query` becomes `prefix.query`."""
    return tap if tap is no_tap else lambda name, value: tap(f"{prefix}.{name}", value)


class LayerNorm(nn.LayerNorm):
    """Normalise the last axis: (..., D) -> (..., D)."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=LAYER_NORM_EPS)


class Dropout(nn.Dropout):  # native: on the CPU, PyTorch's keeps its mask in float32
    """Zero elements at random and divide the others by 1 - p, in training: any shape."""

    def forward(self, x: Tensor) -> Tensor:
        """The mask is kept in one byte an element."""
        return self.draw(x)[0]

    def draw(self, x: Tensor) -> tuple[Tensor, Tensor | None]:  # native: for Mlp
        """The result, and the mask that was drawn for it, if one was."""
        if not self.training or self.p == 0:
            return x, None
        return torch.native_dropout(x, self.p, True)

    def again(self, x: Tensor, mask: Tensor | None) -> Tensor:  # native: likewise
        """The same result, from the mask."""
        if mask is None:
            return x
        scale = 1 / (1 - self.p)
        if x.is_cuda:
            return torch.ops.aten.native_dropout_backward(x, mask, scale)
        return x * (mask * torch.tensor(scale, dtype=x.dtype))  # rounded, as it is there


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
        make = partial(self.hidden, mask=mask)
        y = tap("fc2", feed(self.fc2, tap("hidden", hidden), make, first))
        return tap("out", self.dropout(y))  # torch: it casts what is added

    def hidden(self, first: Tensor, mask: Tensor | None) -> Tensor:  # native: for `feed`
        """What the second layer gets: GELU of what the first gives, and dropout, (B, T, F)."""
        return self.dropout.again(F.gelu(first), mask)


def cast_once(x: Tensor) -> Tensor:  # native: Jittor has mixed.py
    """In the type of linear layers under autocast: each layer that x goes to would cast it anew."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


class Block(nn.Module):
    """Pre-norm encoder block (ViT, equations 2 and 3)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm1 = LayerNorm(config.width)
        self.attn = Attention(config.width, config.heads)
        self.norm2 = LayerNorm(config.width)
        self.mlp = Mlp(config.width, config.mlp, config.dropout)

    def forward(self, x: Tensor, tap: Tap = no_tap) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, D) -> (B, T, D), and the queries and keys (B, T, D)."""
        normed = tap("norm1", cast_once(self.norm1(x)))
        y, q, k = feed(self.attn, normed, self.norm1, x, under(tap, "attn"))
        x = tap("mid", x + y)
        normed = tap("norm2", cast_once(self.norm2(x)))
        y = feed(self.mlp, normed, self.norm2, x, under(tap, "mlp"))
        return x + y, q, k


def fuse_rows(
    queries: list[Tensor], keys: list[Tensor], heads: int, fusion: str, tap: Tap = no_tap
) -> Tensor:
    """Row 0 of the fused attention maps, without its own column: (B, K, N).

    A_l = softmax(q_l k_lᵀ / √d). `matmul` is row 0 of A_n ··· A_1 A_0, computed as the row times
    one map after the other, so no product of two maps is ever formed. `mul` is the elementwise
    product as a sum of logarithms, since it underflows in linear space; `add` is the sum;
    `lastlayer` is A_n alone.
    """
    if fusion == "matmul":
        row = F.softmax(cls_scores(queries[-1], keys[-1], heads), dim=-1)
        for depth in reversed(range(len(queries) - 1)):
            row = tap(f"part_row{depth + 1:02d}", row)
            row = propagate(row, queries[depth], keys[depth], heads)
    elif fusion == "mul":
        row = sum(
            F.log_softmax(cls_scores(q, k, heads), dim=-1)
            for q, k in zip(queries, keys, strict=True)
        )
    elif fusion == "add":
        row = sum(
            F.softmax(cls_scores(q, k, heads), dim=-1) for q, k in zip(queries, keys, strict=True)
        )
    else:
        row = F.softmax(cls_scores(queries[-1], keys[-1], heads), dim=-1)
    return row[:, :, 1:]


def rollout(queries: list[Tensor], keys: list[Tensor], heads: int) -> Tensor:
    """Attention rollout of the class token for pictures: (B, N).

    Row 0 of the product over layers of (mean over heads of A_l + I) / 2, the last layer on the
    left, without its own column (Abnar and Zuidema 2020, arXiv 2005.00928, equation 1).
    """
    row = torch.zeros_like(keys[0][:, :, 0])
    row[:, 0] = 1
    for q, k in zip(reversed(queries), reversed(keys), strict=True):
        by_head = propagate(row.unsqueeze(1).expand(-1, heads, -1), q, k, heads)
        row = (by_head.mean(1) + row) / 2
    return row[:, 1:]


def select_parts(scores: Tensor) -> Tensor:
    """First maximum per head, counted with the class token at 0: (B, K, N) -> (B, K).

    Duplicates between heads stay, heads in order (TransFG, equation 8).
    """
    return scores.argmax(dim=-1) + 1


def gather_tokens(x: Tensor, index: Tensor) -> Tensor:
    """The class token, then the tokens at index: (B, T, D) and (B, K) -> (B, 1 + K, D)."""
    parts = x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
    return torch.cat([x[:, :1], parts], dim=1)


class TransFG(nn.Module):
    """Vision Transformer; with placement `transfg` the last block sees only selected parts."""

    def __init__(self, config: ModelConfig, image_size: tuple[int, int]) -> None:
        super().__init__()
        rows, columns = grid_size(image_size, config)
        self.config = config
        self.grad_checkpointing = False
        self.patch_embed = nn.Conv2d(3, config.width, config.patch, stride=config.stride)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, rows * columns + 1, config.width))
        self.dropout = Dropout(config.dropout)
        if config.placement == "transfg":
            self.blocks = nn.ModuleList([Block(config) for _ in range(config.depth - 1)])
            self.part_layer = Block(config)
            self.part_norm = LayerNorm(config.width)
        else:
            self.blocks = nn.ModuleList([Block(config) for _ in range(config.depth)])
            self.norm = LayerNorm(config.width)
        self.head = nn.Linear(config.width, config.classes)

    def forward(self, images: Tensor, tap: Tap = no_tap) -> Output:
        """(B, 3, H, W) -> Output."""
        x = tap("patch_embed", self.patch_embed(cast_once(images)).flatten(2).transpose(1, 2))
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        x = tap("embed", self.dropout(tap("tokens", x + self.pos_embed)))
        queries, keys = [], []
        for depth, block in enumerate(self.blocks):
            if self.grad_checkpointing and tap is no_tap:
                x, q, k = recompute(block, x)
            else:
                x, q, k = block(x, under(tap, f"block{depth:02d}"))
            x = tap(f"block{depth:02d}", x)
            if self.config.placement == "transfg":
                queries.append(q)
                keys.append(k)
        if self.config.placement == "transfg":
            x, index, scores = self.select_and_attend(x, queries, keys, tap)
            x = tap("part_norm", self.part_norm(x))
        else:
            index, scores = None, None
            x = tap("norm", self.norm(x))
        features = tap("features", x[:, 0])
        logits = tap("logits", self.head(cast_once(features)))
        return Output(logits, features, index, scores)

    def rollout(self, images: Tensor) -> Tensor:
        """Attention rollout of the encoder's blocks, for pictures: (B, 3, H, W) -> (B, N)."""
        taps: dict[str, Tensor] = {}

        def keep(name: str, value: Tensor) -> Tensor:
            if name.endswith((".attn.query", ".attn.key")):
                taps[name] = value
            return value

        self(images, keep)
        blocks = [f"block{depth:02d}.attn" for depth in range(len(self.blocks))]
        queries, keys = ([taps[f"{name}.{x}"] for name in blocks] for x in ("query", "key"))
        return rollout(queries, keys, self.config.heads)

    def select_and_attend(
        self, x: Tensor, queries: list[Tensor], keys: list[Tensor], tap: Tap
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Part selection module and part layer (TransFG, section 3.2).

        Tokens (B, T, D) -> part layer's output (B, 1 + K, D), index (B, K), scores (B, K, N).
        The choice of an index has no gradient, so the scores are computed without a graph.
        """
        heads, fusion = self.config.heads, self.config.fusion
        with torch.no_grad():
            scores = tap("part_scores", fuse_rows(queries, keys, heads, fusion, tap))
            index = tap("part_index", select_parts(scores))
        x = tap("part_tokens", gather_tokens(x, index))
        x, _, _ = self.part_layer(x, under(tap, "part_layer"))
        return tap("part_layer", x), index, scores
