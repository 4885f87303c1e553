"""Results of known mistakes in attention: scale, heads, order of q, k and v, mask.

`attention` is of a module that holds its projections; `fused_attention` of a function of a tap that
holds q, k and v side by side. Letters: T tokens, D width, K heads, d = D / K.
"""

from collections.abc import Callable, Iterator
from itertools import permutations
from typing import NamedTuple

import numpy as np

from parity.diagnose.causes.facts import input_of, operation_of, params_by_end
from parity.diagnose.causes.hypothesis import Absent, Hypothesis, tap_of
from parity.diagnose.causes.pair import Array, Context, Pair
from parity.diagnose.causes.special import softmax


class Mix(NamedTuple):
    """One way to compute attention: split and merge of heads, scale, weights of the values."""

    code: str
    text: str
    split: str = "(K, d)"
    merge: str = "(K, d)"
    scale: str = "1/√d"
    weigh: str = "softmax"
    swap: bool = False


MIXES = (
    Mix("as defined", "attention as defined gives B"),
    Mix("scale", "the scores are scaled by 1/d instead of 1/√d", scale="1/d"),
    Mix("scale", "the scores are not scaled by 1/√d", scale="1"),
    Mix("scale", "the scores are scaled by 1/√D of all heads together", scale="1/√D"),
    Mix("scale", "the scores are scaled by 1/√d after the softmax", weigh="late scale"),
    Mix("softmax axis", "the softmax runs over the queries, not the keys", weigh="columns"),
    Mix("no softmax", "the scores weigh the values without a softmax", weigh="none"),
    Mix("causal", "a causal mask is on", weigh="causal"),
    Mix("swapped", "queries and keys are exchanged", swap=True),
    Mix("heads", "heads are split and merged as (d, K)", split="(d, K)", merge="(d, K)"),
    Mix("heads", "heads are split as (d, K)", split="(d, K)"),
    Mix("heads", "heads are merged as (d, K)", merge="(d, K)"),
    Mix("heads", "heads are split by a reshape that leaves tokens outside", split="view"),
    Mix("heads", "heads are merged without swapping them with the tokens", merge="view"),
    Mix("heads", "heads are split and merged without a swap", split="view", merge="view"),
)


def attend(q: Array, k: Array, v: Array, heads: int, mix: Mix, added: Array | None = None) -> Array:
    """Attention of one image in the way of `mix`: q, k, v, each (T, D) -> (T, D).

    `added` is added to the scores after their scale: (T, T).
    """
    tokens, width = q.shape
    d = width // heads
    q, k, v = (split(x, heads, mix.split) for x in ((k, q, v) if mix.swap else (q, k, v)))
    factor = {"1/√d": d**-0.5, "1/d": 1 / d, "1": 1.0, "1/√D": width**-0.5}[mix.scale]
    scores = q @ k.swapaxes(1, 2)
    if added is not None:
        scores = scores + added / factor
    if mix.weigh == "softmax":
        weights = softmax(scores * factor, axis=-1)
    elif mix.weigh == "columns":
        weights = softmax(scores * factor, axis=-2)
    elif mix.weigh == "causal":
        above = np.triu(np.ones((tokens, tokens), bool), 1)
        weights = softmax(np.where(above, -np.inf, scores * factor), axis=-1)
    elif mix.weigh == "late scale":
        weights = softmax(scores, axis=-1) * factor
    else:
        weights = scores * factor
    mixed = weights @ v
    if mix.merge == "view":
        return np.asarray(mixed.reshape(tokens, width))
    order = (1, 0, 2) if mix.merge == "(K, d)" else (1, 2, 0)
    return np.asarray(mixed.transpose(order).reshape(tokens, width))


