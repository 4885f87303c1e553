"""The part selection module, and attention rollout, in PyTorch.

Source: He et al. 2022, TransFG (arXiv 2103.07976), section 3.2. Where the paper and its published
program differ, this follows the program (docs/spec.md, "Part selection").
Twin: `transfg_jt/models/parts.py`.

Shapes: B batch, T tokens, D width, K heads, N = T - 1 patches.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from transfg_torch.attention import cls_scores, propagate
from transfg_torch.models.taps import Tap, no_tap


def fuse_rows(
    queries: list[Tensor], keys: list[Tensor], heads: int, fusion: str, tap: Tap = no_tap
) -> Tensor:
    """Row 0 of the fused attention maps, without its own column: (B, K, N).

    A_l = softmax(q_l k_lᵀ / √d). `matmul` is row 0 of A_n ··· A_1 A_0: the row is multiplied by one
    map after the other, so that no product of two maps is formed. `mul` is the elementwise product,
    as a sum of logarithms because the product underflows; `add` is the sum; `lastlayer` is A_n.
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
    """Attention rollout of the class token, for plots: (B, N).

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
    """Index of the first maximum per head; the class token has index 0: (B, K, N) -> (B, K).

    Several heads may select the same token; the heads stay in order (TransFG, equation 8).
    """
    return scores.argmax(dim=-1) + 1


def gather_tokens(x: Tensor, index: Tensor) -> Tensor:
    """The class token, then the tokens at index: (B, T, D) and (B, K) -> (B, 1 + K, D)."""
    parts = x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
    return torch.cat([x[:, :1], parts], dim=1)
