"""Attention within the windows of a map, with a learned bias for each offset.

Source: Liu et al. 2021, Swin Transformer (arXiv 2103.14030), section 3.2 and equation 4;
transfg_core/models/windows.py says which tokens a window holds.
Twin: `transfg_jt/window_attention.py`.

Queries, keys and values lie in the order of the map, row by row, heads side by side.
Shapes: B batch, U tokens of the padded map, D width, K heads, d = D / K; n windows of N tokens; W
rows of the bias table.
"""

from collections.abc import Iterator
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from transfg_core.models.windows import Windows
from transfg_torch.attention import at_least_float32

APART = -1e30  # added to scores between regions: their softmax is exactly 0
# Maps of the backward pass in memory at a time
CPU_BYTES = 2**22  # native: they fit into caches
CUDA_BYTES = 2**26  # native: they fill a device


class WindowIndex(NamedTuple):  # native: Jittor's operator reads tokens where they are
    """Indices of windows on one device."""

    split: Tensor  # (n K N,): the rows (token, head) of a map, window by window
    join: Tensor  # (U K,): back
    offsets: Tensor  # (N N,): rows of the bias table
    apart: Tensor | None  # (n, 1, N, N): APART between regions, 0 within; None if all are one


@lru_cache(maxsize=32)  # a model has at most eight for each size of image
def window_index(  # native: for WindowIndex
    windows: Windows, heads: int, device: torch.device
) -> WindowIndex:
    """The indices, computed once for each block of a model."""
    order, regions = windows.order, windows.regions
    split = (order[:, None] * heads + np.arange(heads)[:, None]).reshape(-1)
    apart = None
    if windows.shift != (0, 0):
        between = regions[:, None, :, None] != regions[:, None, None, :]
        apart = torch.from_numpy(np.float32(APART) * between).to(device)
    indices = (split, split.argsort(), windows.offsets.reshape(-1))
    return WindowIndex(*(torch.from_numpy(index).to(device) for index in indices), apart)


