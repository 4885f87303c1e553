"""Which modules a flax model has, found by calling it, and how their axes lie."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from parity.recording.adapter import Call, Module
from parity.recording.frameworks.jax.facts import WHOLE, activation_layout, facts_of, kernel_layout
from parity.recording.frameworks.jax.model import FlaxModel
from parity.recording.frameworks.jax.replay import is_array
from parity.recording.places import source_of
from parity.recording.structure import leaves


@dataclass
class Calls:
    """`around` of a pass that only looks. `seen`: (training, path) -> the module of a call."""

    model: FlaxModel
    seen: Mapping[tuple[bool, str], Any]
    axes: dict[str, int] = field(default_factory=dict)  # path -> most axes of an argument
    _order: dict[str, Any] = field(default_factory=dict)
    _callers: list[str] = field(default_factory=list)
    _containers: set[str] = field(default_factory=set)

    def around(self, path: str, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Note one call, and run it."""
        self._containers.update(self._callers[-1:])
        self._order.setdefault(path, self.seen[self.model.training, path])
        arrays = [leaf for _, leaf in leaves((args, kwargs), is_array)]
        self.axes.setdefault(path, max((leaf.ndim for leaf in arrays), default=0))
        self._callers.append(path)
        try:
            return call(*args, **kwargs)
        finally:
            self._callers.pop()

    def modules(self) -> list[Module]:
        """Every module that was called; a leaf called no other one, or is one operation."""
        whole = [path for path, module in self._order.items() if isinstance(module, WHOLE)]
        return [
            _described(self.model, path, module, path not in self._containers or path in whole)
            for path, module in self._order.items()
            if not any(path.startswith(f"{outer}.") for outer in whole)
        ]


def has_modes(model: FlaxModel) -> bool:
    """Whether training calls the model in another way than evaluation."""
    return bool(model.keywords.get("train") != model.keywords.get("eval"))


def _described(model: FlaxModel, path: str, module: Any, leaf: bool) -> Module:
    names = model.names_of(tuple(path.split(".")) if path else (), whole=leaf)
    operation, settings = facts_of(module)
    return Module(
        path,
        type(module).__name__,
        leaf,
        module,
        operation,
        settings,
        [name for name in names if model.is_parameter(name)],
        [name for name in names if not model.is_parameter(name)],
        source_of(type(module).__call__),
    )


def layouts_of(
    model: FlaxModel, modules: Sequence[Module], axes: Mapping[str, int]
) -> dict[str, str]:
    """Pattern of a name -> layout: of kernels, and of inputs and outputs with channels last."""
    found = {}
    for module in modules:
        for name in module.parameters:
            count = model.variables[name].ndim
            layout = kernel_layout(module.native, name.rpartition(".")[2], count)
            if layout:
                found[_repeated(name)] = layout
        layout = activation_layout(module.native, axes.get(module.path, 0))
        if layout:
            found[_repeated(module.path)] = layout
    return found


def _repeated(name: str) -> str:
    return re.escape(name) + r"(#\d+)?"
