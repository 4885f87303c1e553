"""The kinked functions of jax.nn, flax.linen and jax.numpy, seen where the user's code calls them.

The attributes of the modules are replaced during a pass. `from jax.nn import relu` at the top of a
module that was imported before is not seen, and no call inside jit, scan or checkpoint is. Arrays
with four axes or five go to the recorder with channels first, as the other frameworks have them.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import flax.linen as nn
import jax
import jax.numpy as jnp

from parity.recording.adapter import AroundFunction
from parity.recording.frameworks.jax.facts import per_axis
from parity.recording.frameworks.jax.replay import Run, is_traced

# function -> kind, and its arguments after the array: canonical setting -> default
KINKED: dict[str, tuple[str, Mapping[str, Any]]] = {
    "relu": ("relu", {}),
    "relu6": ("relu6", {}),
    "leaky_relu": ("leaky relu", {"slope": 0.01}),
    "hard_swish": ("hard swish", {}),
    "hard_silu": ("hard swish", {}),
    "hard_sigmoid": ("hard sigmoid", {}),
    "hard_tanh": ("clamp", {}),
    "max_pool": ("max pool", {"window_shape": None, "strides": None, "padding": "VALID"}),
    "maximum": ("maximum", {"other": None}),
    "minimum": ("minimum", {"other": None}),
    "abs": ("abs", {}),
    "clip": ("clamp", {"min": None, "max": None}),
}
KEYWORDS = {"negative_slope": "slope", "y": "other", "x2": "other", "a_min": "min", "a_max": "max"}
FIRST = ("x", "inputs", "arr", "x1")  # names of the array
SPACES = {
    jax.nn: ("relu", "relu6", "leaky_relu", "hard_swish", "hard_silu", "hard_sigmoid", "hard_tanh"),
    nn: ("relu", "relu6", "leaky_relu", "hard_swish", "hard_silu", "hard_sigmoid", "hard_tanh",
         "max_pool"),
    jnp: ("maximum", "minimum", "abs", "clip"),
}  # fmt: skip
LIBRARIES = ("jax", "flax", "optax", "parity")  # their own calls are not the user's
Operands = tuple[Any, ...]


class Functions:
    """Sends kinked functions through `around`; in a pass that is computed again, as then."""

    def __init__(self, around: AroundFunction, run_of: Callable[[], Run | None]) -> None:
        self.around, self.run_of = around, run_of
        self.on_branch: list[Callable[..., Any]] = []  # filled by the recorder during `around`

    @contextmanager
    def patched(self) -> Iterator[None]:
        """Within: the functions of the table are replaced."""
        with ExitStack() as stack:
            for space, names in SPACES.items():
                for name in names:
                    if hasattr(space, name):
                        wrapped = self._wrapped(name, getattr(space, name))
                        stack.enter_context(patch.object(space, name, wrapped))
            yield

    def _wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            run = self.run_of()
            caller = str(sys._getframe(1).f_globals.get("__name__", ""))
            if run is None or caller.partition(".")[0] in LIBRARIES:
                return function(*args, **kwargs)
            found = canonical(name, args, kwargs)
            if found is None or (run.deltas is None and is_traced(found[2])):
                return function(*args, **kwargs)
            return self._kinked(run, found, lambda: function(*args, **kwargs))

        return called

    def _kinked(
        self, run: Run, found: tuple[str, dict[str, Any], Operands], call: Callable[[], Any]
    ) -> Any:
        kind, settings, operands = found
        spatial = kind == "max pool" or any(x.ndim > 3 for x in operands)
        operands = tuple(channels_first(x) for x in operands) if spatial else operands
        key = run.next_call("kink", kind)
        if run.deltas is not None:
            branch = run.branches.get(key)
            if branch is None:
                return call()
            return channels_last(branch(*operands)) if spatial else branch(*operands)
        self.on_branch.clear()
        computed = (lambda: channels_first(call())) if spatial else call
        output = self.around(kind, settings, computed, operands)
        if self.on_branch:
            run.branches[key] = self.on_branch[0]
        return channels_last(output) if spatial else output


def channels_first(x: Any) -> Any:
    """(N, positions, C) -> (N, C, positions)."""
    return jnp.moveaxis(x, -1, 1)


def channels_last(x: Any) -> Any:
    """The opposite of `channels_first`."""
    return jnp.moveaxis(x, 1, -1)


def canonical(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[str, dict[str, Any], Operands] | None:
    """(kind, settings, operands) of a call; None if the choice cannot be described."""
    kind, defaults = KINKED[name]
    given = {KEYWORDS.get(key, key): value for key, value in kwargs.items()}
    first = next((given.pop(key) for key in FIRST if key in given), None)
    first, *rest = args or (first,)
    settings = {**defaults, **dict(zip(defaults, rest, strict=False)), **given}
    if kind in ("maximum", "minimum"):
        return _of_two(kind, first, settings["other"])
    if not _is_float(first):
        return None
    if kind == "max pool":
        return _pool(first, settings)
    if name == "hard_tanh":
        settings = {"min": -1.0, "max": 1.0}
    numbers = {key: _number(value) for key, value in settings.items()}
    if any(value is not None and numbers[key] is None for key, value in settings.items()):
        return None
    if kind == "clamp" and numbers["min"] == 0 and numbers["max"] in (None, 6):
        return ("relu" if numbers["max"] is None else "relu6"), {}, (first,)
    return kind, numbers, (first,)


def _of_two(kind: str, a: Any, b: Any) -> tuple[str, dict[str, Any], Operands] | None:
    for one, other in ((a, b), (b, a)):
        if kind == "maximum" and _is_float(one) and _number(other) == 0:
            return "relu", {}, (one,)
    if _is_float(a) and _is_float(b):
        return kind, {}, tuple(jnp.broadcast_arrays(a, b))
    return None


def _pool(x: Any, settings: Mapping[str, Any]) -> tuple[str, dict[str, Any], Operands] | None:
    """Flax's max pool of (N, positions, C); `SAME` pads the end more than the start."""
    kernel = list(settings["window_shape"])
    if x.ndim != len(kernel) + 2:
        return None
    stride = per_axis(settings["strides"], len(kernel))
    padding = settings["padding"]
    sizes = x.shape[1:-1]
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(sizes, kernel, stride, padding)
    axes = [
        {
            "kernel": int(k),
            "stride": s,
            "padding": int(low),
            "dilation": 1,
            "out": (size + int(low) + int(high) - int(k)) // s + 1,
        }
        for size, k, s, (low, high) in zip(sizes, kernel, stride, padding, strict=True)
    ]
    return "max pool", {"axes": axes}, (x,)


def _is_float(value: Any) -> bool:
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.floating)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
