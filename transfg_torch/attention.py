"""Attention of the Vision Transformer, and single rows of its maps for part selection.

Source: Dosovitskiy et al. 2021 (arXiv 2010.11929), equations 5 to 8; He et al. 2022 (arXiv
2103.07976), section 3.2. Twin: `transfg_jt/attention.py`.

Queries, keys and values stay in the layout of the linear layers, (B, T, D), heads side by side.
Shapes: B batch, T tokens, D width, K heads, d = D / K.
"""

import functools
import importlib
import warnings
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = 128  # rows of a T x T map in memory at a time: they fit into the processor's cache


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision becomes float32; float32 and float64 stay: any shape."""
    return x if x.dtype == torch.float64 else x.float()


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, D) -> (B, K, T, d)."""
    batch, tokens, width = x.shape
    return x.reshape(batch, tokens, heads, width // heads).transpose(1, 2)


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """softmax(q kᵀ / √d) v per head; stores no T x T map: q, k, v (B, T, D) -> (B, T, D)."""
    # torch block for 1 line: Jittor has no such operator
    q, k, v = split_heads(q, heads), split_heads(k, heads), split_heads(v, heads)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def cls_scores(q: Tensor, k: Tensor, heads: int) -> Tensor:
    """Scores of the class token before the softmax, row 0 of q kᵀ / √d, in float32 or float64.

    q, k (B, T, D) -> (B, K, T).
    """
    q, k = (split_heads(at_least_float32(x), heads) for x in (q, k))
    return (q[:, :, :1] * k).sum(-1) * q.shape[-1] ** -0.5


@functools.cache
def row_kernel(dtype: torch.dtype, head: int) -> ModuleType | None:  # native: written in Triton
    """The kernels for CUDA, or None if they do not run; tried once for each type and head width.

    Triton comes with PyTorch for CUDA, and needs a C compiler and Python's headers.
    """
    try:
        kernel = importlib.import_module("transfg_torch.ops.row_kernel")
        if not kernel.fits(dtype, head):
            return None
        tokens = torch.ones(1, 2, head, dtype=dtype, device="cuda")
        kernel.propagate_row(torch.ones(1, 1, 2, device="cuda"), tokens, tokens)
    except Exception as error:  # any error: the plain formula gives the same result
        reason = str(error).strip().partition("\n")[0]
        warnings.warn(
            "part selection: Triton does not run here, so the slower plain formula is used: "
            f"{reason}",
            stacklevel=2,
        )
        return None
    return kernel


def propagate(row: Tensor, q: Tensor, k: Tensor, heads: int) -> Tensor:  # native: Jittor has C++
    """row · softmax(q kᵀ / √d) per head: row (B, K, T); q, k (B, T, D) -> (B, K, T)."""
    head = q.shape[-1] // heads
    kernel = row_kernel(q.dtype, head) if row.is_cuda else None
    if kernel:
        return kernel.propagate_row(row, q, k)
    q, k = split_heads(q, heads), split_heads(k, heads)
    q, products = q * q.shape[-1] ** -0.5, []
    whole = q.device.type != "cpu"
    rows = q.shape[2] if whole else ROWS
    # a traced graph is for batches of any size
    single = not whole and not torch.compiler.is_compiling()
    groups = [slice(i, i + 1) for i in range(q.shape[0])] if single else [slice(None)]
    for group in groups:
        parts = []
        for start in range(0, q.shape[2], rows):
            block = slice(start, start + rows)
            scores = q[group, :, block] @ k[group].transpose(-2, -1)
            # the sum over rows is in float32 for every type of the products
            with torch.autocast(q.device.type, enabled=False):
                probabilities = F.softmax(scores.to(row.dtype), dim=-1)
                parts.append(row[group, :, block].unsqueeze(-2) @ probabilities)
        products.append(sum(parts))
    return torch.cat(products).squeeze(-2)
