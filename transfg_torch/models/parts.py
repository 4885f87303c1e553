"""The part selection module, other selections, and attention rollout, in PyTorch.

Source: He et al. 2022, TransFG (arXiv 2103.07976), section 3.2. Where the paper and its published
program differ, this follows the program (docs/spec.md, "Part selection"). Other selections name
their source. Twin: `transfg_jt/models/parts.py`.

Shapes: B batch, T tokens, D width, K heads, N = T - 1 patches, J rows of scores, S selected tokens.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from transfg_torch.attention import at_least_float32, cls_scores, propagate
from transfg_torch.models.taps import Tap, no_tap

CHOSEN = -2.0  # score of a chosen patch: below every cosine and every product of probabilities


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


def mutual_scores(q: Tensor, k: Tensor, heads: int) -> Tensor:
    """How much class token and patch attend to each other: q, k (B, T, D) -> (B, N).

    With S = q kᵀ / √d: mean over heads of softmax(S[0, :])[j], times that of softmax(S[:, 0])[j].
    Only row 0 and column 0 of S are computed. Source: Wang et al. 2021, FFVT (arXiv 2107.02341),
    mutual attention weight selection; the means are taken first, as in its published program.
    """
    row = F.softmax(cls_scores(q, k, heads), dim=-1).mean(1)
    column = F.softmax(cls_scores(k, q, heads), dim=-1).mean(1)
    return (row * column)[:, 1:]


def class_similarity(x: Tensor) -> Tensor:
    """Cosine of the class token and each patch, after the norm: (B, T, D) -> (B, 1, N).

    Source: Rios et al. 2024, GLSim (arXiv 2407.12891), global-local similarity.
    """
    z = F.normalize(at_least_float32(x), dim=-1)
    return (z[:, :1] * z[:, 1:]).sum(-1).unsqueeze(1)


def select_parts(scores: Tensor, count: int = 1) -> Tensor:
    """Indices of the `count` largest scores of each row, largest first: (B, J, N) -> (B, J count).

    The class token has index 0. Of equal scores the first is selected. Several rows, such as heads,
    may select the same token; the rows stay in order (TransFG, equation 8).
    """
    chosen = [scores.argmax(dim=-1)]
    patches = torch.arange(scores.shape[-1], device=scores.device)
    # in rounds, since Jittor's sort is not stable
    while len(chosen) < count:
        scores = scores.masked_fill(patches == chosen[-1].unsqueeze(-1), CHOSEN)
        chosen.append(scores.argmax(dim=-1))
    return torch.stack(chosen, dim=-1).flatten(1) + 1


def gather_tokens(layers: list[Tensor], index: Tensor) -> Tensor:
    """The last layer's class token, then the tokens at index: layers of (B, T, D) -> (B, 1 + S, D).

    The parts (B, S) come in equal shares from the layers, in order.
    """
    tokens, share = [layers[-1][:, :1]], index.shape[1] // len(layers)
    for place, x in enumerate(layers):
        part = index[:, place * share : (place + 1) * share]
        tokens.append(x.gather(1, part.unsqueeze(-1).expand(-1, -1, x.shape[-1])))
    return torch.cat(tokens, dim=1)
