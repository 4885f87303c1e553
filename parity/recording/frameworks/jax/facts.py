"""What flax.linen's modules are: canonical operations, settings and layouts, as tables."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn

KERNEL_LAYOUTS = {3: "WIO", 4: "HWIO", 5: "DHWIO"}
CHANNELS_LAST = "channels last"
WHOLE = (nn.MultiHeadDotProductAttention,)  # one operation; its inside is not recorded


def per_axis(value: Any, count: int) -> list[int]:
    """One number for each spatial axis; None: 1."""
    numbers = [1 if value is None else value] if not isinstance(value, Sequence) else list(value)
    numbers = numbers * count if len(numbers) == 1 else numbers
    return [int(number) for number in numbers]


def padding_of(padding: Any, kernel: Sequence[int], stride: Any, dilation: Any) -> Any:
    """One number for each axis if both ends have it; else pairs, or `SAME`, as flax has it.

    `SAME` with a stride pads the end more than the start, by an amount that the input decides.
    """
    if isinstance(padding, str):
        if padding == "VALID":
            return [0] * len(kernel)
        reach = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        symmetric = all(r % 2 == 0 for r in reach) and set(stride) == {1}
        return [r // 2 for r in reach] if padding == "SAME" and symmetric else padding
    if isinstance(padding, int):
        return [padding] * len(kernel)
    pairs = [(p, p) if isinstance(p, int) else tuple(p) for p in padding]
    pairs = pairs * len(kernel) if len(pairs) == 1 else pairs
    if all(low == high for low, high in pairs):
        return [int(low) for low, _ in pairs]
    return [[int(low), int(high)] for low, high in pairs]


def _convolution(module: Any) -> dict[str, Any]:
    kernel = per_axis(module.kernel_size, 1)
    stride = per_axis(module.strides, len(kernel))
    dilation = per_axis(module.kernel_dilation, len(kernel))
    return {
        "stride": stride,
        "padding": padding_of(module.padding, kernel, stride, dilation),
        "dilation": dilation,
        "groups": getattr(module, "feature_group_count", 1),
        "padding_mode": {"CIRCULAR": "circular", "REFLECT": "reflect"}.get(
            str(module.padding), "zeros"
        ),
        "transposed": isinstance(module, nn.ConvTranspose),
        "output_padding": [0] * len(kernel),
    }


def _batch_norm(module: Any) -> dict[str, Any]:
    # The share of the newest batch, as a person writes it: 1 - 0.9 is 0.09999999999999998.
    return {"eps": module.epsilon, "momentum": round(1.0 - module.momentum, 12)}


def _layer_norm(module: Any) -> dict[str, Any]:
    return {"eps": module.epsilon, "axes": per_axis(module.reduction_axes, 1)}


Settings = Callable[[Any], Mapping[str, Any]]

# class, with its subclasses -> operation and settings; the first that fits counts
OPERATIONS: dict[type, tuple[str, Settings]] = {
    nn.Conv: ("convolution", _convolution),
    nn.ConvTranspose: ("convolution", _convolution),
    nn.Dense: ("linear", lambda module: {}),
    nn.DenseGeneral: ("linear", lambda module: {}),
    nn.BatchNorm: ("batch_norm", _batch_norm),
    nn.LayerNorm: ("layer_norm", _layer_norm),
    nn.GroupNorm: ("group norm", lambda m: {"groups": m.num_groups, "eps": m.epsilon}),
    nn.Dropout: ("dropout", lambda module: {"p": module.rate}),
    nn.Embed: ("embedding", lambda module: {}),
    nn.MultiHeadDotProductAttention: ("attention", lambda module: {"heads": module.num_heads}),
}


def facts_of(module: Any) -> tuple[str, dict[str, Any]]:
    """(canonical operation, canonical settings); empty for any other module."""
    for known, (operation, settings) in OPERATIONS.items():
        if isinstance(module, known):
            return operation, dict(settings(module))
    return "", {}


def kernel_layout(module: Any, name: str, axes: int) -> str:
    """The layout of a parameter (`kernel`, `bias`, ...), for torch's; empty: the same."""
    if name != "kernel":
        return ""
    if isinstance(module, nn.Conv):
        return KERNEL_LAYOUTS.get(axes, "")
    return "(in, out)" if isinstance(module, (nn.Dense, nn.DenseGeneral)) else ""


def activation_layout(module: Any, axes: int) -> str:
    """The layout of a module's input and output of so many axes; empty: the same as torch's."""
    channels = isinstance(module, (nn.Conv, nn.ConvTranspose, nn.BatchNorm, nn.GroupNorm))
    spatial = channels and axes > 2 or isinstance(module, nn.Dropout) and axes > 3
    return CHANNELS_LAST if spatial else ""
