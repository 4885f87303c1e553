"""Results of known mistakes in batch, layer and group norms, and in running statistics.

One function for each operation, as `hypothesis.py` describes; the settings are the manifest's.
"""

from collections.abc import Callable, Iterator

import numpy as np

from parity.diagnose.causes.facts import across, input_of, operation_of, params_by_end
from parity.diagnose.causes.hypothesis import Absent, Hypothesis, param_of
from parity.diagnose.causes.pair import MANY, Array, Context, Pair

EPS, MOMENTUM = 1e-5, 0.1  # PyTorch's, where the manifest has none
OTHER_EPS = (0.0, 1e-12, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
OTHER_MOMENTA = (0.01, 0.05, 0.001, 0.003, 0.1, 1.0)
ONE_PASS = 64 * 2.0**-24  # times 1 + (mean / std)²: error of a one-pass variance in float32


def moments(x: Array) -> tuple[Array, Array]:
    """Mean and biased variance of each channel: (B, F, ...) -> (F,)."""
    axes = (0, *range(2, x.ndim))
    return x.mean(axes), x.var(axes)


def divided(centred: Array, variance: Array) -> Array:
    """centred / √variance, where a variance of zero or less gives very large numbers."""
    return np.asarray(centred / np.sqrt(np.maximum(variance, 1e-300)))


def batch_norm(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """(x - mean) / √(variance + eps) · weight + bias over the channels of (B, F, ...).

    Mean and variance are the batch's or the running ones: those that give A's result.
    """
    x, params = input_of(tap, context), params_by_end(tap, context)
    eps = operation_of(tap, context).number("eps", EPS)
    part = x[pair.images][:, pair.channels]
    batch = moments(x)
    choices = {"the batch's statistics": batch}
    if {"running_mean", "running_var"} <= params.keys():
        choices["the running statistics"] = (params["running_mean"], params["running_var"])
    ones = np.ones(x.shape[1])
    weight, bias = (
        across(params.get(name, value)[pair.channels], x)
        for name, value in (("weight", ones), ("bias", 0 * ones))
    )

    def normal(mean: Array, var: Array, eps: float = eps) -> Array:
        mean, var = mean[pair.channels], var[pair.channels]
        return divided(part - across(mean, x), across(var + eps, x))

    def distance(name: str) -> float:
        return float(np.linalg.norm(normal(*choices[name]) * weight + bias - pair.expected))

    used, *others = sorted(choices, key=distance)
    mean, var = choices[used]
    plain = normal(mean, var)
    yield Hypothesis("as defined", "batch norm as defined gives B", plain * weight + bias)
    for name in others:
        text = f"batch norm with {name} instead of {used}"
        yield Hypothesis("statistics", text, normal(*choices[name]) * weight + bias)
    yield from variances("batch norm", eps, lambda e: normal(mean, var, e) * weight + bias)
    count = x.size // x.shape[1]
    if used.startswith("the batch") and count > 1:
        unbiased = normal(mean, var * count / (count - 1))
        text = "batch norm with the unbiased variance"
        yield Hypothesis("unbiased", text, unbiased * weight + bias)
    deviation = across(np.sqrt(np.maximum(var, 0))[pair.channels] + eps, x)
    outside = (part - across(mean[pair.channels], x)) / deviation
    yield Hypothesis("eps outside", OUTSIDE, outside * weight + bias)
    yield from affine("batch norm", plain, weight, bias, part)
    ratio = across((batch[0] ** 2 / (batch[1] + eps))[pair.channels], x)
    yield from one_pass(ratio, plain * weight, bias, pair, (0, *range(2, x.ndim)))


OUTSIDE = "eps is added to the standard deviation, not to the variance"


def variances(name: str, right: float, value: Callable[[float], Array]) -> Iterator[Hypothesis]:
    """The norm with other constants in place of its epsilon."""
    for eps in OTHER_EPS:
        if eps != right:
            yield Hypothesis("eps", f"{name} with eps {eps:g} instead of {right:g}", value(eps))
    short = float(np.float32(right))
    text = f"{name} whose eps {right:g} was float32 for a moment"
    yield Hypothesis("float32 constant", text, value(short))


def affine(
    name: str,
    plain: Array,
    weight: Array,
    bias: Array,
    x: Array,
    cut: Callable[[Array], Array] = np.asarray,
) -> Iterator[Hypothesis]:
    """The norm without its weight or bias, or left out."""
    text = f"weight and bias of the {name} are 1 and 0: not loaded or not applied"
    yield Hypothesis("not loaded", text, cut(plain))
    yield Hypothesis("no weight", f"the {name}'s weight is not applied", cut(plain + bias))
    yield Hypothesis("no bias", f"the {name}'s bias is not applied", cut(plain * weight))
    yield Hypothesis("left out", f"the {name} is left out", cut(x))


def one_pass(
    ratio: Array, core: Array, bias: Array, pair: Pair, axes: tuple[int, ...]
) -> Iterator[Hypothesis]:
    """E[x²] - E[x]² in float32: each mean and variance has an error of the size that cancellation
    makes. Its factor depends on the order of the sum, so it is fitted; `ratio`: (mean / std)²."""
    if pair.noise < 1e-8 or pair.found.shape != core.shape:
        return
    factor = ((pair.found - bias) * core).sum(axes, keepdims=True)
    factor /= np.maximum((core * core).sum(axes, keepdims=True), 1e-300)
    if np.median(ratio) > 9 and (np.abs(factor - 1) <= ONE_PASS * (1 + ratio)).all():
        text = "variance as E[x²] - E[x]² in float32, which cancels: mean / std is "
        text += f"{np.sqrt(np.median(ratio)):.0f}"
        yield Hypothesis("one-pass", text, core * factor + bias, factor.size)


def layer_norm(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """(x - mean) / √(variance + eps) · weight + bias over the last axes."""
    x, params = input_of(tap, context, pair), params_by_end(tap, context)
    eps = operation_of(tap, context).number("eps", EPS)
    known = operation_of(tap, context).settings.get("axes")
    count = next(iter(params.values())).ndim if params else 1
    axes = tuple(known) if isinstance(known, (list, tuple)) else tuple(range(-count, 0))
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    weight, bias = params.get("weight", np.ones(1)), params.get("bias", np.zeros(1))
    width = x.size // mean.size

    def cut(value: Array) -> Array:
        return np.asarray(value[:, pair.channels] if value.ndim > 1 else value)

    def end(plain: Array) -> Array:
        return cut(plain * weight + bias)

    def normal(eps: float, spread: Array = variance) -> Array:
        return divided(x - mean, spread + eps)

    yield Hypothesis("as defined", "layer norm as defined gives B", end(normal(eps)))
    yield from variances("layer norm", eps, lambda e: end(normal(e)))
    if width > 1:
        text = "layer norm with the unbiased variance"
        yield Hypothesis("unbiased", text, end(normal(eps, variance * width / (width - 1))))
    outside = (x - mean) / (np.sqrt(variance) + eps)
    yield Hypothesis("eps outside", OUTSIDE, end(outside))
    yield Hypothesis("no mean", "the mean is not subtracted", end(divided(x, variance + eps)))
    plain = normal(eps)
    yield from affine("layer norm", plain, weight, bias, x, cut)
    if isinstance(pair.channels, slice):
        yield from one_pass(mean**2 / (variance + eps), plain * weight, bias, pair, axes)


def group_norm(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """The norm of each group of neighbouring channels of (B, F, ...)."""
    made, params = operation_of(tap, context), params_by_end(tap, context)
    x = input_of(tap, context, pair)
    groups, eps, channels = int(made.number("groups", 1)), made.number("eps", EPS), x.shape[1]
    weight = across(params.get("weight", np.ones(channels))[pair.channels], x)
    bias = across(params.get("bias", np.zeros(channels))[pair.channels], x)

    def normal(groups: int = groups, eps: float = eps, free: int = 0) -> Array:
        rows = x.reshape(len(x), groups, -1)
        variance = rows.var(-1, keepdims=True, ddof=free if rows.shape[-1] > 1 else 0)
        plain = divided(rows - rows.mean(-1, keepdims=True), variance + eps)
        return np.asarray(plain.reshape(x.shape)[:, pair.channels])

    plain = normal()
    yield Hypothesis("as defined", "group norm as defined gives B", plain * weight + bias)
    yield from variances("group norm", eps, lambda e: normal(eps=e) * weight + bias)
    text = "group norm with the unbiased variance"
    yield Hypothesis("unbiased", text, normal(free=1) * weight + bias)
    for wrong in sorted({1, groups // 2, groups * 2, channels // groups, channels, 32} - {groups}):
        if wrong > 0 and channels % wrong == 0:
            text = f"{wrong} groups instead of {groups}"
            yield Hypothesis("groups", text, normal(wrong) * weight + bias)
    yield from affine("group norm", plain, weight, bias, x[:, pair.channels])


def running_statistics(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """A running mean or variance after one batch: old + momentum · (the batch's - old).

    `tap` is `stage/NAME` with the buffer's name; the batch norm with this buffer is looked up.
    """
    name = tap.partition("/")[2]
    users = [t for t, made in context.made_by.items() if name in made.params]
    owner = next((t for t in users if t.startswith("training ")), next(iter(users), None))
    if owner is None or not name.endswith(("mean", "var")):
        raise Absent(name)
    x, old = input_of(owner, context), param_of(context, name)
    share = operation_of(owner, context).number("momentum", MOMENTUM)
    mean, biased = moments(x)
    count = x.size // x.shape[1]
    is_mean = name.endswith("mean")
    batch = mean if is_mean else biased * count / max(count - 1, 1)
    word = "mean" if is_mean else "variance"

    def moved(share: float, target: Array = batch) -> Array:
        return np.asarray(old + share * (target - old))

    yield Hypothesis("as defined", f"the running {word} as defined gives B", moved(share))
    if not is_mean:
        text = "the running variance follows the biased variance"
        yield Hypothesis("biased", text, moved(share, biased))
        text = "the running variance follows the standard deviation"
        yield Hypothesis("deviation", text, moved(share, np.sqrt(batch)))
        text = "momentum is reversed, and the variance is the biased one"
        yield Hypothesis("momentum reversed", text, moved(1 - share, biased))
    text = f"momentum is reversed: the old value has the share {share:g}, the batch {1 - share:g}"
    yield Hypothesis("momentum reversed", text, moved(1 - share))
    for wrong in OTHER_MOMENTA:
        if wrong not in (share, 1 - share):
            text = f"the newest batch has the share {wrong:g} instead of {share:g}"
            yield Hypothesis("momentum", text, moved(wrong))
    yield Hypothesis("left out", f"the running {word} does not move", old)
    yield Hypothesis("twice", "the batch counts twice", moved(1 - (1 - share) ** 2))
    text = "the momentum was float32 for a moment"
    yield Hypothesis("float32 constant", text, moved(float(np.float32(share))))
    step = batch - old
    if old.size > MANY and pair.found.shape == old.shape and step.any():
        fitted = float(((pair.found - old) * step).sum() / (step * step).sum())
        text = f"the newest batch has the share {fitted:.4g} instead of {share:g}"
        yield Hypothesis("momentum", text, moved(fitted), 1)
