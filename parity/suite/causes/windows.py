"""Results of known mistakes in window attention and in the merging of patches (Swin Transformer).

The form of the functions and the letters are those of `operations.py`; U tokens of the padded map,
n windows of N tokens.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from scipy.special import softmax

from parity.diagnose.causes.hypothesis import Absent, Hypothesis, tap_of
from parity.diagnose.causes.pair import Array, Context, Pair
from parity.suite.causes.context import of_suite
from parity.suite.causes.operations import input_of, params_of, row_of
from transfg_core.config.swin import SwinConfig
from transfg_core.models.swin import map_sizes, windows_of
from transfg_core.models.windows import Windows


def swin_of(context: Context) -> tuple[SwinConfig, tuple[int, int]]:
    """The model and its image size."""
    suite = of_suite(context)
    if not isinstance(suite.model, SwinConfig) or suite.image_size is None:
        raise Absent("the model")
    return suite.model, suite.image_size


def windows_at(tap: str, context: Context) -> Windows:
    """The windows of a tap's block: stage1_block03.attn.mix -> those of stages.1.blocks.3."""
    match = re.match(r"stage(\d)_block(\d+)\.", tap)
    if match is None:
        raise Absent(tap)
    return windows_of(*swin_of(context), int(match[1]), int(match[2]))


def window_attention(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """softmax(q kᵀ / √d + bias) v within windows, heads side by side."""
    windows = windows_at(tap, context)
    q, k, v = (tap_of(context, name) for name in row_of(tap, context).reads)
    (table,) = params_of(tap, context)
    order, regions = windows.order, windows.regions
    bias = table[windows.offsets].transpose(2, 0, 1)
    side = 2 * windows.window - 1
    turned = table.reshape(side, side, -1).swapaxes(0, 1).reshape(table.shape)
    whole = np.zeros_like(regions)

    def mix(q: Array = q, k: Array = k, order: Array = order, **more: Array) -> Array:
        settings = {"bias": bias, "regions": regions, "back": order} | more
        return crop(attend(q, k, v, table.shape[1], order, **settings), windows)

    yield Hypothesis("as defined", "window attention as defined gives B", mix())
    if windows.shift != (0, 0):
        still = replace(windows, shifted=False).order
        back = other_way(windows)
        yield Hypothesis("mask", "the mask between regions is missing", mix(regions=whole))
        text = "the windows are not shifted"
        yield Hypothesis("shift", text, mix(order=still, regions=whole, back=still))
        text = "the windows are shifted the other way: up and to the left"
        yield Hypothesis("shift", text, mix(order=back, back=back))
        yield Hypothesis("shift", "the shift of the windows is not undone", mix(back=still))
    for code, text, other in (
        ("no bias", "the bias of the offsets is not added", 0 * bias),
        ("bias", "the bias is that from query to key, not from key to query", bias.swapaxes(1, 2)),
        ("bias", "rows and columns of the bias table are exchanged", None),
        ("bias", "the bias is scaled by 1/√d like the scores", bias * head_width(q, table) ** -0.5),
    ):
        value = turned[windows.offsets].transpose(2, 0, 1) if other is None else other
        yield Hypothesis(code, text, mix(bias=value))
    yield Hypothesis("swapped", "queries and keys are exchanged", mix(q=k, k=q))
    d = head_width(q, table)
    for text, factor in (("1/d instead of 1/√d", d**-0.5), ("nothing, not by 1/√d", d**0.5)):
        yield Hypothesis("scale", f"the scores are scaled by {text}", mix(q=q * factor))


def head_width(x: Array, table: Array) -> int:
    """d, from (B, U, D) and a bias table (W, K)."""
    return int(x.shape[-1] // table.shape[1])


def other_way(windows: Windows) -> Array:
    """The tokens of windows that are shifted up and to the left: (n, N)."""
    (rows, columns), (down, right) = windows.padded, windows.shift
    row, column = windows.order // columns, windows.order % columns
    return np.asarray((row - 2 * down) % rows * columns + (column - 2 * right) % columns)


def attend(
    q: Array,
    k: Array,
    v: Array,
    heads: int,
    order: Array,
    bias: Array,
    regions: Array,
    back: Array,
) -> Array:
    """Attention within the tokens at `order` (n, N), put at `back`: (B, U, D) -> (B, U, D)."""
    d = q.shape[-1] // heads
    q, k, v = (
        x[:, order].reshape(len(x), *order.shape, heads, d).swapaxes(2, 3) for x in (q, k, v)
    )  # (B, n, K, N, d)
    scores = q @ k.swapaxes(-2, -1) * d**-0.5 + bias
    together = regions[:, None, :, None] == regions[:, None, None, :]
    maps = softmax(np.where(together, scores, -np.inf), axis=-1)
    mixed = (maps @ v).swapaxes(2, 3).reshape(len(q), order.size, heads * d)
    result: Array = np.empty_like(mixed)
    result[:, back.reshape(-1)] = mixed
    return result


def crop(x: Array, windows: Windows) -> Array:
    """The map without its padding: (B, U, D) -> (B, T, D)."""
    grid = x.reshape(len(x), *windows.padded, -1)[:, : windows.rows, : windows.columns]
    return np.asarray(grid.reshape(len(x), windows.rows * windows.columns, -1))


def merging(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """Four tokens of a patch side by side; of a patch, the first column comes first."""
    x, (model, size) = input_of(tap, context), swin_of(context)
    rows, columns = map_sizes(size, model)[int(tap.removeprefix("merging")[0])]
    grid = x.reshape(len(x), rows, columns, -1)
    grid = np.pad(grid, ((0, 0), (0, rows % 2), (0, columns % 2), (0, 0)))
    corners = {(r, c): grid[:, r::2, c::2] for r in (0, 1) for c in (0, 1)}

    def merged(*order: tuple[int, int]) -> Array:
        patches = np.concatenate([corners[place] for place in order], axis=-1)
        return np.asarray(patches.reshape(len(x), -1, 4 * x.shape[-1]))

    by_column = merged((0, 0), (1, 0), (0, 1), (1, 1))
    yield Hypothesis("as defined", "the merging of patches as defined gives B", by_column)
    by_row = merged((0, 0), (0, 1), (1, 0), (1, 1))
    yield Hypothesis("order", "the tokens of a patch are merged row by row", by_row)
    stacked = np.stack(list(corners.values()), axis=-1)
    text = "the channels of a patch are interleaved, not side by side"
    yield Hypothesis("order", text, stacked.reshape(by_column.shape))


def mean_over_tokens(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """The mean over tokens: (B, T, D) -> (B, D)."""
    x = input_of(tap, context)
    yield Hypothesis("as defined", "the mean over tokens gives B", x.mean(1))
    yield Hypothesis("pooling", "the sum over tokens, not the mean", x.sum(1))
    yield Hypothesis("pooling", "the largest over tokens, not the mean", x.max(1))
    yield Hypothesis("pooling", "the first token alone", x[:, 0])
