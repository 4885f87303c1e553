"""Results of known mistakes in losses, clipping and the optimiser's update.

The form of the functions is the same as in `operations.py`.
"""

from collections.abc import Iterator, Sequence
from itertools import permutations

import numpy as np
from scipy.special import log_softmax, softmax

from parity.diagnose.causes.hypothesis import Absent, Hypothesis, param_of, tap_of
from parity.diagnose.causes.pair import Array, Context, Pair
from parity.suite.causes.context import of_suite

OTHER_MARGINS = (0.0, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 1.0)
OTHER_SMOOTHING = (0.0, 0.05, 0.1, 0.2)


def targets_of(context: Context, classes: int) -> Array:
    """The shares of the classes in each image (B, C); of labels, 1 at the label."""
    if "targets" in context.taps:
        return tap_of(context, "targets")
    return np.asarray(np.eye(classes)[tap_of(context, "labels").astype(int)])


def other_targets(context: Context, targets: Array) -> Iterator[tuple[str, Array]]:
    """Targets that a program may compare with by mistake, with the words for them."""
    yield "the targets are those of the image before", np.roll(targets, 1, axis=0)
    yield "the targets are those of the next image", np.roll(targets, -1, axis=0)
    yield "the targets are in reverse order", targets[::-1]
    if "targets" in context.taps:
        labels = tap_of(context, "labels").astype(int)
        yield "the larger label alone is compared with", np.eye(targets.shape[1])[labels]


