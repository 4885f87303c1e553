"""TransFG and the plain Vision Transformer, in PyTorch.

Source: He et al. 2022, TransFG (arXiv 2103.07976); Dosovitskiy et al. 2021, ViT (arXiv
2010.11929); docs/spec.md. Twin: `transfg_jt/models/vit.py`.

Shapes: B batch, H and W image, N patches, T = N + 1 tokens, D width, K heads, L layers, C classes.
"""

import torch
from torch import Tensor, nn

from transfg_core.config.stem import STEMS
from transfg_core.config.vit import VitConfig
from transfg_core.models.vit import grid_size
from transfg_torch.checkpointing import recompute
from transfg_torch.models.layers import Block, Dropout, LayerNorm, cast_once
from transfg_torch.models.output import Output
from transfg_torch.models.parts import fuse_rows, gather_tokens, rollout, select_parts
from transfg_torch.models.stem import Stem
from transfg_torch.models.taps import Tap, no_tap, under


class TransFG(nn.Module):
    """Vision Transformer; with placement `transfg` the last block gets only the selected parts."""

    def __init__(self, config: VitConfig, image_size: tuple[int, int]) -> None:
        super().__init__()
        rows, columns = grid_size(image_size, config)
        self.config = config
        self.grad_checkpointing = False
        channels = 3
        if config.stem != "none":
            self.stem = Stem(config.stem)
            channels = STEMS[config.stem].channels
        self.patch_embed = nn.Conv2d(channels, config.width, config.patch, stride=config.stride)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, rows * columns + 1, config.width))
        self.dropout = Dropout(config.dropout)
        if config.selects_parts:
            self.blocks = nn.ModuleList([Block(config) for _ in range(config.depth - 1)])
            self.part_layer = Block(config)
            self.part_norm = LayerNorm(config.width)
        else:
            self.blocks = nn.ModuleList([Block(config) for _ in range(config.depth)])
            self.norm = LayerNorm(config.width)
        self.head = nn.Linear(config.width, config.classes)

    def forward(self, images: Tensor, tap: Tap = no_tap) -> Output:
        """(B, 3, H, W) -> Output."""
        x = cast_once(images)
        if self.config.stem != "none":
            x = self.stem(x, tap, self.grad_checkpointing)
        x = tap("patch_embed", self.patch_embed(x).flatten(2).transpose(1, 2))
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        x = tap("embed", self.dropout(tap("tokens", x + self.pos_embed)))
        queries, keys = [], []
        for depth, block in enumerate(self.blocks):
            if self.grad_checkpointing and tap is no_tap:
                x, q, k = recompute(block, x)
            else:
                x, q, k = block(x, under(tap, f"block{depth:02d}"))
            x = tap(f"block{depth:02d}", x)
            if self.config.selects_parts:
                queries.append(q)
                keys.append(k)
        if self.config.selects_parts:
            x, index, scores = self.select_and_attend(x, queries, keys, tap)
            x = tap("part_norm", self.part_norm(x))
        else:
            index, scores = None, None
            x = tap("norm", self.norm(x))
        features = tap("features", x[:, 0])
        logits = tap("logits", self.head(cast_once(features)))
        return Output(logits, features, index, scores)

    def rollout(self, images: Tensor) -> Tensor:
        """Attention rollout of the encoder's blocks, for plots: (B, 3, H, W) -> (B, N)."""
        taps: dict[str, Tensor] = {}

        def record(name: str, value: Tensor) -> Tensor:
            if name.endswith((".attn.query", ".attn.key")):
                taps[name] = value
            return value

        self(images, record)
        blocks = [f"block{depth:02d}.attn" for depth in range(len(self.blocks))]
        queries, keys = ([taps[f"{name}.{x}"] for name in blocks] for x in ("query", "key"))
        return rollout(queries, keys, self.config.heads)

    def select_and_attend(
        self, x: Tensor, queries: list[Tensor], keys: list[Tensor], tap: Tap
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Part selection module and part layer (TransFG, section 3.2).

        Tokens (B, T, D) -> part layer's output (B, 1 + K, D), index (B, K), scores (B, K, N).
        An index has no gradient, so the scores are computed without a graph.
        """
        heads, fusion = self.config.heads, self.config.fusion
        with torch.no_grad():
            scores = tap("part_scores", fuse_rows(queries, keys, heads, fusion, tap))
            index = tap("part_index", select_parts(scores))
        x = tap("part_tokens", gather_tokens(x, index))
        x, _, _ = self.part_layer(x, under(tap, "part_layer"))
        return tap("part_layer", x), index, scores
