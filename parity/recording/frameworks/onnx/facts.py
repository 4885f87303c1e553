"""What ONNX's nodes are: canonical operations and their settings, as tables."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx

Attributes = Mapping[str, Any]
Settings = Callable[[Attributes, int], dict[str, Any]]  # attributes, spatial axes


def _per_axis(value: Sequence[int] | None, count: int, default: int) -> list[int]:
    return [int(number) for number in value] if value else [default] * count


def _padding(attributes: Attributes, count: int) -> Any:
    """One number for each axis if both ends have it; else pairs of start and end, or `SAME_...`."""
    automatic = attributes.get("auto_pad", "NOTSET")
    if automatic not in ("NOTSET", "VALID"):
        return automatic
    numbers = _per_axis(attributes.get("pads"), 2 * count, 0)
    pairs = list(zip(numbers[:count], numbers[count:], strict=True))
    symmetric = all(start == end for start, end in pairs)
    return [start for start, _ in pairs] if symmetric else [list(pair) for pair in pairs]


def _convolution(attributes: Attributes, count: int) -> dict[str, Any]:
    return {
        "stride": _per_axis(attributes.get("strides"), count, 1),
        "padding": _padding(attributes, count),
        "dilation": _per_axis(attributes.get("dilations"), count, 1),
        "groups": attributes.get("group", 1),
        "padding_mode": "zeros",
        "transposed": False,
        "output_padding": _per_axis(attributes.get("output_padding"), count, 0),
    }


def _transposed(attributes: Attributes, count: int) -> dict[str, Any]:
    return _convolution(attributes, count) | {"transposed": True}


def _max_pool(attributes: Attributes, count: int) -> dict[str, Any]:
    return {
        "kernel": [int(number) for number in attributes["kernel_shape"]],
        "stride": _per_axis(attributes.get("strides"), count, 1),
        "padding": _padding(attributes, count),
        "dilation": _per_axis(attributes.get("dilations"), count, 1),
        "ceil_mode": bool(attributes.get("ceil_mode", 0)),
    }


def _mean_pool(attributes: Attributes, count: int) -> dict[str, Any]:
    settings = {k: v for k, v in _max_pool(attributes, count).items() if k != "dilation"}
    return settings | {"count_include_pad": bool(attributes.get("count_include_pad", 0))}


def _global(attributes: Attributes, count: int) -> dict[str, Any]:
    return {"size": [1] * count}


def _gelu(attributes: Attributes, count: int) -> dict[str, Any]:
    return {"form": {"none": "exact"}.get(form := attributes.get("approximate", "none"), form)}


def _layer_norm(attributes: Attributes, count: int) -> dict[str, Any]:
    axis = attributes.get("axis", -1)
    settings: dict[str, Any] = {"eps": attributes.get("epsilon", 1e-5)}
    return settings | ({"axes": list(range(axis, 0))} if axis < 0 else {})


def _values(**names: tuple[str, Any]) -> Settings:
    """Settings that are attributes: setting -> the attribute and its default."""
    return lambda attributes, count: {
        key: attributes.get(name, default) for key, (name, default) in names.items()
    }


# type of a node -> operation, settings (defaults: those of ONNX's operators)
OPERATIONS: dict[str, tuple[str, Settings]] = {
    "Conv": ("convolution", _convolution),
    "ConvTranspose": ("convolution", _transposed),
    "Gemm": ("linear", _values()),
    "BatchNormalization": ("batch_norm", _values(eps=("epsilon", 1e-5))),
    "LayerNormalization": ("layer_norm", _layer_norm),
    "GroupNormalization": (
        "group norm",
        _values(groups=("num_groups", None), eps=("epsilon", 1e-5)),
    ),
    "Relu": ("relu", _values()),
    "LeakyRelu": ("leaky relu", _values(slope=("alpha", 0.01))),
    "HardSwish": ("hard swish", _values()),
    "Gelu": ("gelu", _gelu),
    "Sigmoid": ("sigmoid", _values()),
    "Softmax": ("softmax", _values(axis=("axis", -1))),
    "MaxPool": ("max pool", _max_pool),
    "AveragePool": ("mean pool", _mean_pool),
    "GlobalAveragePool": ("adaptive mean pool", _global),
    "GlobalMaxPool": ("adaptive max pool", _global),
    "Dropout": ("dropout", _values()),
    "Flatten": ("flatten", _values()),
    "Identity": ("identity", _values()),
}


def attributes_of(node: Any) -> dict[str, Any]:
    """The attributes of a node; floats as a person writes them (1e-05, as ONNX has float32)."""
    found = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        value = value.decode() if isinstance(value, bytes) else value
        found[attribute.name] = float(f"{value:.7g}") if isinstance(value, float) else value
    return found


def facts_of(node: Any, axes: int) -> tuple[str, dict[str, Any]]:
    """(canonical operation, canonical settings); `axes`: of the node's weight or input."""
    if node.op_type not in OPERATIONS:
        return "", {}
    operation, settings = OPERATIONS[node.op_type]
    attributes = attributes_of(node)
    count = len(attributes.get("kernel_shape", [])) or max(axes - 2, 0)
    return operation, settings(attributes, count)