def cross_entropy(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """(1 - s) · -t · log p + s · mean over classes of -log p, batch mean."""
    x = tap_of(context, "logits")
    s = of_suite(context).smoothing
    if s is None:
        raise Absent("smoothing")
    batch, classes = x.shape
    targets = targets_of(context, classes)

    def loss(log_p: Array, s: float, t: Array = targets) -> Array:
        return np.asarray(((1 - s) * -(t * log_p).sum(1) - s * log_p.mean(1)).mean())

    log_p = log_softmax(x, axis=1)
    yield Hypothesis("as defined", "cross-entropy as defined gives B", loss(log_p, s))
    others = loss(log_p, s * classes / (classes - 1))
    yield Hypothesis("smoothing", "smoothing is over the C - 1 other classes", others)
    for wrong in OTHER_SMOOTHING:
        if wrong != s:
            text = f"label smoothing {wrong:g} instead of {s:g}" if wrong else "no label smoothing"
            yield Hypothesis("smoothing", text, loss(log_p, wrong))
    yield Hypothesis("sum", "the sum over the batch, not its mean", loss(log_p, s) * batch)
    twice = loss(log_softmax(softmax(x, axis=1), axis=1), s)
    yield Hypothesis("softmax twice", "a softmax comes before the cross-entropy's own", twice)
    for text, wrong_targets in other_targets(context, targets):
        yield Hypothesis("targets", text, loss(log_p, s, wrong_targets))


def unit(x: Array) -> Array:
    """Rows of length 1: (B, D)."""
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


def contrastive(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """w (1 - cos) + (1 - w) max(cos - margin, 0) with w = t_i · t_j, all ordered pairs, over B²."""
    chosen = "part_features" in context.taps
    x = tap_of(context, "part_features" if chosen else "features")
    right_margin = of_suite(context).margin
    if right_margin is None:
        raise Absent("margin")
    z = unit(x)
    classes = tap_of(context, "labels").max() + 1
    targets, batch = targets_of(context, int(classes)), len(x)

    def pairs(product: Array, margin: float, t: Array = targets) -> Array:
        w = t @ t.T
        return np.asarray(w * (1 - product) + (1 - w) * np.maximum(product - margin, 0))

    plain = pairs(z @ z.T, right_margin)
    yield Hypothesis("as defined", "contrastive loss as defined gives B", plain.sum() / batch**2)
    for margin in OTHER_MARGINS:
        if margin != right_margin:
            text = f"margin {margin:g} instead of {right_margin:g}"
            yield Hypothesis("margin", text, pairs(z @ z.T, margin).sum() / batch**2)
    if chosen:
        mean = unit(tap_of(context, "features"))
        whole = pairs(mean @ mean.T, right_margin)
        text = "the mean of all tokens is compared, not that of the chosen ones"
        yield Hypothesis("features", text, whole.sum() / batch**2)
    for code, text, count in (
        ("divisor", "divided by B, not B²", batch),
        ("divisor", "not divided", 1),
        ("divisor", "divided by B (B - 1): the diagonal is left out", batch * (batch - 1)),
        ("divisor", "divided by B (B - 1) / 2 unordered pairs", batch * (batch - 1) / 2),
    ):
        yield Hypothesis(code, text, plain.sum() / max(count, 1))
    same = targets @ targets.T > 0.5
    parts = [plain[chosen].mean() for chosen in (same, ~same) if chosen.any()]
    yield Hypothesis("divisor", "means of equal and unequal pairs, added", np.sum(parts))
    text = "the features are not normalised"
    product = pairs(x @ x.T, right_margin)
    yield Hypothesis("not normalised", text, product.sum() / batch**2)
    off = product.sum() - np.trace(product)
    yield Hypothesis("not normalised", f"{text}, the diagonal is left out", off / batch**2)
    cosine, w = z @ z.T, targets @ targets.T
    flipped = (1 - w) * (1 - cosine) + w * np.maximum(cosine - right_margin, 0)
    yield Hypothesis("labels", "equal and unequal labels are exchanged", flipped.sum() / batch**2)
    no_floor = (w * (1 - cosine) + (1 - w) * (cosine - right_margin)).sum()
    yield Hypothesis("margin", "cos - margin is not cut off at 0", no_floor / batch**2)
    for text, wrong_targets in other_targets(context, targets):
        wrong = pairs(cosine, right_margin, wrong_targets)
        yield Hypothesis("targets", text, wrong.sum() / batch**2)


def loss(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """The sum of both losses, and of those of stages times their weights."""
    names = [name for name in context.taps if name.startswith("stage_loss")]
    if names:
        yield from loss_of_stages([tap_of(context, name) for name in names], context)
        return
    ce, con = tap_of(context, "cross_entropy"), tap_of(context, "contrastive")
    yield Hypothesis("as defined", "the sum of A's two losses gives B", ce + con)
    if con:
        yield Hypothesis("left out", "the contrastive loss is left out", ce)
        yield Hypothesis("left out", "the cross-entropy is left out", con)
    for mistakes in (cross_entropy, contrastive):
        right = con if mistakes is cross_entropy else ce
        for hypothesis in mistakes(mistakes.__name__, context, pair):
            yield hypothesis._replace(value=hypothesis.value + right)


def loss_of_stages(stages: list[Array], context: Context) -> Iterator[Hypothesis]:
    """SwinFC's loss: cross-entropy, the stages' times their weights, and the contrastive loss."""
    ce, con = tap_of(context, "cross_entropy"), tap_of(context, "contrastive")
    shares = of_suite(context).stages
    if len(shares) != len(stages):
        raise Absent("stages")

    def total(weights: Sequence[float]) -> Array:
        return np.asarray(ce + sum(b * loss for b, loss in zip(weights, stages, strict=True)) + con)

    yield Hypothesis("as defined", "the sum of A's losses gives B", total(shares))
    for order in permutations(shares):
        text = f"the weights of stages 2 to 4 are {', '.join(f'{b:g}' for b in order)}"
        yield Hypothesis("weights", text, total(order))
    yield Hypothesis("weights", "the stages' losses have weight 1", total([1.0] * len(stages)))
    yield Hypothesis("left out", "the losses of stages are left out", ce + con)
    yield Hypothesis("left out", "the contrastive loss is left out", total(shares) - con)


def grad_norm(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """The L2 norm over all gradients before clipping."""
    norm = tap_of(context, "grad_norm")
    yield Hypothesis("squared", "the square of the norm", norm**2)
    if context.clip is not None:
        clipped = np.minimum(norm, context.clip)
        yield Hypothesis("clipped", "the norm is taken after clipping", clipped)
    grads = [tap_of(context, name) for name in context.taps if name.startswith("grad/")]
    if grads:
        norms = np.array([np.linalg.norm(grad) for grad in grads])
        yield Hypothesis("norm", "the norms of the parameters are added up", norms.sum())
        yield Hypothesis("norm", "the largest norm of a parameter", norms.max())
        yield Hypothesis("norm", "the L1 norm", np.asarray(sum(abs(g).sum() for g in grads)))


def update(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """The first update of SGD: m = clipped g + wd · w, step = -lr · m."""
    prefix, _, name = tap.partition("/")
    grad, weight = tap_of(context, f"grad/{name}"), param_of(context, name)
    if prefix == "step" and context.lr is None:
        raise Absent("lr")
    unit = -context.lr if prefix == "step" and context.lr is not None else 1.0
    factor, decay = context.clip_factor(), context.weight_decay or 0.0
    kept = 1.0 if factor is None else factor
    plain = unit * (kept * grad + decay * weight)
    yield Hypothesis("as defined", "the update as defined, from A's gradient, gives B", plain)
    if decay:
        text = "weight decay is missing" + (", or decoupled" if prefix == "momentum" else "")
        yield Hypothesis("no decay", text, unit * kept * grad)
        yield Hypothesis("decay", "weight decay comes twice", plain + unit * decay * weight)
        text = "weight decay is subtracted"
        yield Hypothesis("decay", text, plain - 2 * unit * decay * weight)
        text = "weight decay is decoupled and not multiplied by lr"
        if prefix == "step":
            yield Hypothesis("decay", text, unit * kept * grad - decay * weight)
        if kept < 1:
            text = "weight decay is added before clipping"
            yield Hypothesis("clip", text, unit * kept * (grad + decay * weight))
    if kept < 1:
        text = "the gradient is not clipped, or clipped after the step"
        yield Hypothesis("clip", text, unit * (grad + decay * weight))
    if context.momentum:
        text = "dampening 1 - momentum at the first update"
        yield Hypothesis("dampening", text, (1 - context.momentum) * plain)
