"""Results of known mistakes in convolutions, also transposed ones.

One function for each operation, as `hypothesis.py` describes; the settings are the manifest's.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from parity.diagnose.causes.facts import Operation, input_of, operation_of, weight_and_bias
from parity.diagnose.causes.hypothesis import Hypothesis
from parity.diagnose.causes.pair import Array, Context, Pair
from parity.diagnose.causes.products import short_products

# padding mode (names of PyTorch) -> mode of np.pad
PADDING = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


@dataclass(frozen=True)
class Conv:
    """The settings of a convolution, one number per axis of the image."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    mode: str = "zeros"
    transposed: bool = False
    output_padding: tuple[int, ...] = ()

    def same(self, name: str, value: int) -> "Conv":
        """With one setting the same number on all axes."""
        changed: dict[str, Any] = {name: (value,) * len(self.stride)}
        return replace(self, **changed)


def settings_of(made: Operation, axes: int) -> Conv:
    """The settings as the manifest has them."""
    names = {"stride": 1, "padding": 0, "dilation": 1, "output_padding": 0}
    lists = {name: tuple(made.numbers(name, axes, value)) for name, value in names.items()}
    mode = str(made.settings.get("padding_mode", "zeros"))
    transposed = bool(made.settings.get("transposed", False))
    return Conv(groups=int(made.number("groups", 1)), mode=mode, transposed=transposed, **lists)


def convolve(x: Array, weight: Array, conv: Conv, channels: Array | None = None) -> Array | None:
    """A convolution: x (B, C, ...), weight (F, C / G, ...) -> (B, F, ...), of some channels F.

    None if the settings do not fit the shapes.
    """
    if conv.transposed:
        return transposed(x, weight, conv, channels)
    chosen = np.arange(len(weight)) if channels is None else channels
    share, kernel = weight.shape[1], weight.shape[2:]
    if conv.groups < 1 or x.shape[1] != share * conv.groups or len(weight) % conv.groups:
        return None
    reach = [d * (k - 1) for d, k in zip(conv.dilation, kernel, strict=True)]
    around = [(0, 0), (0, 0), *((p, p) for p in conv.padding)]
    if conv.mode == "reflect" and any(
        p >= n for p, n in zip(conv.padding, x.shape[2:], strict=True)
    ):
        return None
    padded = np.pad(x, around, mode=PADDING[conv.mode])  # type: ignore[call-overload]
    sizes = [
        (n - r - 1) // s + 1 for n, r, s in zip(padded.shape[2:], reach, conv.stride, strict=True)
    ]
    if min(sizes) < 1:
        return None
    result = np.zeros((len(x), len(chosen), *sizes))
    group_of = chosen // (len(weight) // conv.groups)
    for group in np.unique(group_of):
        rows = np.flatnonzero(group_of == group)
        source = padded[:, group * share : (group + 1) * share]
        for at in product(*map(range, kernel)):
            window = tuple(
                slice(d * i, d * i + s * (n - 1) + 1, s)
                for d, i, s, n in zip(conv.dilation, at, conv.stride, sizes, strict=True)
            )
            part = source[(slice(None), slice(None), *window)]
            factors = weight[(chosen[rows], slice(None), *at)]
            result[:, rows] += np.moveaxis(np.tensordot(factors, part, (1, 1)), 0, 1)
    return result


def transposed(x: Array, weight: Array, conv: Conv, channels: Array | None) -> Array | None:
    """A transposed convolution: x (B, C, ...), weight (C, F / G, ...) -> (B, F, ...)."""
    kernel, groups, share = weight.shape[2:], conv.groups, weight.shape[1]
    if groups < 1 or x.shape[1] % groups or len(weight) != x.shape[1]:
        return None
    facts = list(zip(x.shape[2:], conv.stride, conv.dilation, kernel, strict=True))
    sizes = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in facts]
    extra = conv.output_padding or (0,) * len(sizes)
    result = np.zeros((len(x), share * groups, *(n + e for n, e in zip(sizes, extra, strict=True))))
    each = x.shape[1] // groups
    for group in range(groups):
        inputs = slice(group * each, (group + 1) * each)
        outputs = slice(group * share, (group + 1) * share)
        for at in product(*map(range, kernel)):
            window = tuple(
                slice(d * i, d * i + s * (n - 1) + 1, s)
                for i, (n, s, d, _) in zip(at, facts, strict=True)
            )
            factors = weight[inputs].reshape(each, share, -1)[
                :, :, np.ravel_multi_index(at, kernel)
            ]
            part = np.moveaxis(np.tensordot(factors, x[:, inputs], (0, 1)), 0, 1)
            result[(slice(None), outputs, *window)] += part
    inner = tuple(slice(p, n - p) for p, n in zip(conv.padding, result.shape[2:], strict=True))
    result = result[(slice(None), slice(None), *inner)]
    return np.asarray(result if channels is None else result[:, channels])


