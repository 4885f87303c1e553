"""Functions of Jittor that have kinks, and random masks: patched once, so that both are seen.

Jittor has no way to watch a function, so `patch` replaces each by a wrapper, before the builder
imports the model. A wrapper does nothing by itself: `watcher` decides. Some functions use a kinked
one where no gradient depends on the corner (`softmax` subtracts the maximum; a norm keeps its
variance above zero): inside them nothing is reported.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from parity.comparison.sketch import Array
from parity.recording.adapter import AroundFunction

# kind, settings and operands of a call; None: this call has no kink
Found = tuple[str, dict[str, Any], tuple[Any, ...]] | None


class Watcher:
    """What the wrappers do now. `around`: as `Adapter.intercept_functions` says."""

    def __init__(self) -> None:
        self.around: AroundFunction | None = None
        self.inside = 0  # depth of functions whose inner calls are not reported
        self.masks = True  # whether random masks act

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Within: no call is reported."""
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1


watcher = Watcher()


def is_var(value: Any) -> bool:
    """Whether a value is an array of Jittor with floats."""
    return hasattr(value, "stop_fuse") and value.dtype.is_float()


def unary(kind: str) -> Callable[..., Found]:
    """A function of one array without settings."""

    def find(x: Any) -> Found:
        return (kind, {}, (x,)) if is_var(x) else None

    return find


def leaky(x: Any, scale: float = 0.01) -> Found:
    """`nn.leaky_relu`."""
    return ("leaky relu", {"slope": float(scale)}, (x,)) if is_var(x) else None


def clamp(x: Any, min_v: Any = None, max_v: Any = None) -> Found:
    """`jt.clamp`; limits that are arrays have no fixed corner."""
    if not is_var(x) or is_var(min_v) or is_var(max_v) or min_v is max_v is None:
        return None
    limits = (None if limit is None else float(limit) for limit in (min_v, max_v))
    return "clamp", dict(zip(("min", "max"), limits, strict=True)), (x,)


def extremum(name: str) -> Callable[..., Found]:
    """`jt.maximum` and `jt.minimum`: a clamp, if one operand is a number."""

    def find(x: Any, y: Any) -> Found:
        if is_var(x) and is_var(y):
            # Each element comes from one operand; a broadcast operand has no element of its own.
            same = tuple(x.shape) == tuple(y.shape)
            return (name, {}, (x, y)) if same else None
        array, limit = (x, y) if is_var(x) else (y, x)
        if not is_var(array) or not isinstance(limit, (int, float)):
            return None
        if name == "maximum":
            return clamp(array, min_v=limit)
        return clamp(array, max_v=limit)

    return find


