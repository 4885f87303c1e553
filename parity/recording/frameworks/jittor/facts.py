"""What a module of Jittor computes: canonical operation, settings, and where its code stands."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Facts = tuple[str, dict[str, Any]]


def per_axis(value: Any, axes: int) -> list[int]:
    """A number for each axis, as a list: a setting may be one number for all."""
    values = list(value) if isinstance(value, (tuple, list)) else [value] * axes
    return [int(number) for number in values]


def convolution(module: Any, axes: int, transposed: bool = False) -> Facts:
    """Settings of a convolution; Conv1d has two numbers, of which the first counts."""
    groups = getattr(module, "groups", getattr(module, "group", 1))
    settings = {
        name: per_axis(getattr(module, name, default), axes)[:axes]
        for name, default in (("stride", 1), ("padding", 0), ("dilation", 1), ("output_padding", 0))
    }
    return "convolution", {
        **settings,
        "groups": int(groups),
        "padding_mode": "zeros",
        "transposed": transposed,
    }


def pool(module: Any, axes: int) -> Facts:
    """Settings of `Pool`: `op` is maximum or mean; any other has no canonical name."""
    padding = per_axis(module.padding, axes)
    settings = {
        "kernel": per_axis(module.kernel_size, axes),
        "stride": per_axis(module.stride, axes),
        "padding": padding,
        "ceil_mode": bool(module.ceil_mode),
    }
    if module.op == "maximum":
        return "max pool", {**settings, "dilation": [1] * axes}
    if module.op == "mean":
        # Jittor stores False where nothing is padded; there the setting changes nothing.
        counts = bool(module.count_include_pad) or not any(padding)
        return "mean pool", {**settings, "count_include_pad": counts}
    return "", {}


def adaptive(kind: str) -> Callable[[Any], Facts]:
    """Settings of an adaptive pool; None keeps a size."""

    def facts(module: Any) -> Facts:
        size = module.output_size
        sizes = list(size) if isinstance(size, (tuple, list)) else [size, size]
        return kind, {"size": [None if number is None else int(number) for number in sizes]}

    return facts


def argument(module: Any, place: int, name: str, default: Any) -> Any:
    """An argument of a module that `make_module` made from a function."""
    given = module.args[place] if place < len(module.args) else default
    return module.kw.get(name, given)


def upsample(module: Any) -> Facts:
    """Settings of `Upsample` and `Resize`."""
    scale, size = getattr(module, "scale_factor", None), getattr(module, "size", None)
    return "upsample", {
        "mode": module.mode,
        "align_corners": bool(module.align_corners),
        "size": None if size is None else per_axis(size, 2),
        "scale": list(scale) if isinstance(scale, tuple) else scale,
    }


# Class of Jittor that defines `execute` -> its facts. A subclass with its own `execute` has none.
CLASSES: Mapping[str, Callable[[Any], Facts]] = {
    "Conv": lambda m: convolution(m, 2),
    "Conv1d": lambda m: convolution(m, 1),
    "Conv3d": lambda m: convolution(m, 3),
    "ConvTranspose": lambda m: convolution(m, 2, transposed=True),
    "ConvTranspose3d": lambda m: convolution(m, 3, transposed=True),
    "Linear": lambda m: ("linear", {}),
    "BatchNorm": lambda m: (
        "batch_norm",
        {"eps": float(m.eps), "momentum": float(m.momentum), "training": bool(m.is_train)},
    ),
    "LayerNorm": lambda m: (
        "layer_norm",
        {"eps": float(m.eps), "axes": list(range(-len(m.normalized_shape), 0))},
    ),
    "GroupNorm": lambda m: ("group norm", {"groups": int(m.num_groups), "eps": float(m.eps)}),
    "Sigmoid": lambda m: ("sigmoid", {}),
    "Pool": lambda m: pool(m, 2),
    "Pool3d": lambda m: pool(m, 3),
    "MaxPool2d": lambda m: pool(m._layer, 2),
    "MaxPool3d": lambda m: pool(m._layer, 3),
    "AvgPool2d": lambda m: pool(m.layer, 2),
    "AvgPool3d": lambda m: pool(m.layer, 3),
    "AdaptiveAvgPool2d": adaptive("adaptive mean pool"),
    "AdaptiveMaxPool2d": adaptive("adaptive max pool"),
    "Dropout": lambda m: ("dropout", {"p": float(m.p)}),
    "Dropout2d": lambda m: ("dropout", {"p": float(m.p)}),
    "Embedding": lambda m: ("embedding", {}),
    "Upsample": upsample,
    "Resize": upsample,
    "Flatten": lambda m: ("flatten", {}),
    "Identity": lambda m: ("identity", {}),
    "MultiheadAttention": lambda m: ("attention", {"heads": int(m.num_heads)}),
}

# Function that `make_module` turned into a module -> its facts.
FUNCTIONS: Mapping[str, Callable[[Any], Facts]] = {
    "relu": lambda m: ("relu", {}),
    "relu6": lambda m: ("relu6", {}),
    "leaky_relu": lambda m: ("leaky relu", {"slope": float(argument(m, 0, "scale", 0.01))}),
    "softmax": lambda m: ("softmax", {"axis": argument(m, 0, "dim", None)}),
    "gelu": lambda m: ("gelu", {"form": "exact"}),
    "silu": lambda m: ("silu", {}),
}

# Classes with modules inside that count as one operation.
WHOLE = frozenset({"MaxPool2d", "MaxPool3d", "AvgPool2d", "AvgPool3d", "MultiheadAttention"})


def executor(module: Any) -> type:
    """The class that defines the module's `execute`."""
    return next(cls for cls in type(module).__mro__ if "execute" in cls.__dict__)


def is_jittors(cls: type) -> bool:
    """Whether Jittor itself defines a class."""
    return cls.__module__.partition(".")[0] == "jittor"


def facts_of(module: Any) -> Facts:
    """Canonical operation and settings of a module; ("", {}) for any that is not Jittor's own."""
    cls = executor(module)
    if not is_jittors(cls):
        return "", {}
    table = FUNCTIONS if cls.__qualname__.startswith("make_module.") else CLASSES
    find = table.get(cls.__name__)
    return find(module) if find else ("", {})


def is_whole(module: Any) -> bool:
    """Whether a module with modules inside counts as one operation."""
    cls = executor(module)
    return is_jittors(cls) and cls.__name__ in WHOLE


def code_of(function: Any) -> Any:
    """The code that a user would read: behind wrappers, `make_module` and `fp32_guard`."""
    while True:
        function = inspect.unwrap(function)
        names = getattr(function, "__code__", None) and function.__code__.co_freevars
        if not names or "func" not in names:
            return getattr(function, "__code__", None)
        function = function.__closure__[names.index("func")].cell_contents


def source_of(module: Any) -> str:
    """`jittor/nn.py:669`: file, from its distribution's top package, and line of `execute`."""
    cls = executor(module)
    code = code_of(cls.__dict__["execute"])
    if code is None:
        return ""
    path = Path(code.co_filename)
    package = cls.__module__.partition(".")[0]
    parts = path.parts
    if package in parts[:-1]:
        start = len(parts) - 1 - parts[::-1].index(package)
        return f"{'/'.join(parts[start:])}:{code.co_firstlineno}"
    return f"{path.name}:{code.co_firstlineno}"
