"""Results of known mistakes in attention, and in the handling of tokens.

The form of the functions and the letters are those of `operations.py`.
"""

from collections.abc import Iterator

import numpy as np

from parity.diagnose.causes.attention import MIXES, attend
from parity.diagnose.causes.hypothesis import Absent, Hypothesis, tap_of
from parity.diagnose.causes.pair import Context, Pair
from parity.suite.causes.operations import input_of, params_of, row_of


def attention_mix(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """softmax(q kᵀ / √d) v, heads side by side."""
    q, k, v = (tap_of(context, name) for name in row_of(tap, context).reads)
    if context.heads is None:
        raise Absent("heads")
    for mix in MIXES:  # one image at a time, since each needs K maps of T x T
        images = [attend(*image, context.heads, mix) for image in zip(q, k, v, strict=True)]
        yield Hypothesis(mix.code, mix.text, np.stack(images))


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
