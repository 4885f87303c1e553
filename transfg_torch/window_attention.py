"""Attention within the windows of a map, with a learned bias for each offset.

Source: Liu et al. 2021, Swin Transformer (arXiv 2103.14030), section 3.2 and equation 4;
transfg_core/models/windows.py says which tokens a window holds.
Twin: `transfg_jt/window_attention.py`.

Queries, keys and values lie in the order of the map, row by row, heads side by side.
Shapes: B batch, U tokens of the padded map, D width, K heads, d = D / K; n windows of N tokens; W
rows of the bias table.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from transfg_core.models.windows import Index, Windows
from transfg_torch.attention import at_least_float32

APART = -1e30  # added to scores between regions: their softmax is exactly 0


def index(array: Index, like: Tensor) -> Tensor:  # native: Jittor has one device
    """The array on the device of `like`."""
    return torch.from_numpy(array).to(like.device)


def split_windows(x: Tensor, heads: int, windows: Windows) -> Tensor:
    """(B, U, D) -> (B, n, K, N, d)."""
    order = index(windows.order.reshape(-1), x)
    batch, _, width = x.shape
    x = x[:, order].reshape(batch, windows.count, -1, heads, width // heads)
    return x.transpose(2, 3)


def join_windows(x: Tensor, windows: Windows) -> Tensor:
    """(B, n, K, N, d) -> (B, U, D)."""
    back = index(windows.order.reshape(-1).argsort(), x)
    batch, _, heads, _, head = x.shape
    return x.transpose(2, 3).reshape(batch, -1, heads * head)[:, back]


def score_bias(table: Tensor, windows: Windows) -> Tensor:
    """What is added to the scores: (W, K) -> (n, K, N, N), or (1, K, N, N) if all are equal."""
    size = windows.order.shape[1]
    offsets = index(windows.offsets.reshape(-1), table)
    bias = table[offsets].reshape(size, size, -1).permute(2, 0, 1).unsqueeze(0)
    if windows.shift == (0, 0):
        return bias
    regions = index(windows.regions, table)
    apart = (regions[:, :, None] != regions[:, None, :]).unsqueeze(1)
    return bias + APART * apart


def window_maps(  # native: a number of Python is exact in PyTorch
    q: Tensor, k: Tensor, table: Tensor, windows: Windows
) -> Tensor:
    """softmax(q kᵀ / √d + bias): q, k (B, n, K, N, d), table (W, K) -> (B, n, K, N, N)."""
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    return F.softmax(scores + score_bias(table, windows), dim=-1)


def window_attention(  # native: PyTorch has such an operator
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, windows: Windows
) -> Tensor:
    """softmax(q kᵀ / √d + bias) v per window and head (equation 4).

    q, k, v (B, U, D), table (W, K) -> (B, U, D). A token attends only to tokens of its own window
    and region (`Windows.regions`).
    """
    heads, bias = table.shape[1], score_bias(table, windows).to(q.dtype)
    q, k, v = (split_windows(x, heads, windows) for x in (q, k, v))
    return join_windows(F.scaled_dot_product_attention(q, k, v, attn_mask=bias), windows)


def column_means(  # native: Jittor has no autocast
    q: Tensor, k: Tensor, table: Tensor, windows: Windows
) -> Tensor:
    """Mean attention that each token receives from the tokens of its window, without a gradient.

    q, k (B, U, D), table (W, K) -> (B, K, U), in float32 or float64.
    """
    heads = table.shape[1]
    with torch.no_grad(), torch.autocast(q.device.type, enabled=False):
        q, k = (split_windows(at_least_float32(x), heads, windows) for x in (q, k))
        means = window_maps(q, k, table, windows).mean(-2).unsqueeze(-1)
        return join_windows(means, windows).transpose(1, 2)
