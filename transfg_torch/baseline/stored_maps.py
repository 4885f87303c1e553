"""TransFG as the published program computes it: it stores all attention maps and multiplies them.

The same function as `models.vit.TransFG`, but slower and with more memory. Only `transfg bench`
uses it, for comparison.

Source: He et al. 2022 (arXiv 2103.07976) and its program, classes Attention and Part_Attention.
Twin: `transfg_jt/baseline/stored_maps.py`.

Shapes: B batch, T tokens, D width, K heads, d = D / K.
"""

import torch.nn.functional as F
from torch import Tensor

from transfg_core.config.vit import VitConfig
from transfg_torch.attention import split_heads
from transfg_torch.checkpointing import save_less
from transfg_torch.models.layers import Attention, Dropout
from transfg_torch.models.output import Output
from transfg_torch.models.parts import select_parts
from transfg_torch.models.taps import Tap, no_tap
from transfg_torch.models.vit import Encoded, TransFG


def attend_with_map(q: Tensor, k: Tensor, v: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """softmax(q kᵀ / √d) v per head, and the map: q, k, v (B, T, D) -> (B, T, D), (B, K, T, T)."""
    q, k, v = split_heads(q, heads), split_heads(k, heads), split_heads(v, heads)

    attention_map = F.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1)
    return (attention_map @ v).transpose(1, 2).flatten(2), attention_map


def multiply_maps(maps: list[Tensor]) -> Tensor:
    """A_n ··· A_1 A_0: L - 1 times (B, K, T, T) -> (B, K, T, T)."""
    product = maps[0]
    for attention_map in maps[1:]:
        product = attention_map @ product
    return product


class StoredMapsAttention(Attention):
    """Multi-head self-attention that saves its map for the backward pass, and returns it."""

    def forward(self, x: Tensor, tap: Tap = no_tap) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, D) -> (B, T, D), and the map (B, K, T, T) twice, for queries and for keys."""
        q, k, v = self.query(x), self.key(x), self.value(x)
        mix, attention_map = attend_with_map(q, k, v, self.heads)
        return self.out(mix), attention_map, attention_map


class FloatDropout(Dropout):  # native: each framework saves the mask in its own way
    """Dropout whose saved mask takes four bytes per element."""

    def draw(self, x: Tensor) -> tuple[Tensor, None]:
        """The result, and no mask to recompute it from."""
        return F.dropout(x, self.p, self.training), None


class StoredMapsTransFG(TransFG):
    """TransFG whose scores are a row of the product of all maps; only selection by `matmul`."""

    def __init__(self, config: VitConfig, image_size: tuple[int, int]) -> None:
        super().__init__(config, image_size)
        assert (config.selection, config.fusion) == ("fused", "matmul") and config.has_part_layer
        self.dropout = FloatDropout(config.dropout)
        for block in self.blocks:
            block.attn = StoredMapsAttention(config.width, config.heads)
        for block in [*self.blocks, self.part_layer]:
            block.mlp.dropout = FloatDropout(config.dropout)

    def forward(self, images: Tensor, tap: Tap = no_tap) -> Output:
        """(B, 3, H, W) -> Output; saves what the published program saves."""
        with save_less(False):
            return super().forward(images, tap)

    def select(
        self,
        encoded: Encoded,
        parts: Tensor | None,
        tap: Tap,
    ) -> tuple[Tensor, Tensor | None]:
        """As in TransFG; the product of maps has a graph, as in the published program."""
        # with a copy of the row, the products are freed early, as in the published program
        scores = multiply_maps(encoded.queries)[:, :, 0, 1:].detach().clone()
        scores = tap("part_scores", scores)
        return tap("part_index", select_parts(scores)), scores
