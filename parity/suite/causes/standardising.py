"""Results of known mistakes in the stem of hybrids: standardised convolutions, group norms, pool.

As in `operations.py`: one function for each operation; the first hypothesis is the right one.
"""

from collections.abc import Iterator

import numpy as np

from parity.diagnose.causes.hypothesis import Hypothesis
from parity.diagnose.causes.pair import Array, Context, Pair
from parity.diagnose.causes.products import short_products
from parity.suite.causes.convolving import patches
from parity.suite.causes.operations import input_of, module_of, params_of, row_of
from transfg_core.config.stem import GROUPS

DEVIATION_EPS = 1e-5
NORM_EPS = 1e-6
OTHER_EPS = (0.0, 1e-12, 1e-8, 1e-6, 1e-5, 1e-3)


def padded(x: Array, size: int, stride: int, value: float = 0.0, more_after: bool = True) -> Array:
    """The padding `SAME`: of an odd number of rows or columns, the end has one more."""
    sides = []
    for side in x.shape[2:]:
        total = max((-(-side // stride) - 1) * stride + size - side, 0)
        half = total // 2
        sides.append((half, total - half) if more_after else (total - half, half))
    return np.pad(x, ((0, 0), (0, 0), *sides), constant_values=value)


def standardised(weight: Array, eps: float = DEVIATION_EPS, unbiased: bool = False) -> Array:
    """(w - mean) / (deviation + eps) of each kernel."""
    flat = weight.reshape(len(weight), -1)
    centred = flat - flat.mean(1, keepdims=True)
    deviation = flat.std(1, keepdims=True, ddof=int(unbiased))
    return np.asarray((centred / (deviation + eps)).reshape(weight.shape))


def standardised_convolution(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """A convolution with a standardised kernel and the padding `SAME`."""
    x, module, (weight,) = input_of(tap, context), module_of(tap, context), params_of(tap, context)
    size, stride = weight.shape[-1], row_of(tap, context).stride

    def convolve(around: Array, kernel: Array, step: int = stride) -> Array:
        windows = patches(around, size, step)
        flat = windows.reshape(*windows.shape[:3], -1) @ kernel.reshape(len(kernel), -1).T
        return np.asarray(flat.transpose(0, 3, 1, 2))

    same, kernel = padded(x, size, stride), standardised(weight)
    right = convolve(same, kernel)
    yield Hypothesis("as defined", f"the convolution {module} as defined gives B", right)
    flat = weight.reshape(len(weight), -1)
    inside = (flat - flat.mean(1, keepdims=True)) / np.sqrt(flat.var(1, keepdims=True) + 1e-5)
    for code, text, wrong in (
        ("not standardised", "the weight is not standardised", weight),
        ("unbiased", "the kernel's deviation is unbiased", standardised(weight, unbiased=True)),
        ("eps inside", "eps is added to the variance of the kernel", inside.reshape(weight.shape)),
        ("transposed", "the kernel is transposed: rows and columns", kernel.swapaxes(2, 3)),
        ("flipped", "the kernel is flipped: a true convolution", kernel[:, :, ::-1, ::-1]),
    ):
        yield Hypothesis(code, text, convolve(same, wrong))
    for eps in OTHER_EPS:
        text = f"eps {eps:g} instead of {DEVIATION_EPS:g} in the kernel's deviation"
        yield Hypothesis("eps", text, convolve(same, standardised(weight, eps)))
    before = padded(x, size, stride, more_after=False)
    text = "the padding has its further row and column before the map, not after it"
    yield Hypothesis("padding", text, convolve(before, kernel))
    border = size // 2
    even = np.pad(x, ((0, 0), (0, 0), (border, border), (border, border)))
    yield Hypothesis("padding", f"padding {border} on all sides", convolve(even, kernel))
    for wrong_step in {1, 2} - {stride}:
        around = padded(x, size, wrong_step)
        text = f"stride {wrong_step} instead of {stride}"
        yield Hypothesis("stride", text, convolve(around, kernel, wrong_step))
    yield from short_products(lambda short: convolve(short(same), short(kernel)))


def normalised(
    x: Array, groups: int = GROUPS, eps: float = NORM_EPS, unbiased: bool = False
) -> Array:
    """(x - mean) / √(variance + eps) of each group of neighbouring channels."""
    rows = x.reshape(len(x), groups, -1)
    mean = rows.mean(-1, keepdims=True)
    variance = rows.var(-1, keepdims=True, ddof=int(unbiased and rows.shape[-1] > 1))
    return np.asarray(((rows - mean) / np.sqrt(variance + eps + 1e-300)).reshape(x.shape))


def interleaved(x: Array) -> Array:
    """Normalised in groups of every GROUPS-th channel."""
    batch, channels, *places = x.shape
    moved = x.reshape(batch, -1, GROUPS, *places).swapaxes(1, 2)
    result = normalised(moved.reshape(x.shape)).reshape(moved.shape)
    return np.asarray(result.swapaxes(1, 2).reshape(x.shape))


def group_norm(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """Group norm, and ReLU where the operation names it."""
    x = input_of(tap, context)
    weight, bias = (value[:, None, None] for value in params_of(tap, context))
    with_relu = row_of(tap, context).operation.endswith("relu")
    channels = x.shape[1]

    def end(y: Array) -> Array:
        return np.maximum(y, 0) if with_relu else y

    plain = normalised(x)
    right = plain * weight + bias
    yield Hypothesis("as defined", "group norm as defined gives B", end(right))
    for eps in OTHER_EPS:
        if eps != NORM_EPS:
            text = f"group norm with eps {eps:g} instead of {NORM_EPS:g}"
            yield Hypothesis("eps", text, end(normalised(x, eps=eps) * weight + bias))
    value = normalised(x, unbiased=True) * weight + bias
    yield Hypothesis("unbiased", "group norm with the unbiased variance", end(value))
    for groups in sorted({1, GROUPS // 2, GROUPS * 2, channels} - {GROUPS}):
        if channels % groups == 0:
            text = f"{groups} groups instead of {GROUPS}"
            yield Hypothesis("groups", text, end(normalised(x, groups) * weight + bias))
    text = "a group is every 32nd channel, not neighbouring ones"
    yield Hypothesis("groups", text, end(interleaved(x) * weight + bias))
    yield Hypothesis("no weight", "the norm's weight is not applied", end(plain + bias))
    yield Hypothesis("no bias", "the norm's bias is not applied", end(plain * weight))
    yield Hypothesis("left out", "the norm is left out", end(x))
    if with_relu:
        yield Hypothesis("no relu", "ReLU after the norm is left out", right)
        before = normalised(np.maximum(x, 0)) * weight + bias
        yield Hypothesis("relu first", "ReLU comes before the norm", before)
    else:
        yield Hypothesis("relu", "ReLU follows the norm", np.maximum(right, 0))


def padded_max_pool(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """The largest of 3 x 3 positions, every second row and column, with the padding `SAME`."""
    x = input_of(tap, context)

    def pool(around: Array, step: int = 2) -> Array:
        windows = patches(around, 3, step)
        return np.asarray(windows.max((-2, -1)).transpose(0, 3, 1, 2))

    low = -np.inf
    yield Hypothesis("as defined", "the max pool as defined gives B", pool(padded(x, 3, 2, low)))
    text = "the padding has its further row and column before the map, not after it"
    yield Hypothesis("padding", text, pool(padded(x, 3, 2, low, more_after=False)))
    around = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=low)
    size = pair.expected.shape[2:]
    yield Hypothesis("padding", "padding 1 on all sides", pool(around)[:, :, : size[0], : size[1]])
    mean = patches(padded(x, 3, 2), 3, 2).mean((-2, -1)).transpose(0, 3, 1, 2)
    yield Hypothesis("pooling", "the mean of the window, not the largest", np.asarray(mean))
