"""Results of known mistakes in convolutions and in the mean over positions.

As in `operations.py`: one function for each operation; the first hypothesis is the right one.
"""

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from parity.diagnose.causes.hypothesis import Hypothesis
from parity.diagnose.causes.pair import Array, Context, Pair
from parity.diagnose.causes.products import short_products
from parity.suite.causes.operations import input_of, module_of, params_of, row_of


def patches(x: Array, size: int, stride: int) -> Array:
    """Windows of a feature map (B, R, H, W), places first: (B, h, w, R, P, P)."""
    window = (1, x.shape[1], size, size)
    return sliding_window_view(x, window)[:, 0, ::stride, ::stride, 0]


def convolution(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """A convolution of images or of a feature map (B, R, H, W), padded with zeros.

    The result has A's layout: (B, N, F), patches row by row, or (B, F, h, w).
    """
    source, module = input_of(tap, context), module_of(tap, context)
    weight, *biases = params_of(tap, context)
    added: Array | float = biases[0] if biases else 0.0
    row, size = row_of(tap, context), weight.shape[-1]
    stride, padding = row.stride, row.padding

    def convolve(
        x: Array,
        kernel: Array,
        bias: Array | float = added,
        step: int = stride,
        border: int = padding,
    ) -> Array:
        around = ((0, 0), (0, 0), (border, border), (border, border))
        windows = patches(np.pad(x, around), size, step)
        flat = windows.reshape(*windows.shape[:3], -1)
        result = flat @ kernel.reshape(len(kernel), -1).T + bias
        if pair.expected.ndim == 4:
            return np.asarray(result.transpose(0, 3, 1, 2))
        return np.asarray(result.reshape(len(x), -1, len(kernel)))

    text = f"the convolution {module} as defined gives B"
    yield Hypothesis("as defined", text, convolve(source, weight))
    if biases:
        yield Hypothesis("no bias", f"{module}.bias is not added", convolve(source, weight, 0.0))
    for code, text, kernel in (
        ("transposed", "the kernel is transposed: rows and columns", weight.swapaxes(2, 3)),
        ("channels", "the channels are reversed: BGR for RGB", weight[:, ::-1]),
        ("flipped", "the kernel is flipped: a true convolution", weight[:, :, ::-1, ::-1]),
        ("layout", "the kernel is read as (rows, columns, channels)", channels_last(weight)),
    ):
        yield Hypothesis(code, text, convolve(source, kernel))
    text = "height and width of the images are exchanged"
    yield Hypothesis("images turned", text, convolve(source.swapaxes(2, 3), weight))
    for wrong in {1, 2, size} - {stride}:
        text = f"stride {wrong} instead of {stride}"
        yield Hypothesis("stride", text, convolve(source, weight, step=wrong))
    for wrong in {0, size // 2} - {padding}:
        text = f"padding {wrong} instead of {padding}"
        yield Hypothesis("padding", text, convolve(source, weight, border=wrong))
    yield from short_products(lambda short: convolve(short(source), short(weight)))


def mean_over_positions(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """The mean over the last two axes of a feature map (B, F, h, w)."""
    x = input_of(tap, context)
    axes = (2, 3)
    yield Hypothesis("as defined", "the mean over positions gives B", x.mean(axes))
    yield Hypothesis("pooling", "the sum over positions, not the mean", x.sum(axes))
    yield Hypothesis("pooling", "the largest over positions, not the mean", x.max(axes))
    yield Hypothesis("pooling", "the first position alone", x[:, :, 0, 0])
    yield Hypothesis("pooling", "the mean over rows of the first column", x.mean(2)[:, :, 0])


def channels_last(weight: Array) -> Array:
    """The stored numbers of a kernel (F, R, P, P), read as if they were (F, P, P, R)."""
    width, channels, size, _ = weight.shape
    return weight.reshape(width, size, size, channels).transpose(0, 3, 1, 2)
