"""A row times an attention map on CUDA without storing the map, in two Triton kernels.

The first computes the log-sum-exp of each query's scores, like the forward pass of fused attention
(Dao et al. 2022, arXiv 2205.14135, section 3.1). The second sums the products for each key.
Products of half precision are summed in float32 and stay in float32. In Jittor this is one of the
operators of `transfg_jt/ops/cuda.py`, so this file has no twin.

Shapes: B batch, T tokens, D width, K heads, d = D / K.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 64  # queries or keys of a tile
HEAD_WIDTHS = (16, 32, 64, 128)  # Triton multiplies tiles whose sizes are powers of two


@triton.jit
def load_tokens(pointer, start, tokens, count, width, head: tl.constexpr):
    """One head's rows of a (B, T, D) array for some tokens; zeros after the last token."""
    inside = tl.arange(0, head)
    where = start + tokens[:, None] * width + inside[None, :]
    return tl.load(pointer + where, mask=tokens[:, None] < count, other=0.0)


@triton.jit
def score(q, k, scale, keys, count, precision: tl.constexpr):
    """A tile of scores in units of log 2; minus infinity after the last key."""
    scores = tl.dot(q, tl.trans(k), input_precision=precision) * scale
    return tl.where(keys[None, :] < count, scores, float("-inf"))


@triton.jit
def sum_over_keys(
    q_ptr, k_ptr, lse_ptr, count, width, heads, scale,
    head: tl.constexpr, block: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """log2 of the sum over keys of 2^score, for a block of queries of one image and head."""
    pair = tl.program_id(1).to(tl.int64)
    start = (pair // heads) * count * width + (pair % heads) * head
    queries = tl.program_id(0) * block + tl.arange(0, block)
    q = load_tokens(q_ptr, start, queries, count, width, head)
    top = tl.full([block], float("-inf"), tl.float32)
    total = tl.zeros([block], tl.float32)
    for first in range(0, count, block):
        keys = first + tl.arange(0, block)
        k = load_tokens(k_ptr, start, keys, count, width, head)
        scores = score(q, k, scale, keys, count, precision)
        higher = tl.maximum(top, tl.max(scores, 1))
        total = total * tl.exp2(top - higher) + tl.sum(tl.exp2(scores - higher[:, None]), 1)
        top = higher
    tl.store(lse_ptr + pair * count + queries, top + tl.log2(total), mask=queries < count)


@triton.jit
def sum_over_queries(
    q_ptr, k_ptr, lse_ptr, row_ptr, out_ptr, count, width, heads, scale,
    head: tl.constexpr, block: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """Sum over queries i of row_i 2^(score_ij - lse_i), for a block of keys."""
    pair = tl.program_id(1).to(tl.int64)
    start = (pair // heads) * count * width + (pair % heads) * head
    keys = tl.program_id(0) * block + tl.arange(0, block)
    k = load_tokens(k_ptr, start, keys, count, width, head)
    total = tl.zeros([block], tl.float32)
    for first in range(0, count, block):
        queries = first + tl.arange(0, block)
        q = load_tokens(q_ptr, start, queries, count, width, head)
        there = queries < count
        lse = tl.load(lse_ptr + pair * count + queries, mask=there, other=float("inf"))
        row = tl.load(row_ptr + pair * count + queries, mask=there, other=0.0)
        scores = score(q, k, scale, keys, count, precision)
        total += tl.sum(tl.exp2(scores - lse[:, None]) * row[:, None], 0)
    tl.store(out_ptr + pair * count + keys, total, mask=keys < count)


def fits(dtype: torch.dtype, head: int) -> bool:
    """Whether the kernels support queries and keys of this type and head width."""
    return dtype != torch.float64 and head in HEAD_WIDTHS


def propagate_row(row: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """row · softmax(q kᵀ / √d) per head: row (B, K, T); q, k (B, T, D) -> (B, K, T)."""
    row, q, k = row.contiguous(), q.contiguous(), k.contiguous()
    batch, heads, count = row.shape
    width = q.shape[-1]
    head = width // heads
    tf32 = q.dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32
    grid = (triton.cdiv(count, BLOCK), batch * heads)
    numbers = (count, width, heads, math.log2(math.e) / math.sqrt(head))
    sizes = {"head": head, "block": BLOCK, "precision": "tf32" if tf32 else "ieee"}
    lse, out = torch.empty_like(row), torch.empty_like(row)
    sum_over_keys[grid](q, k, lse, *numbers, **sizes)
    sum_over_queries[grid](q, k, lse, row, out, *numbers, **sizes)
    return out
