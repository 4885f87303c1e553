"""Results of known mistakes in attention, and in the handling of tokens.

The form of the functions and the letters are those of `operations.py`.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from parity.diagnose.causes.hypothesis import Absent, Hypothesis, tap_of
from parity.diagnose.causes.pair import Array, Context, Pair
from parity.suite.causes.operations import input_of, params_of, row_of


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


def attention_mix(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """softmax(q kᵀ / √d) v, heads side by side."""
    q, k, v = (tap_of(context, name) for name in row_of(tap, context).reads)
    if context.heads is None:
        raise Absent("heads")
    for mix in MIXES:  # one image at a time, since each needs K maps of T x T
        images = [attend(*image, context.heads, mix) for image in zip(q, k, v, strict=True)]
        yield Hypothesis(mix.code, mix.text, np.stack(images))


def attend(q: Array, k: Array, v: Array, heads: int, mix: Mix) -> Array:
    """Attention of one image in the way of `mix`: q, k, v, each (T, D) -> (T, D)."""
    tokens, width = q.shape
    d = width // heads
    q, k, v = (split(x, heads, mix.split) for x in ((k, q, v) if mix.swap else (q, k, v)))
    factor = {"1/√d": d**-0.5, "1/d": 1 / d, "1": 1.0, "1/√D": width**-0.5}[mix.scale]
    scores = q @ k.swapaxes(1, 2)
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


def tokens(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """The class token before the patches, plus the position embedding."""
    x = input_of(tap, context)
    cls, pos = params_of(tap, context)
    cls = np.broadcast_to(cls, (len(x), 1, x.shape[-1]))
    first, last = np.concatenate([cls, x], axis=1), np.concatenate([x, cls], axis=1)
    if first.shape[1] != pos.shape[1]:
        return
    yield Hypothesis("as defined", "class token and position embedding as defined", first + pos)
    yield Hypothesis("no position", "the position embedding is not added", first)
    yield Hypothesis("class token", "the class token is last, its position too", last + pos)
    text = "the class token is last, its position is first"
    yield Hypothesis("class token", text, last + np.roll(pos, -1, axis=1))
    without = np.concatenate([cls, x + pos[:, 1:]], axis=1)
    yield Hypothesis("no position", "the class token gets no position", without)
    without = np.concatenate([0 * cls, x], axis=1) + pos
    yield Hypothesis("class token", "the class token is zero: not loaded", without)


def residual(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """A residual sum of a block: its input plus attention, or this sum plus the MLP."""
    base, branch, *others = (tap_of(context, name) for name in row_of(tap, context).reads)
    yield Hypothesis("as defined", "the residual sum as defined gives B", base + branch)
    yield Hypothesis("no residual", "the residual is not added", branch)
    yield Hypothesis("no branch", "the branch is not added: the residual alone", base)
    texts = (
        "the residual is taken after the layer norm, not before",
        "the residual is the block's input, without its attention",
    )
    for text, value in zip(texts, others, strict=False):
        yield Hypothesis("residual", text, value + branch)
