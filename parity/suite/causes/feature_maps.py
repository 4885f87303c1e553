"""Results of known mistakes in batch norms, max pools and residual sums with ReLU.

As in `operations.py`: one function for each operation; the first hypothesis is the right one.
"""

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from parity.diagnose.causes.hypothesis import Absent, Hypothesis, param_of, tap_of
from parity.diagnose.causes.pair import Array, Context, Pair
from parity.suite.causes.operations import input_of, params_of

EPS = 1e-5  # torchvision's ResNet
OTHER_EPS = (0.0, 1e-12, 1e-8, 1e-7, 1e-6, 1e-4, 1e-3)
MOMENTUM = 0.1
OTHER_MOMENTA = (0.9, 0.01, 0.05, 0.001, 1.0)


def across(channels: Array, x: Array) -> Array:
    """One value for each channel, to be combined with x: (F,) -> (F, 1, ...)."""
    return channels.reshape(-1, *[1] * (x.ndim - 2))


def moments(x: Array) -> list[Array]:
    """Mean and biased variance of each channel: (B, F, ...) -> (F,)."""
    axes = (0, *range(2, x.ndim))
    return [x.mean(axes), x.var(axes)]


def batch_norm(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """(x - mean) / √(variance + eps) · weight + bias over the channels of (B, F, ...).

    Mean and variance are the batch's or the running ones: those that give A's result.
    """
    x = input_of(tap, context)
    weight, bias, *running = params_of(tap, context)
    batch = moments(x)
    weight, bias = across(weight, x), across(bias, x)

    def normal(mean: Array, var: Array, eps: float = EPS) -> Array:
        deviation = np.sqrt(np.maximum(var + eps, 1e-300))
        return np.asarray((x - across(mean, x)) / across(deviation, x))

    def scaled(plain: Array) -> Array:
        return np.asarray(plain * weight + bias)

    def distance(statistics: list[Array]) -> float:
        mean, var = statistics
        return float(np.linalg.norm(scaled(normal(mean, var)) - pair.expected))

    right, wrong = sorted((batch, running), key=distance)
    names = ["the batch's statistics", "the running statistics"]
    used, other = names if right is batch else names[::-1]
    mean, var = right
    plain = normal(mean, var)
    yield Hypothesis("as defined", "batch norm as defined gives B", scaled(plain))
    text = f"batch norm with {other} instead of {used}"
    yield Hypothesis("statistics", text, scaled(normal(wrong[0], wrong[1])))
    for eps in OTHER_EPS:
        text = f"batch norm with eps {eps:g} instead of {EPS:g}"
        yield Hypothesis("eps", text, scaled(normal(mean, var, eps)))
    count = x.size // x.shape[1]
    text = "batch norm with the unbiased variance"
    yield Hypothesis("unbiased", text, scaled(normal(mean, var * count / (count - 1))))
    text = "eps is added to the standard deviation"
    outside = (x - across(mean, x)) / across(np.sqrt(var) + EPS, x)
    yield Hypothesis("eps outside", text, scaled(outside))
    text = "weight and bias of the batch norm are 1 and 0: not loaded or not applied"
    yield Hypothesis("not loaded", text, plain)
    yield Hypothesis("no weight", "the batch norm's weight is not applied", plain + bias)
    yield Hypothesis("no bias", "the batch norm's bias is not applied", plain * weight)
    yield Hypothesis("left out", "the batch norm is left out", x)


def running_statistics(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """The first step of a running mean or variance: momentum · (the batch's - the old one)."""
    name = tap.partition("/")[2]
    source = next((row.reads[0] for row in context.made_by.values() if name in row.params), None)
    if source is None:
        raise Absent(name)
    x, old = tap_of(context, source), param_of(context, name)
    is_mean = name.endswith("mean")
    biased = moments(x)[0 if is_mean else 1]
    count = x.size // x.shape[1]
    new = biased if is_mean else biased * count / (count - 1)
    text = "the running statistic as defined, from A's input, gives B"
    yield Hypothesis("as defined", text, MOMENTUM * (new - old))
    if not is_mean:
        text = "the running variance follows the biased variance"
        yield Hypothesis("biased", text, MOMENTUM * (biased - old))
        text = "the running variance follows the standard deviation"
        yield Hypothesis("deviation", text, MOMENTUM * (np.sqrt(new) - old))
    for momentum in OTHER_MOMENTA:
        text = f"the newest batch has the share {momentum:g} instead of {MOMENTUM:g}"
        yield Hypothesis("momentum", text, momentum * (new - old))
    yield Hypothesis("left out", "the statistic does not move", np.zeros_like(old))
    twice = MOMENTUM * (1 + (1 - MOMENTUM)) * (new - old)
    yield Hypothesis("twice", "the batch counts twice", twice)


def max_pool(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """The largest of each 3 x 3 window, by steps of 2; a border of one pixel never counts."""
    x = input_of(tap, context)

    def pool(padding: int, outside: float, stride: int = 2, size: int = 3) -> Array:
        around = ((0, 0), (0, 0), (padding, padding), (padding, padding))
        padded = np.pad(x, around, constant_values=outside)
        windows = sliding_window_view(padded, (1, 1, size, size))
        return np.asarray(windows[:, :, ::stride, ::stride, 0, 0])

    yield Hypothesis("as defined", "the max pool as defined gives B", pool(1, -np.inf).max((4, 5)))
    text = "the border of the max pool is zero and counts"
    yield Hypothesis("padding", text, pool(1, 0.0).max((4, 5)))
    yield Hypothesis("padding", "the max pool has no border", pool(0, 0.0).max((4, 5)))
    text = "the windows of the max pool are 2 x 2"
    yield Hypothesis("window", text, pool(0, 0.0, size=2).max((4, 5)))
    text = "stride 1 instead of 2 in the max pool"
    yield Hypothesis("stride", text, pool(1, -np.inf, stride=1).max((4, 5)))
    text = "the mean of each window, border included, not the largest"
    yield Hypothesis("pooling", text, pool(1, 0.0).mean((4, 5)))


def residual_relu(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """ReLU of the branch plus the shortcut."""
    branch, shortcut = input_of(tap, context), input_of(tap, context, 1)
    total = branch + shortcut
    yield Hypothesis("as defined", "ReLU of the sum, as defined, gives B", np.maximum(total, 0))
    text = "ReLU comes before the addition, not after it"
    yield Hypothesis("relu first", text, np.maximum(branch, 0) + shortcut)
    yield Hypothesis("no relu", "ReLU after the addition is left out", total)
    text = "the shortcut is not added"
    yield Hypothesis("no residual", text, np.maximum(branch, 0))
    text = "the branch is not added: the shortcut alone"
    yield Hypothesis("no branch", text, np.maximum(shortcut, 0))
