"""Results of known mistakes in SwinFC's modules on the maps of several stages.

The form of the functions is that of `operations.py`.
"""

from collections.abc import Callable, Iterator

import numpy as np
from scipy.special import softmax

from parity.diagnose.causes.hypothesis import Hypothesis, tap_of
from parity.diagnose.causes.pair import Array, Context, Pair
from parity.suite.causes.operations import input_of, params_of, row_of


def fusion(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """The mean over a map's positions of what it has and of what it lacks of the other maps."""
    own, *others = (lines_of(tap_of(context, name)) for name in row_of(tap, context).reads)
    cosine = not nearer(pair, fused(own, others), fused(own, others, cosine=True))

    yield Hypothesis("as defined", "the fusion as defined gives B", fused(own, others, cosine))
    text = "the softmax runs over the map's own positions, not the other's"
    yield Hypothesis("softmax axis", text, fused(own, others, cosine, axis=1))
    yield Hypothesis(
        "sign",
        "the softmax is of M, not of -M: what the maps share",
        fused(own, others, cosine, sign=1.0),
    )
    yield Hypothesis("left out", "nothing is added from the other maps", own.mean(1))
    text = "the map gets its own columns, with the weights for the other maps"
    yield Hypothesis("exchanged", text, fused(own, others, cosine, exchanged=True))
    other = fused(own, others, cosine=not cosine)
    yield Hypothesis("similarity", "columns are compared in the other way", other)


def lines_of(x: Array) -> Array:
    """(B, F, H, W) -> (B, N, F)."""
    return x.reshape(*x.shape[:2], -1).swapaxes(1, 2)


def nearer(pair: Pair, first: Array, second: Array) -> bool:
    """Whether the first hypothesis is nearer to A than the second."""
    gaps = [float(np.linalg.norm(pair.expected - value)) for value in (first, second)]
    return gaps[0] <= gaps[1]


def fused(
    own: Array,
    others: list[Array],
    cosine: bool = False,
    sign: float = -1.0,
    axis: int = 2,
    exchanged: bool = False,
) -> Array:
    """The fusion of a map (B, N, F) with others (B, S, F), or one with a mistake: (B, F)."""
    total = own.mean(1)
    for other in others:
        products = own @ other.swapaxes(1, 2)
        if cosine:
            lengths = [np.linalg.norm(x, axis=2).clip(1e-12) for x in (own, other)]
            products *= own.shape[2] ** 0.5 / (lengths[0][:, :, None] * lengths[1][:, None])
        if exchanged:
            weights, columns = softmax(sign * products, axis=1).mean(2), own
        else:
            weights, columns = softmax(sign * products, axis=axis).mean(1), other
        total = total + np.einsum("bs,bsf->bf", weights, columns)
    return np.asarray(total)


def softmax_over(axis: int) -> Callable[[str, Context, Pair], Iterator[Hypothesis]]:
    """The hypotheses of a softmax over one axis of (B, F, H, W)."""

    def hypotheses(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
        x = input_of(tap, context)
        yield Hypothesis("as defined", "the softmax as defined gives B", softmax(x, axis=axis))
        for wrong, name in ((0, "images"), (1, "channels"), (5 - axis, "the other side")):
            text = f"the softmax runs over {name}"
            yield Hypothesis("softmax axis", text, softmax(x, axis=wrong))
        yield Hypothesis("no softmax", "there is no softmax", x)

    return hypotheses


def memories(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """A map in one line (B, F, N, 1), plus what the memories write to it."""
    x, read = input_of(tap, context), input_of(tap, context, 1)
    (weight,) = params_of(tap, context)
    x = x.reshape(pair.expected.shape)
    written = np.einsum("fm,bmno->bfno", weight[:, :, 0, 0], read)
    yield Hypothesis("as defined", "the sum of map and memories gives B", x + written)
    yield Hypothesis("no residual", "the map is not added", written)
    yield Hypothesis("no branch", "the memories are not added", x)


def column_means(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """The mean attention that a token gets; over a row, every mean is 1 / N."""
    for tokens in range(1, pair.expected.shape[-1] + 1):
        text = "the mean over a row of the map is taken, not over a column"
        yield Hypothesis("rows", text, np.full_like(pair.expected, 1 / tokens))


def gather_parts(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """The tokens at the indices, which are counted from 1."""
    x, index = input_of(tap, context), input_of(tap, context, 1).astype(int)

    def gather(at: Array) -> Array:
        return np.take_along_axis(x, at.clip(0, x.shape[1] - 1)[..., None], axis=1)

    yield Hypothesis("as defined", "the tokens at A's indices give B", gather(index - 1))
    yield Hypothesis("index", "the indices are taken to count from 0", gather(index))
    yield Hypothesis("index", "the indices are moved twice", gather(index - 2))
    first = np.take(x, index[0] - 1, axis=1)
    yield Hypothesis("index", "every image is read at the first image's indices", first)
