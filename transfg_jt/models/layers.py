"""The layers of the Vision Transformer, in Jittor.

Source: Dosovitskiy et al. 2021, ViT (arXiv 2010.11929); docs/spec.md, "Model".
Twin: `transfg_torch/models/layers.py`.

Shapes: B batch, T tokens, D width, K heads, M width of the MLP.
"""

from collections.abc import Sequence
from functools import partial

import jittor as jt
from jittor import Var, nn

from transfg_core.config.vit import VitConfig
from transfg_jt.attention import at_least_float32, attention
from transfg_jt.checkpointing import recompute_input
from transfg_jt.models.taps import Tap, no_tap, under
from transfg_jt.ops.bfloat16 import cast_like, cast_once, to_float32
from transfg_jt.ops.dropout_masks import DRAWN, GIVEN
from transfg_jt.ops.exact import Linear, gelu, number
from transfg_jt.ops.layer_norm import layer_norm

LAYER_NORM_EPS = 1e-6  # google-research/vision_transformer; the frameworks' default is 1e-5


class LayerNorm(nn.LayerNorm):
    """Normalise the last axis: (..., D) -> (..., D)."""

    def __init__(self, width: int, eps: float = LAYER_NORM_EPS) -> None:
        super().__init__(width, eps=eps)

    def execute(self, x: Var) -> Var:  # native: Jittor's E[x²] - E[x]² cancels at large means
        """(..., D) -> (..., D), the variance in a second pass."""
        return layer_norm(x, self.weight, self.bias, self.eps)


class Dropout(nn.Dropout):  # native: Jittor's saves its mask in int32
    """Zero elements at random and divide the others by 1 - p, in training: any shape."""

    def execute(self, x: Var) -> Var:
        """The saved mask takes one byte per element."""
        return self.draw(x)[0]

    def draw(self, x: Var) -> tuple[Var, Var | None]:  # native: for Mlp
        """The result, and its mask if elements are dropped, else None."""
        if not self.is_train or self.p == 0:
            return x, None
        mask = draw_mask(x.shape, self.p)
        return self.apply_mask(x, mask), mask

    def apply_mask(self, x: Var, mask: Var | None) -> Var:  # native: for Mlp, as `draw`
        """The result of `draw` for a given mask."""
        if mask is None:
            return x
        return cast_like(to_float32(x) * mask / number(1 - self.p, x), x)


def draw_mask(shape: Sequence[int], p: float) -> Var:  # native: for Dropout and DropPath
    """A mask that is False with probability p; in the second pass of a block, that of the first."""
    drawn, given = DRAWN.get(), GIVEN.get()
    mask = given.pop(0) if given else jt.random(shape) > p
    if drawn is not None:
        drawn.append(mask)
    return mask


class DropPath(nn.Module):
    """Leave out a residual branch, in training (Huang et al. 2016, arXiv 1603.09382).

    Each image's branch (T, D) is zero with probability p, and is divided by 1 - p otherwise.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def execute(self, x: Var) -> Var:  # native: Jittor's masks may be given
        """(B, T, D) -> (B, T, D), in float32 or float64 where branches are left out."""
        if not self.is_train or self.p == 0:
            return x
        x = at_least_float32(x)
        return x * draw_mask((x.shape[0], 1, 1), self.p) / number(1 - self.p, x)


class Attention(nn.Module):
    """Multi-head self-attention (ViT, equations 5 to 8)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = Linear(width, width)
        self.key = Linear(width, width)
        self.value = Linear(width, width)
        self.out = Linear(width, width)

    def execute(self, x: Var, tap: Tap = no_tap) -> tuple[Var, Var, Var]:
        """(B, T, D) -> (B, T, D), and the queries and keys (B, T, D) for part selection."""
        q, k = tap("query", self.query(x)), tap("key", self.key(x))
        v = tap("value", self.value(x))
        mix = tap("mix", attention(q, k, v, self.heads))
        # jittor: after start_grad, float32 + bfloat16 would give bfloat16
        return to_float32(tap("out", self.out(mix))), q, k


class Mlp(nn.Module):
    """Two linear layers with exact (erf) GELU between them; dropout after each."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.fc2 = Linear(hidden, width)
        self.dropout = Dropout(dropout)

    def execute(self, x: Var, tap: Tap = no_tap) -> Var:
        """(B, T, D) -> (B, T, D)."""
        first = tap("fc1", self.fc1(x))
        # jittor: its own GELU has float32 constants
        hidden, mask = self.dropout.draw(tap("gelu", gelu(first)))
        compute = partial(self.hidden, mask=mask)
        y = tap("fc2", recompute_input(self.fc2, tap("hidden", hidden), compute, first))
        return to_float32(tap("out", self.dropout(y)))  # jittor: as in Attention

    def hidden(self, first: Var, mask: Var | None) -> Var:  # native: for `recompute_input`
        """Input of the second layer: GELU and dropout of the first one's output, (B, T, M)."""
        return self.dropout.apply_mask(gelu(first), mask)


class Block(nn.Module):
    """Pre-norm encoder block (ViT, equations 2 and 3)."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.norm1 = LayerNorm(config.width)
        self.attn = Attention(config.width, config.heads)
        self.norm2 = LayerNorm(config.width)
        self.mlp = Mlp(config.width, config.mlp, config.dropout)

    def execute(self, x: Var, tap: Tap = no_tap) -> tuple[Var, Var, Var]:
        """(B, T, D) -> (B, T, D), and the queries and keys (B, T, D)."""
        normed = tap("norm1", cast_once(self.norm1(x)))
        y, q, k = recompute_input(self.attn, normed, self.norm1, x, under(tap, "attn"))
        x = tap("mid", x + y)
        normed = tap("norm2", cast_once(self.norm2(x)))
        y = recompute_input(self.mlp, normed, self.norm2, x, under(tap, "mlp"))
        return x + y, q, k
