"""TransFG and the plain Vision Transformer, in Jittor.

Source: He et al. 2022, TransFG (arXiv 2103.07976); Dosovitskiy et al. 2021, ViT (arXiv
2010.11929); docs/spec.md. Twin: `transfg_torch/models/vit.py`.

Shapes: B batch, H and W image, N patches, T = N + 1 tokens, D width, K heads, L layers, C classes,
J rows of scores, S selected tokens, U inputs of the classifier.
"""

from typing import NamedTuple

import jittor as jt
from jittor import Var, nn

from transfg_core.config.stem import STEMS
from transfg_core.config.vit import VitConfig
from transfg_core.models.vit import grid_size
from transfg_jt.checkpointing import recompute
from transfg_jt.models.layers import Block, Dropout, LayerNorm
from transfg_jt.models.output import Output
from transfg_jt.models.parts import (
    class_similarity,
    fuse_rows,
    gather_tokens,
    mutual_scores,
    rollout,
    select_parts,
)
from transfg_jt.models.stem import Stem
from transfg_jt.models.taps import Tap, no_tap, under
from transfg_jt.ops.bfloat16 import cast_once, to_float32
from transfg_jt.ops.convolution import PatchEmbed
from transfg_jt.ops.exact import Linear


class Encoded(NamedTuple):
    """What the encoder's blocks give: one entry for each block, as far as the selection needs it.

    `layers` (B, T, D) are the outputs from which parts are gathered; the last is always there.
    `queries` and `keys` (B, T, D) are for `fused`, and `mutual` (B, N) are the scores of `maws`.
    """

    layers: list[Var]
    queries: list[Var]
    keys: list[Var]
    mutual: list[Var]


class TransFG(nn.Module):
    """Vision Transformer. `config.placement` says which block or head reads the selected parts."""

    def __init__(self, config: VitConfig, image_size: tuple[int, int]) -> None:
        super().__init__()
        rows, columns = grid_size(image_size, config)
        self.config = config
        self.grad_checkpointing = False
        channels = 3
        if config.stem != "none":
            self.stem = Stem(config.stem)
            channels = STEMS[config.stem].channels
        # jittor: its convolution needs cuDNN 8
        self.patch_embed = PatchEmbed(channels, config.width, config.patch, config.stride)
        self.cls_token = jt.zeros(1, 1, config.width)
        self.pos_embed = jt.zeros(1, rows * columns + 1, config.width)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.encoder_depth)])
        if config.has_part_layer:
            self.part_layer = Block(config)
            self.part_norm = LayerNorm(config.width)
        else:
            self.norm = LayerNorm(config.width)
        self.head = Linear(config.feature_width, config.classes)

    def execute(self, images: Var, tap: Tap = no_tap, parts: Var | None = None) -> Output:
        """(B, 3, H, W) -> Output. With `config.draws_parts` it needs the parts (B, S)."""
        encoded = self.encode(images, tap)
        x, index, scores = encoded.layers[-1], None, None
        if self.config.selects_parts:
            index, scores = self.select(encoded, parts, tap)
            x = tap("part_tokens", gather_tokens(encoded.layers, index))
        if self.config.has_part_layer:
            x, _, _ = self.part_layer(x, under(tap, "part_layer"))
            x = tap("part_norm", self.part_norm(tap("part_layer", x)))
        else:
            x = tap("norm", self.norm(x))
        features = tap("features", self.pool(x))
        # jittor: its argmax does not support bfloat16 on every device
        logits = to_float32(tap("logits", self.head(cast_once(features))))
        return Output(logits, features, index, scores)

    def encode(self, images: Var, tap: Tap = no_tap) -> Encoded:
        """Embedding and encoder: (B, 3, H, W) -> Encoded."""
        x = cast_once(images)
        if self.config.stem != "none":
            x = self.stem(x, tap, self.grad_checkpointing)
        # jittor: PatchEmbed returns (B, N, D)
        x = tap("patch_embed", self.patch_embed(x))
        # jittor: its concatenation does not cast
        x = jt.concat([self.cls_token.expand(x.shape[0], -1, -1), to_float32(x)], dim=1)
        x = tap("embed", self.dropout(tap("tokens", x + self.pos_embed)))
        encoded = Encoded([], [], [], [])
        for depth, block in enumerate(self.blocks):
            if self.grad_checkpointing and tap is no_tap:
                x, q, k = recompute(block, x)
            else:
                x, q, k = block(x, under(tap, f"block{depth:02d}"))
            x = tap(f"block{depth:02d}", x)
            self.collect(encoded, x, q, k)
        encoded.layers[:] = encoded.layers or [x]
        return encoded

    def collect(self, encoded: Encoded, x: Var, q: Var, k: Var) -> None:
        """Keep what the selection needs of a block: its output, queries and keys (B, T, D)."""
        if not self.config.selects_parts:
            return
        if self.config.selection == "fused":
            encoded.queries.append(q)
            encoded.keys.append(k)
        elif self.config.selection == "maws":
            encoded.layers.append(x)
            with jt.no_grad():
                encoded.mutual.append(mutual_scores(q, k, self.config.heads))

    def select(
        self,
        encoded: Encoded,
        parts: Var | None,
        tap: Tap,
    ) -> tuple[Var, Var | None]:
        """Indices of the selected tokens (B, S), and the scores (B, J, N) if there are any.

        An index has no gradient, so the scores are computed without a graph.
        """
        if self.config.draws_parts:
            assert parts is not None, "transfg_core.parts draws the parts of this selection"
            return tap("part_index", parts), None
        with jt.no_grad():
            scores = tap("part_scores", self.part_scores(encoded, tap))
            index = tap("part_index", select_parts(scores, self.config.row_parts))
        return index, scores

    def part_scores(self, encoded: Encoded, tap: Tap) -> Var:
        """Scores of the patches by `config.selection`: (B, J, N)."""
        if self.config.selection == "maws":
            return jt.stack(encoded.mutual, dim=1)
        if self.config.selection == "cls_similarity":
            norm = self.part_norm if self.config.has_part_layer else self.norm
            return class_similarity(norm(encoded.layers[-1]))
        heads, fusion = self.config.heads, self.config.fusion
        return fuse_rows(encoded.queries, encoded.keys, heads, fusion, tap)

    def pool(self, x: Var) -> Var:
        """Inputs of the classifier: the class token, or with `flatten` all: (B, Q, D) -> (B, U)."""
        if self.config.placement != "flatten":
            return x[:, 0]
        return (x if self.config.flatten_class_token else x[:, 1:]).flatten(1)

    def rollout(self, images: Var) -> Var:
        """Attention rollout of the encoder's blocks, for plots: (B, 3, H, W) -> (B, N)."""
        taps: dict[str, Var] = {}

        def record(name: str, value: Var) -> Var:
            if name.endswith((".attn.query", ".attn.key")):
                taps[name] = value
            return value

        self.encode(images, record)
        blocks = [f"block{depth:02d}.attn" for depth in range(len(self.blocks))]
        queries, keys = ([taps[f"{name}.{x}"] for name in blocks] for x in ("query", "key"))
        return rollout(queries, keys, self.config.heads)