def split_windows(x: Tensor, heads: int, windows: Windows) -> Tensor:  # native: for WindowIndex
    """(B, U, D) -> (B, n, K, N, d), without a gradient."""
    batch, tokens, width = x.shape
    index = window_index(windows, heads, x.device).split
    rows = x.reshape(batch, tokens * heads, -1).index_select(1, index)
    return rows.view(batch, windows.count, heads, -1, width // heads)


def join_windows(x: Tensor, windows: Windows) -> Tensor:  # native: for WindowIndex
    """(B, n, K, N, d) -> (B, U, D), without a gradient."""
    batch, count, heads, size, head = x.shape
    rows = x.reshape(batch, -1, head).index_select(1, window_index(windows, heads, x.device).join)
    return rows.view(batch, count * size, heads * head)


def score_bias(table: Tensor, windows: Windows) -> Tensor:  # native: for WindowIndex
    """What is added to the scores: (W, K) -> (n, K, N, N), or (1, K, N, N) if all are equal."""
    index, size = window_index(windows, table.shape[1], table.device), prod(windows.sides)
    bias = table[index.offsets].t().reshape(1, -1, size, size)
    return bias if index.apart is None else bias + index.apart.to(table.dtype)


def chunks(x: Tensor) -> Iterator[tuple[slice, slice]]:  # native: Jittor's operator has threads
    """Images and windows of (B, n, K, N, d) whose maps take CPU_BYTES or CUDA_BYTES."""
    images, count, heads, size, _ = x.shape
    limit = CUDA_BYTES if x.is_cuda else CPU_BYTES
    windows = max(1, limit // (heads * size * size * 4))
    step, part = max(1, windows // count), min(windows, count)
    for image in range(0, images, step):
        for first in range(0, count, part):
            yield slice(image, image + step), slice(first, first + part)


def window_maps(q: Tensor, k: Tensor, bias: Tensor) -> Tensor:  # native: a product in place
    """softmax(q kᵀ / √d + bias) of b images.

    q, k (b, n, K, N, d), bias (n or 1, K, N, N) -> (b, n, K, N, N).
    """
    size, head = q.shape[-2:]
    scores = bias.expand(*q.shape[:3], size, size).clone(memory_format=torch.contiguous_format)
    keys = k.reshape(-1, size, head).transpose(1, 2)
    scores.view(-1, size, size).baddbmm_(q.reshape(-1, size, head), keys, alpha=head**-0.5)
    return torch.softmax(scores, -1, out=scores)


class RecomputedMaps(torch.autograd.Function):  # native: Jittor's operator is in C++
    """Window attention, which saves queries, keys and values and recomputes maps.

    PyTorch's fused attention gives no gradient of the bias on the CPU, and where one is asked for,
    it stores the maps.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, table: Tensor, windows: Windows
    ) -> Tensor:
        heads = table.shape[1]
        q, k, v = (split_windows(x, heads, windows) for x in (q, k, v))
        ctx.save_for_backward(q, k, v, table)
        ctx.windows = windows
        bias = score_bias(table, windows).to(q.dtype)
        if len(bias) == 1:  # windows are a batch, or else more heads
            inputs = [x.flatten(0, 1) for x in (q, k, v)]
        else:
            inputs, bias = [x.flatten(1, 2) for x in (q, k, v)], bias.flatten(0, 1).unsqueeze(0)
        out = F.scaled_dot_product_attention(*inputs, attn_mask=bias)
        return join_windows(out.reshape(q.shape), windows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, table = ctx.saved_tensors
        windows, heads, size = ctx.windows, table.shape[1], q.shape[-2]
        grad = split_windows(grad, heads, windows)
        grads = [torch.empty_like(x) for x in (q, k, v)]
        bias = score_bias(at_least_float32(table), windows)
        by_bias = torch.zeros_like(bias[0])
        for images, part in chunks(q):
            inputs = [at_least_float32(x[images, part]) for x in (q, k, v, grad)]
            maps = window_maps(*inputs[:2], bias if len(bias) == 1 else bias[part])
            *parts, by_scores = attention_gradients(*inputs, maps)
            by_bias += by_scores.sum((0, 1))
            for whole, value in zip(grads, parts, strict=True):
                whole[images, part] = value
        offsets = window_index(windows, heads, q.device).offsets
        rows = by_bias.reshape(heads, size * size).t().to(table.dtype)
        by_table = torch.zeros_like(table).index_add_(0, offsets, rows)
        return (*(join_windows(x, windows) for x in grads), by_table, None)


def attention_gradients(  # native: for RecomputedMaps
    q: Tensor, k: Tensor, v: Tensor, grad: Tensor, maps: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of q, k, v (b, n, K, N, d) and of the scores, from that of the result.

    With P the maps: dv = Pᵀ g, dP = g vᵀ, dS = P (dP - Σ_j dP P), dq = dS k / √d, dk = dSᵀ q / √d.
    """
    shape, scale = q.shape, q.shape[-1] ** -0.5
    q, k, v, grad = (x.reshape(-1, *shape[-2:]) for x in (q, k, v, grad))
    p = maps.view(len(q), shape[-2], shape[-2])
    by_v = torch.bmm(p.transpose(1, 2), grad)
    by_map = torch.bmm(grad, v.transpose(1, 2))
    by_scores = torch._softmax_backward_data(by_map, p, -1, p.dtype)
    by_q = torch.bmm(by_scores, k).mul_(scale)
    by_k = torch.bmm(by_scores.transpose(1, 2), q).mul_(scale)
    return (*(x.view(shape) for x in (by_q, by_k, by_v)), by_scores.view(maps.shape))


def window_attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor, windows: Windows) -> Tensor:
    """softmax(q kᵀ / √d + bias) v per window and head (equation 4); stores no map.

    q, k, v (B, U, D), table (W, K) -> (B, U, D). A token attends only to tokens of its own window
    and region (`Windows.regions`).
    """
    return RecomputedMaps.apply(q, k, v, table, windows)  # torch: see above


def column_means(  # native: Jittor's operator is in C++
    q: Tensor, k: Tensor, table: Tensor, windows: Windows
) -> Tensor:
    """Mean attention that each token receives from the tokens of its window, without a gradient.

    q, k (B, U, D), table (W, K) -> (B, K, U), in float32 or float64.
    """
    heads = table.shape[1]
    with torch.no_grad(), torch.autocast(q.device.type, enabled=False):
        q, k = (at_least_float32(split_windows(x, heads, windows)) for x in (q, k))
        bias = score_bias(table, windows)
        if torch.compiler.is_compiling():  # a traced graph is for batches of any size
            maps = torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5 + bias, -1)
            return join_windows(maps.mean(-2).unsqueeze(-1), windows).transpose(1, 2)
        means = q.new_empty(*q.shape[:-1], 1)
        for images, part in chunks(q):
            own = bias if len(bias) == 1 else bias[part]
            maps = window_maps(q[images, part], k[images, part], own)
            means[images, part] = maps.mean(-2).unsqueeze(-1)
        return join_windows(means, windows).transpose(1, 2)
