"""PyTorch's kinked functions and random masks, seen wherever they are called.

`FunctionMode` is active during a recorded pass. Functions inside compiled code and inside one fused
call (`F.multi_head_attention_forward`) are not seen.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from parity.recording.adapter import AroundFunction
from parity.recording.choices import pool_axes

POOL = {"kernel": None, "stride": None, "padding": 0, "dilation": 1, "ceil_mode": False}

# name -> kind, and the arguments after the tensor in order: canonical setting -> default
Arguments = Mapping[str, Any]
KINKED: dict[str, tuple[str, Arguments]] = {
    "relu": ("relu", {}),
    "relu6": ("relu6", {}),
    "leaky_relu": ("leaky relu", {"slope": 0.01}),
    "hardtanh": ("clamp", {"min": -1.0, "max": 1.0}),
    "clamp": ("clamp", {"min": None, "max": None}),
    "clip": ("clamp", {"min": None, "max": None}),
    "clamp_min": ("clamp", {"min": None}),
    "clamp_max": ("clamp", {"max": None}),
    "hardswish": ("hard swish", {}),
    "hardsigmoid": ("hard sigmoid", {}),
    "abs": ("abs", {}),
    "absolute": ("abs", {}),
    "prelu": ("prelu", {"weight": None}),
    "maximum": ("maximum", {"other": None}),
    "minimum": ("minimum", {"other": None}),
    "max_pool1d": ("max pool", POOL),
    "max_pool2d": ("max pool", POOL),
    "max_pool3d": ("max pool", POOL),
    "adaptive_max_pool1d": ("adaptive max pool", {"size": None}),
    "adaptive_max_pool2d": ("adaptive max pool", {"size": None}),
    "adaptive_max_pool3d": ("adaptive max pool", {"size": None}),
    "max": ("max", {"axis": None, "keepdim": False}),
    "min": ("min", {"axis": None, "keepdim": False}),
    "amax": ("max", {"axis": None, "keepdim": False}),
    "amin": ("min", {"axis": None, "keepdim": False}),
    "topk": ("top-k", {"k": None, "axis": -1, "largest": True, "sorted": True}),
}
# PyTorch's names of keyword arguments -> the canonical ones
KEYWORDS = {
    "negative_slope": "slope",
    "min_val": "min",
    "max_val": "max",
    "kernel_size": "kernel",
    "output_size": "size",
    "dim": "axis",
}
RANDOM = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout",
          "feature_alpha_dropout")  # fmt: skip
SPATIAL = {"1d": 1, "2d": 2, "3d": 3}
NAMESPACES = (torch, F, torch.Tensor, torch._C._nn, torch._VF)


def _functions(names: Mapping[str, Any] | tuple[str, ...]) -> dict[Any, str]:
    """Each function of these names, also in place -> the name."""
    found: dict[Any, str] = {}
    for space in NAMESPACES:
        for name in names:
            for spelling in (name, f"{name}_"):
                function = getattr(space, spelling, None)
                if callable(function):
                    found[function] = name
    return found


KINKED_FUNCTIONS = _functions(KINKED) | {torch.Tensor.__abs__: "abs"}
RANDOM_FUNCTIONS = _functions(RANDOM)


@dataclass
class Seen:
    """A call of a kinked function: what it chooses of, and how to run it."""

    kind: str
    settings: dict[str, Any]
    operands: tuple[Any, ...]
    call: Callable[[], Any]


class FunctionMode(TorchFunctionMode):
    """Sends every kinked function of floats through `around`; `dropout` False: masks are off."""

    def __init__(self, around: AroundFunction, dropout: bool) -> None:
        super().__init__()
        self.around, self.dropout = around, dropout
        self.taken: Any = None  # indices that the last `take` used

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not self.dropout and func in RANDOM_FUNCTIONS:
            return args[0] if args else kwargs["input"]
        if not self.dropout and func in (
            F.multi_head_attention_forward,
            F.scaled_dot_product_attention,
        ):
            args, kwargs = _without_dropout(func, args, kwargs)
        name = KINKED_FUNCTIONS.get(func)
        if name is None or "out" in kwargs or kwargs.get("return_indices"):
            return func(*args, **kwargs)
        return self._kinked(name, func, args, kwargs)

    def _kinked(self, name: str, func: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        given = {KEYWORDS.get(key, key): value for key, value in kwargs.items()}
        x = args[0] if args else given.pop("input", None)
        kind, defaults = KINKED[name]
        rest = args[1:]
        if name in ("max", "min") and isinstance(
            rest[0] if rest else given.get("other"), torch.Tensor
        ):
            kind, defaults = {"max": "maximum", "min": "minimum"}[name], {"other": None}
        settings = {**defaults, **dict(zip(defaults, rest, strict=False)), **given}
        inplace = func.__name__.endswith("_") and not func.__name__.endswith("__")
        inplace = (
            bool(settings.pop("inplace", False))
            or inplace
            or (len(rest) > len(defaults) and rest[-1] is True)
        )
        settings = {key: value for key, value in settings.items() if key in defaults}
        if not (isinstance(x, torch.Tensor) and x.is_floating_point()):
            return func(*args, **kwargs)
        operand = x.clone() if inplace else x
        positional = (operand, *rest) if args else ()
        keywords = kwargs if args else {**kwargs, "input": operand}

        def call() -> Any:
            return func(*positional, **keywords)

        if name[-2:] in SPATIAL:
            settings["spatial"] = SPATIAL[name[-2:]]
        if kind in ("max", "min", "top-k"):
            return self._along_axis(kind, settings, operand, call)
        found = _canonical(kind, settings, operand)
        if found is None:
            return call() if not inplace else x.copy_(call())
        output = self.around(found[0], found[1], call, found[2])
        return x.copy_(output) if inplace else output

    def _along_axis(self, kind: str, settings: dict[str, Any], x: Any, call: Any) -> Any:
        """`max`, `min`, `amax` and `topk` along one axis; any other use runs as it is."""
        axis = settings["axis"]
        axis = axis[0] if isinstance(axis, (tuple, list)) and len(axis) == 1 else axis
        if type(axis) is not int:
            return call()
        output = call()
        values = output if isinstance(output, torch.Tensor) else output[0]
        drop = kind != "top-k" and not settings["keepdim"]
        canonical = {"axis": axis}
        if kind == "top-k":
            canonical |= {"k": settings["k"], "largest": settings["largest"]}
        self.taken = None
        found = self.around(
            kind, canonical, lambda: values.unsqueeze(axis) if drop else values, (x,)
        )
        new = found.squeeze(axis) if drop else found
        if isinstance(output, torch.Tensor):
            return new
        indices = output[1]
        if self.taken is not None:
            along = np.unravel_index(self.taken, tuple(x.shape))[axis]
            indices = torch.as_tensor(np.ascontiguousarray(along))
            indices = indices.squeeze(axis) if drop else indices
        return type(output)((new, indices))


def _canonical(
    kind: str, settings: dict[str, Any], x: Any
) -> tuple[str, dict[str, Any], tuple[Any, ...]] | None:
    """(kind, settings, operands) in canonical form; None if the choice cannot be described."""
    if kind in ("maximum", "minimum"):
        other = settings["other"]
        if not isinstance(other, torch.Tensor):
            return None
        common = np.broadcast_shapes(tuple(x.shape), tuple(other.shape))
        return kind, {}, (x.expand(common), other.expand(common))
    if kind == "prelu":
        weight = settings["weight"]
        shape = [1, -1] + [1] * (x.dim() - 2) if weight.numel() > 1 else [1] * x.dim()
        return kind, {}, (x, weight.reshape(shape))
    if kind == "clamp":
        low, high = settings.get("min"), settings.get("max")
        if isinstance(low, torch.Tensor) or isinstance(high, torch.Tensor):
            return None
        if low == 0 and high in (None, 6):
            return ("relu" if high is None else "relu6"), {}, (x,)
        return kind, {"min": low, "max": high}, (x,)
    if kind in ("max pool", "adaptive max pool"):
        if kind == "max pool" and settings["stride"] in (None, [], ()):
            settings["stride"] = settings["kernel"]
        return kind, {"axes": pool_axes(list(x.shape[-settings["spatial"] :]), settings)}, (x,)
    return kind, settings, (x,)


def _without_dropout(func: Any, args: tuple[Any, ...], kwargs: Any) -> tuple[Any, Any]:
    """The same call with its dropout probability at zero."""
    place = 10 if func is F.multi_head_attention_forward else 4  # of `dropout_p` by position
    if len(args) > place:
        return (*args[:place], 0.0, *args[place + 1 :]), kwargs
    return args, {**kwargs, "dropout_p": 0.0}
