"""Results of known mistakes in the choice of parts, and in what the classifier reads of them.

The form of the functions and the letters are those of `operations.py`; J rows of scores, S parts.
"""

from collections.abc import Iterator

import numpy as np

from parity.diagnose.causes.hypothesis import Absent, Hypothesis, param_of, tap_of
from parity.diagnose.causes.pair import Array, Context, Pair
from parity.suite.causes.operations import EPS, input_of, row_of


def part_index(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """Per row of scores, the indices of the largest ones; the class token has index 0."""
    if not row_of(tap, context).reads:
        raise Absent("part_scores")  # the parts are drawn outside the model
    scores = input_of(tap, context)
    if tap_of(context, tap).shape[1] == scores.shape[1]:
        yield from best_parts(scores)
    else:
        yield from several_parts(scores, tap_of(context, tap).shape[1] // scores.shape[1])


def several_parts(scores: Array, count: int) -> Iterator[Hypothesis]:
    """Indices of the `count` largest scores of each row: (B, J, N) -> (B, J count)."""
    order = np.argsort(-scores, axis=-1, kind="stable")
    top, lowest = order[..., :count], order[..., : -count - 1 : -1]
    mean = np.argsort(-scores.mean(1, keepdims=True), axis=-1, kind="stable")[..., :count]
    for code, text, index in (
        ("as defined", "the largest of A's scores, in order, give B", top + 1),
        ("index", "the class token is not counted: indices are one too small", top),
        ("index", "one is added twice", top + 2),
        ("minimum", "the smallest scores are taken", lowest + 1),
        ("order", "the indices are sorted by place, not by score", np.sort(top, axis=-1) + 1),
        ("order", "the smallest of the largest scores comes first", top[..., ::-1] + 1),
        ("order", "ranks come before rows", top.swapaxes(1, 2) + 1),
        ("repeated", "the first is taken again and again", top[..., :1].repeat(count, -1) + 1),
        ("rows", "the best of the mean over rows", np.broadcast_to(mean, top.shape) + 1),
    ):
        yield Hypothesis(code, text, index.reshape(len(index), -1))


def best_parts(scores: Array) -> Iterator[Hypothesis]:
    """The index of the first maximum of each head's scores: (B, K, N) -> (B, K)."""
    heads = scores.shape[1]
    best, mean = scores.argmax(-1), scores.mean(1)
    backwards = scores.shape[-1] - 1 - scores[..., ::-1].argmax(-1)
    together = np.argsort(-mean, axis=-1, kind="stable")[:, :heads]
    for code, text, index in (
        ("as defined", "the first maximum of A's scores gives B", best + 1),
        ("index", "the class token is not counted: indices are one too small", best),
        ("index", "one is added twice", best + 2),
        ("minimum", "the smallest score is taken", scores.argmin(-1) + 1),
        ("last maximum", "of equal scores the last is taken", backwards + 1),
        (
            "heads",
            "the best of the mean over heads",
            np.repeat(mean.argmax(-1)[:, None], heads, 1) + 1,
        ),
        ("heads", "the K best of the mean over heads", together + 1),
        ("order", "the indices are sorted, heads are not in order", np.sort(best, axis=1) + 1),
    ):
        yield Hypothesis(code, text, index)


def part_tokens(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """The class token, then the tokens at the indices."""
    *layers, index = (tap_of(context, name) for name in row_of(tap, context).reads)
    index = index.astype(int)
    if len(layers) > 1:
        yield from parts_of_layers(layers, index)
        return
    x = layers[0]

    def gather(at: Array) -> Array:
        return np.take_along_axis(x, at.clip(0, x.shape[1] - 1)[..., None], axis=1)

    cls = x[:, :1]
    first = np.concatenate([cls, gather(index)], axis=1)
    yield Hypothesis("as defined", "the tokens at A's indices give B", first)
    text = "the class token is last"
    yield Hypothesis("class token", text, np.concatenate([gather(index), cls], axis=1))
    for shift in (-1, 1):
        text = f"the tokens at index {shift:+d} are taken"
        moved = np.concatenate([cls, gather(index + shift)], axis=1)
        yield Hypothesis("index", text, moved)
    wrong = np.concatenate([cls, np.repeat(gather(index[:1])[:1], len(x), 0)], axis=1)
    yield Hypothesis("index", "every image gets the first image's parts", wrong)
    own = np.concatenate([cls, np.take(x, index[0], axis=1)], axis=1)
    yield Hypothesis("index", "every image is read at the first image's indices", own)


def parts_of_layers(layers: list[Array], index: Array) -> Iterator[Hypothesis]:
    """The last layer's class token, then each layer's tokens: layers (B, T, D), index (B, S)."""

    def gather(sources: list[Array]) -> Array:
        shares = np.split(index, len(sources), axis=1)
        pairs = zip(sources, shares, strict=True)
        parts = [np.take_along_axis(x, at[..., None], axis=1) for x, at in pairs]
        return np.concatenate([layers[-1][:, :1], *parts], axis=1)

    count = len(layers)
    yield Hypothesis("as defined", "each layer's tokens at A's indices give B", gather(layers))
    text = "all tokens are taken from the last layer"
    yield Hypothesis("layers", text, gather([layers[-1]] * count))
    text = "the layers are in reverse order"
    yield Hypothesis("layers", text, gather(layers[::-1]))
    text = "the class token is the first layer's"
    first = np.concatenate([layers[0][:, :1], gather(layers)[:, 1:]], axis=1)
    yield Hypothesis("class token", text, first)


def all_tokens(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """All tokens side by side after the last norm; `parts` is the same without the class token."""
    x, before = input_of(tap, context), input_of(tap, context, 1)
    first = int(row_of(tap, context).operation == "parts")

    def flat(value: Array) -> Array:
        return value.reshape(len(value), -1)

    yield Hypothesis("as defined", "the tokens side by side give B", flat(x[:, first:]))
    text = "channels come before tokens"
    yield Hypothesis("order", text, flat(x[:, first:].swapaxes(1, 2)))
    last = np.concatenate([x[:, 1:], x[:, :1]], axis=1) if not first else x[:, :-1]
    yield Hypothesis("class token", "the class token is at another place", flat(last))
    yield Hypothesis("left out", "the last norm is left out", flat(before[:, first:]))


def similarity(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """Cosines of class token and patches after the norm, whose parameters no row lists."""
    x = input_of(tap, context)
    norm = "part_norm" if "part_norm.weight" in context.params else "norm"
    core = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + EPS)
    normed = core * param_of(context, f"{norm}.weight") + param_of(context, f"{norm}.bias")

    def cosine(value: Array, length: float = 1.0) -> Array:
        size = np.linalg.norm(value, axis=-1, keepdims=True) ** length
        unit = value / size
        return np.asarray(np.einsum("bd,bnd->bn", unit[:, 0], unit[:, 1:])[:, None])

    yield Hypothesis("as defined", "the cosines as defined give B", cosine(normed))
    yield Hypothesis("left out", "the norm is left out", cosine(x))
    yield Hypothesis("length", "products are not divided by the lengths", cosine(normed, 0.0))
    yield Hypothesis("sign", "the least similar patches have the largest scores", -cosine(normed))


def features(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """The class token after the last norm."""
    x = input_of(tap, context)
    yield Hypothesis("as defined", "the class token after the last norm gives B", x[:, 0])
    yield Hypothesis("pooling", "the mean over all tokens is taken", x.mean(1))
    yield Hypothesis("pooling", "the mean over all tokens but the class token", x[:, 1:].mean(1))
    yield Hypothesis("pooling", "the last token is taken", x[:, -1])
    before = input_of(tap, context, 1)
    yield Hypothesis("left out", "the last norm is left out", before[:, 0])