def convolution(tap: str, context: Context, pair: Pair) -> Iterator[Hypothesis]:
    """A convolution of (B, C, ...), also a transposed one."""
    x = input_of(tap, context, pair)
    weight, *biases = weight_and_bias(tap, context)
    conv = settings_of(operation_of(tap, context), weight.ndim - 2)
    channels = pair.channels if isinstance(pair.channels, np.ndarray) else None

    def result(conv: Conv, kernel: Array = weight, source: Array = x, bias: bool = True) -> Array:
        value = convolve(source, kernel, conv, channels)
        if value is None:
            return np.zeros(0)  # the settings do not fit: no hypothesis
        added = biases[0] if bias and biases else np.zeros(1)
        if len(added) != value.shape[1] and channels is not None and len(added) > 1:
            added = added[channels]
        if len(added) not in (1, value.shape[1]):
            return np.zeros(0)
        return np.asarray(value + added.reshape(-1, *[1] * (value.ndim - 2)))

    yield Hypothesis("as defined", "the convolution as defined gives B", result(conv))
    if biases:
        yield Hypothesis(
            "no bias", "the bias of the convolution is not added", result(conv, bias=False)
        )
    for code, text, wrong in other_settings(conv, weight.shape[2:]):
        yield Hypothesis(code, text, result(wrong))
    for code, text, kernel in other_kernels(weight):
        yield Hypothesis(code, text, result(conv, kernel))
    if conv.transposed and any(conv.output_padding):
        yield from filled(conv, result, biases)
    if conv.groups > 1:
        yield from interleaved(conv, x, weight, result)
    yield from short_products(lambda short: result(conv, short(weight), short(x)))


def filled(
    conv: Conv, result: Callable[..., Array], biases: Sequence[Array]
) -> Iterator[Hypothesis]:
    """Output padding whose rows and columns are zeros, or the bias alone."""
    exact = result(conv.same("output_padding", 0))
    if not exact.size:
        return
    ends = [(0, 0), (0, 0), *((0, count) for count in conv.output_padding)]
    text = "the rows and columns of the output padding are not computed, they hold"
    yield Hypothesis("output padding", f"{text} zeros", np.pad(exact, ends))
    if biases and len(biases[0]) == exact.shape[1]:
        bias = biases[0].reshape(-1, *[1] * (exact.ndim - 2))
        value = np.pad(exact - bias, ends) + bias
        yield Hypothesis("output padding", f"{text} the bias alone", value)


def other_settings(conv: Conv, kernel: Sequence[int]) -> Iterator[tuple[str, str, Conv]]:
    """Code, sentence and settings: one setting is another, the rest are right."""
    for mode in PADDING:
        if mode != conv.mode and any(conv.padding):
            yield (
                "padding mode",
                f"padding mode {mode} instead of {conv.mode}",
                replace(conv, mode=mode),
            )
    for name, values in (
        ("dilation", (1, 2, conv.groups)),
        ("stride", (1, 2, kernel[0])),
        ("padding", (0, 1, kernel[0] // 2)),
        ("output_padding", (0, 1) if conv.transposed else ()),
    ):
        right = getattr(conv, name)
        for value in sorted(set(values)):
            if right != (value,) * len(right):
                words = name.replace("_", " ")
                shown = right[0] if len(set(right)) == 1 else list(right)
                yield words, f"{words} {value} instead of {shown}", conv.same(name, value)
    if len(set(conv.dilation)) == 1 and conv.groups != conv.dilation[0]:
        exchanged = replace(conv.same("dilation", conv.groups), groups=conv.dilation[0])
        text = (
            f"dilation and groups are exchanged: groups {exchanged.groups}, dilation {conv.groups}"
        )
        yield "dilation and groups", text, exchanged
    for name in ("stride", "padding", "dilation"):
        right = getattr(conv, name)
        if right != right[::-1]:
            yield (
                name,
                f"{name} of rows and columns is exchanged",
                replace(conv, **{name: right[::-1]}),
            )


def other_kernels(weight: Array) -> Iterator[tuple[str, str, Array]]:
    """Code, sentence and kernel: what a wrong reading of the weight gives."""
    if weight.ndim == 4 and weight.shape[2] == weight.shape[3] > 1:
        yield "transposed", "the kernel is transposed: rows and columns", weight.swapaxes(2, 3)
    if weight.shape[1] == 3:
        yield "channels", "the channels are reversed: BGR for RGB", weight[:, ::-1]
    if max(weight.shape[2:]) > 1:
        turned = weight[(slice(None), slice(None), *[slice(None, None, -1)] * (weight.ndim - 2))]
        yield "flipped", "the kernel is flipped: a true convolution", turned
    if weight.shape[0] == weight.shape[1]:
        yield (
            "transposed",
            "the kernel's channels are transposed: in and out",
            weight.swapaxes(0, 1),
        )
    if weight.shape[1] > 1 and weight.ndim == 4 and max(weight.shape[2:]) > 1:
        width, channels, rows, columns = weight.shape
        last = weight.reshape(width, rows, columns, channels).transpose(0, 3, 1, 2)
        yield "layout", "the kernel is read as (rows, columns, channels)", last


def interleaved(
    conv: Conv, x: Array, weight: Array, result: Callable[..., Array]
) -> Iterator[Hypothesis]:
    """Groups of every G-th channel instead of neighbouring ones."""
    batch, channels, *places = x.shape
    moved = x.reshape(batch, -1, conv.groups, *places).swapaxes(1, 2).reshape(x.shape)
    text = f"a group is every {conv.groups}th input channel, not neighbouring ones"
    yield Hypothesis("groups", text, result(conv, source=moved))