def split(x: Array, heads: int, how: str) -> Array:
    """(T, D) -> (K, T, d)."""
    tokens, width = x.shape
    if how == "view":
        return x.reshape(heads, tokens, width // heads)
    if how == "(K, d)":
        return x.reshape(tokens, heads, -1).transpose(1, 0, 2)
    return x.reshape(tokens, -1, heads).transpose(2, 0, 1)


def attention(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """Multi-head attention with its projections, as PyTorch's: query (and key, value, mask)."""
    made, params = operation_of(tap, context), params_by_end(tap, context)
    if not {"in_proj_weight", "weight"} <= params.keys():
        raise Absent("in_proj_weight")
    values = [tap_of(context, name) for name in made.reads]
    tokens = [value for value in values if value.ndim == 3][:3]
    masks = [value for value in values[1:] if value.ndim == 2]
    query, key, value = [*tokens, *tokens[:1] * 2][:3] if len(tokens) != 2 else [*tokens, tokens[1]]
    if not made.settings.get("batch_first", False):
        query, key, value = (x.swapaxes(0, 1) for x in (query, key, value))
    heads, mask = int(made.number("heads", 0)), masks[0] if masks else None
    if heads < 1:
        raise Absent("heads")
    weight, bias = params["in_proj_weight"], params.get("in_proj_bias", np.zeros(1))
    end = params["weight"], params.get("bias", np.zeros(1))

    def result(mix: Mix, order: tuple[int, ...] = (0, 1, 2), added: Array | None = None) -> Array:
        thirds = [np.arange(len(weight)).reshape(3, -1)[place] for place in order]
        added_bias = bias if len(bias) > 1 else np.zeros(len(weight))
        parts = [
            x @ weight[rows].T + added_bias[rows]
            for x, rows in zip((query, key, value), thirds, strict=True)
        ]
        mixed = np.stack(
            [attend(q, k, v, heads, mix, added) for q, k, v in zip(*parts, strict=True)]
        )
        out = mixed @ end[0].T + end[1]
        return out if made.settings.get("batch_first", False) else out.swapaxes(0, 1)

    right, others = masked(mask, lambda added: result(MIXES[0], added=added), pair)
    yield Hypothesis("as defined", MIXES[0].text, result(MIXES[0], added=right))
    for mix in MIXES[1:]:
        yield Hypothesis(mix.code, mix.text, result(mix, added=right))
    yield from orders(lambda order: result(MIXES[0], order, right))
    for text, added in others:
        yield Hypothesis("mask", text, result(MIXES[0], added=added))


def orders(result: Callable[[tuple[int, ...]], Array]) -> Iterator[Hypothesis]:
    """The three parts of a fused matrix in another order."""
    for order in permutations(range(3)):
        if order != (0, 1, 2):
            words = ", ".join("qkv"[place] for place in order)
            text = f"the parts of the fused q, k, v are in another order: {words}"
            yield Hypothesis("qkv order", text, result(order))


def masked(
    mask: Array | None, result: Callable[[Array | None], Array], pair: Pair
) -> tuple[Array | None, list[tuple[str, Array | None]]]:
    """What is added to the scores so that A results, and what mistakes would add.

    A mask of zeros and ones hides where it is one, or where it is zero: whichever gives A.
    """
    if mask is None:
        return None, []
    square = mask.shape[0] == mask.shape[1]
    if set(np.unique(mask)) <= {0.0, 1.0} and mask.any():
        hidden = [np.where(where, -np.inf, 0.0) for where in (mask == 1, mask == 0)]
    else:
        hidden = [mask, -mask]

    def distance(added: Array) -> float:
        with np.errstate(invalid="ignore"):
            gap = float(np.linalg.norm(result(added) - pair.expected))
        return gap if np.isfinite(gap) else np.inf

    right, wrong = sorted(hidden, key=distance)
    others: list[tuple[str, Array | None]] = [
        ("the mask is not applied", None),
        ("the mask has the other sign: what it hides takes part, and the rest not", wrong),
    ]
    if square:
        others.append(("the mask is transposed: queries and keys", right.T))
    ones = np.where(np.isinf(right), -1.0, right)
    return right, [*others, ("the mask is added as a number, not as minus infinity", ones)]


def fused_attention(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """Attention of (B, T, 3 D) -> (B, T, D), whose heads, order and mask are those that give A."""
    x = input_of(tap, context, pair)
    width = x.shape[-1]
    found = next(
        (
            (*each, mask)
            for mask in masks_of(x.shape[1], context)
            for each in layouts(x)
            if near(mixture(each[1], each[0], added=mask), pair)
        ),
        None,
    )
    if found is None:
        raise Absent("heads")
    heads, parts, interleaved, mask = found
    yield Hypothesis("as defined", MIXES[0].text, mixture(parts, heads, added=mask))
    for mix in MIXES[1:]:
        yield Hypothesis(mix.code, mix.text, mixture(parts, heads, mix, mask))
    yield from orders(lambda order: mixture([parts[i] for i in order], heads, added=mask))
    other = next((e for e in layouts(x) if e[0] == heads and e[2] != interleaved), None)
    if other:
        text = (
            "q, k and v are read as (K, 3, d)" if other[2] else "q, k and v are read as (3, K, d)"
        )
        yield Hypothesis("qkv order", text, mixture(other[1], heads, added=mask))
    for count in {heads // 2, heads * 2} - {0}:
        if width // 3 % count == 0:
            text = f"{count} heads instead of {heads}"
            divided = split_fused(x, count, interleaved)
            yield Hypothesis("heads", text, mixture(divided, count, added=mask))
    others = masked(mask, lambda added: mixture(parts, heads, added=added), pair)[1]
    for text, added in others:
        yield Hypothesis("mask", text, mixture(parts, heads, added=added))


def masks_of(tokens: int, context: Context) -> Iterator[Array | None]:
    """What A may add to the scores: nothing, a buffer or parameter (T, T), or a causal mask."""
    yield None
    for value in context.params.values():
        if value.shape[-2:] == (tokens, tokens) and value.size == tokens**2:
            square = value.reshape(tokens, tokens)
            if square.dtype.kind == "f":
                yield square.astype(np.float64)
            else:
                yield np.where(square == 0, -np.inf, 0.0)
                yield np.where(square == 0, 0.0, -np.inf)
    yield np.triu(np.full((tokens, tokens), -np.inf), 1)


def near(value: Array, pair: Pair) -> bool:
    """Whether a value is A up to rounding of float32."""
    if value.shape != pair.expected.shape:
        return False
    return float(np.linalg.norm(value - pair.expected)) <= 1e-4 * pair.size


def layouts(x: Array) -> Iterator[tuple[int, list[Array], bool]]:
    """Every number of heads, with q, k, v side by side, or side by side within each head."""
    width = x.shape[-1] // 3
    for heads in range(1, width // 2 + 1):
        if width % heads == 0:
            for interleaved in (False, True)[: 1 + (heads > 1)]:
                yield heads, split_fused(x, heads, interleaved), interleaved


def split_fused(x: Array, heads: int, interleaved: bool) -> list[Array]:
    """(B, T, 3 D) -> q, k, v, each (B, T, D) with the heads side by side."""
    batch, tokens, width = x.shape
    if not interleaved:
        return [np.asarray(part) for part in np.split(x, 3, axis=-1)]
    grid = x.reshape(batch, tokens, heads, 3, -1)
    return [grid[:, :, :, place].reshape(batch, tokens, -1) for place in range(3)]


def mixture(
    parts: list[Array], heads: int, mix: Mix = MIXES[0], added: Array | None = None
) -> Array:
    """Attention of whole batches: q, k, v, each (B, T, D) -> (B, T, D)."""
    images = zip(*parts, strict=True)
    with np.errstate(invalid="ignore"):
        return np.stack([attend(q, k, v, heads, mix, added) for q, k, v in images])