def pool(module: Any, x: Any) -> Found:
    """A maximum without indices; sizes as in pool.py, `Pool.execute`."""
    if module.op != "maximum" or module.return_indices or not is_var(x):
        return None
    axes = []
    for size, kernel, stride, padding in zip(
        x.shape[2:], module.kernel_size, module.stride, module.padding, strict=True
    ):
        room = size + 2 * padding - kernel + (stride - 1 if module.ceil_mode else 0)
        axis = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": 1}
        axes.append({**axis, "out": room // stride + 1})
    return "max pool", {"axes": axes, "ceil_mode": bool(module.ceil_mode)}, (x,)


# Place of a kinked function -> what a call of it is. `nn.X()` is a class made from a function.
KINKED: Mapping[str, Callable[..., Found]] = {
    "nn.relu": unary("relu"),
    "nn.Relu()": unary("relu"),
    "nn.relu6": unary("relu6"),
    "nn.ReLU6()": unary("relu6"),
    "nn.leaky_relu": leaky,
    "nn.Leaky_relu()": leaky,
    "clamp": clamp,
    "Var.clamp": clamp,
    "maximum": extremum("maximum"),
    "Var.maximum": extremum("maximum"),
    "minimum": extremum("minimum"),
    "Var.minimum": extremum("minimum"),
    "abs": unary("abs"),
    "Var.abs": unary("abs"),
    "pool.Pool.execute": pool,
    "pool.Pool3d.execute": pool,
}

# Functions whose inner kinks do not count.
SMOOTH = (
    "nn.softmax",
    "nn.Softmax()",
    "nn.log_softmax",
    "Var.softmax",
    "Var.log_softmax",
    "nn.softplus",
    "nn.Softplus.execute",
    "nn.layer_norm",
    "nn.group_norm",
    "nn.instance_norm",
    "nn.BatchNorm.execute",
    "nn.LayerNorm.execute",
    "nn.GroupNorm.execute",
    "nn.InstanceNorm.execute",
    "nn.cross_entropy_loss",
    "nn.binary_cross_entropy_with_logits",
    "nn.bce_loss",
)

# Modules that draw a mask. Functions such as `nn.dropout` make such a module for one call.
MASKS = ("nn.Dropout.execute", "nn.Dropout2d.execute", "nn.DropPath.execute")


def kinked(original: Callable[..., Any], find: Callable[..., Found]) -> Callable[..., Any]:
    """A function that reports its calls to `watcher.around`, where one is set."""

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if watcher.around is None or watcher.inside:
            return original(*args, **kwargs)
        try:
            found = find(*args, **kwargs)
        except TypeError:  # other arguments than the function has: it will say so itself
            found = None

        def call() -> Any:
            with watcher.quiet():
                return original(*args, **kwargs)

        return watcher.around(found[0], found[1], call, found[2]) if found else call()

    return wrapper


def smooth(original: Callable[..., Any]) -> Callable[..., Any]:
    """A function inside which nothing is reported."""

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with watcher.quiet():
            return original(*args, **kwargs)

    return wrapper


def masked(original: Callable[..., Any]) -> Callable[..., Any]:
    """A random mask that can be off."""

    @functools.wraps(original)
    def wrapper(module: Any, x: Any) -> Any:
        return original(module, x) if watcher.masks else x

    return wrapper


def patch(jittor: Any) -> None:
    """Replace every function of the tables; once a process."""
    if getattr(jittor, "parity_patched", False):
        return
    jittor.parity_patched = True
    wrappers: dict[str, Callable[[Any], Any]] = {
        place: functools.partial(kinked, find=find) for place, find in KINKED.items()
    }
    wrappers |= dict.fromkeys(SMOOTH, smooth) | dict.fromkeys(MASKS, masked)
    for place, wrap in wrappers.items():
        *owners, name = place.removesuffix("()").split(".")
        owner = functools.reduce(getattr, owners, jittor)
        if place.endswith("()"):
            execute = getattr(owner, name).execute
            cell = execute.__closure__[execute.__code__.co_freevars.index("func")]
            cell.cell_contents = wrap(cell.cell_contents)
        else:
            setattr(owner, name, wrap(getattr(owner, name)))


def choice_at_ties(
    kind: str, settings: Mapping[str, Any], operands: Sequence[Array]
) -> Array | None:
    """Regions by Jittor's formulas where an element is on a corner; None: the lower region.

    `maximum` and `minimum` give the gradient to the second operand where it equals the result
    (binary_op.cc, `BinaryOp::grad`), so a clamp has no slope at its limits. `abs` has slope 1 at 0
    (unary_op.cc, `UnaryOp::grad`).
    """
    x = operands[0]
    if kind == "abs":
        return np.asarray(x >= 0, np.uint8)
    if kind == "minimum":
        return np.asarray(x >= operands[1], np.uint8)
    if kind in ("clamp", "relu6"):
        low, high = (0.0, 6.0) if kind == "relu6" else (settings["min"], settings["max"])
        region = np.zeros(x.shape, np.uint8)
        if low is not None:
            region += x > low
        if high is not None:
            region += x >= high
        return region
    return None
