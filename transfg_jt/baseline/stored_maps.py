"""TransFG as the published program computes it: it stores all attention maps and multiplies them.

The same function as `models.vit.TransFG`, but slower and with more memory. Only `transfg bench`
uses it, for comparison.

Source: He et al. 2022 (arXiv 2103.07976) and its program, classes Attention and Part_Attention.
Twin: `transfg_torch/baseline/stored_maps.py`.

Shapes: B batch, T tokens, D width, K heads, d = D / K.
"""

from jittor import Var, nn

from transfg_core.config.vit import VitConfig
from transfg_jt.attention import at_least_float32, split_heads
from transfg_jt.checkpointing import save_less
from transfg_jt.models.layers import Attention, Dropout
from transfg_jt.models.output import Output
from transfg_jt.models.parts import select_parts
from transfg_jt.models.taps import Tap, no_tap
from transfg_jt.models.vit import Encoded, TransFG
from transfg_jt.ops.bfloat16 import cast_like


def attend_with_map(q: Var, k: Var, v: Var, heads: int) -> tuple[Var, Var]:
    """softmax(q kᵀ / √d) v per head, and the map: q, k, v (B, T, D) -> (B, T, D), (B, K, T, T)."""
    # jittor block for 1 line: it would sum products of bfloat16 in bfloat16
    like = q
    q, k, v = (split_heads(at_least_float32(x), heads) for x in (q, k, v))

    attention_map = nn.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1)
    # jittor: in the type of the input
    return cast_like((attention_map @ v).transpose(1, 2).flatten(2), like), attention_map


def multiply_maps(maps: list[Var]) -> Var:
    """A_n ··· A_1 A_0: L - 1 times (B, K, T, T) -> (B, K, T, T)."""
    product = maps[0]
    for attention_map in maps[1:]:
        product = attention_map @ product
    return product


class StoredMapsAttention(Attention):
    """Multi-head self-attention that saves its map for the backward pass, and returns it."""

    def execute(self, x: Var, tap: Tap = no_tap) -> tuple[Var, Var, Var]:
        """(B, T, D) -> (B, T, D), and the map (B, K, T, T) twice, for queries and for keys."""
        q, k, v = self.query(x), self.key(x), self.value(x)
        mix, attention_map = attend_with_map(q, k, v, self.heads)
        return self.out(mix), attention_map, attention_map


class FloatDropout(Dropout):  # native: each framework saves the mask in its own way
    """Dropout whose saved mask takes four bytes per element."""

    def draw(self, x: Var) -> tuple[Var, None]:
        """The result, and no mask to recompute it from."""
        return nn.Dropout.execute(self, x), None


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

    def execute(self, images: Var, tap: Tap = no_tap) -> Output:
        """(B, 3, H, W) -> Output; saves what the published program saves."""
        with save_less(False):
            return super().execute(images, tap)

    def select(
        self,
        encoded: Encoded,
        parts: Var | None,
        tap: Tap,
    ) -> tuple[Var, Var | None]:
        """As in TransFG; the product of maps has a graph, as in the published program."""
        # with a copy of the row, the products are freed early, as in the published program
        scores = multiply_maps(encoded.queries)[:, :, 0, 1:].detach().clone()
        scores = tap("part_scores", scores)
        return tap("part_index", select_parts(scores)), scores
