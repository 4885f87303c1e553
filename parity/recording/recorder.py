"""One recorded pass: taps of every leaf module, its inputs, and the choices at kinks.

`Recorder` is `around` of the adapter's interceptions. A leaf's output is recorded, and the model
gets a copy of it: an in-place ReLU or `+=` cannot change the tap, and the gradient by the tap is
the gradient by the module's output.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from parity.comparison.modes import mode_of
from parity.comparison.sketch import Array
from parity.errors import ParityError
from parity.recording.adapter import Adapter, Call, Module
from parity.recording.choices import (
    INDEXED,
    TWO_OPERANDS,
    choose,
    coefficients,
    corners,
    flat_indices,
    margin_of,
    near_ties,
)
from parity.recording.following import Branch, Handed, digest_of
from parity.recording.structure import Slot, leaves, rebuild

ROOT = "model"  # stands for the empty path of the model itself
OUTPUT = "output"  # the model's output; its parts are `output.1`, `output.key`


@dataclass
class ModuleCall:
    """A call of a leaf module: its arguments, with a slot for each tensor, and what they are."""

    name: str
    module: Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    reads: list[str]  # the tap of each slot
    shapes: dict[str, tuple[int, ...]]  # of those taps
    outputs: list[str] = field(default_factory=list)  # the tap of each output
    parts: set[str] = field(
        default_factory=set
    )  # taps of `reads` that are parts of complex numbers


@dataclass
class Recorder:
    """What one pass recorded. `stage` is the words before each stage, such as `training `."""

    adapter: Adapter
    modules: Mapping[str, Module]
    branch: Branch
    stage: str = ""
    handed: Handed | None = None
    taps: dict[str, Array] = field(default_factory=dict)
    natives: dict[str, Any] = field(default_factory=dict)  # outputs of leaves, in the graph
    kinks: dict[str, dict[str, Any]] = field(default_factory=dict)
    operations: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: dict[str, ModuleCall] = field(default_factory=dict)
    silent: dict[str, str] = field(default_factory=dict)  # leaves without a tap -> what they return
    active: bool = True
    alone: bool = False  # one module runs alone, on inputs that `fed` declared
    running: list[str] = field(default_factory=list)  # names of the modules that run now
    _counts: dict[str, int] = field(default_factory=dict)
    _known: dict[tuple[Any, ...], str] = field(default_factory=dict)  # digest -> latest tap
    _leaf: str = ""

    def around_module(
        self, path: str, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run one module; record it if it is a leaf that is not inside another leaf."""
        module = self.modules.get(path)
        if not self.active or self._leaf or module is None:
            return call(*args, **kwargs)
        name = self._numbered(_free_name(path))
        self.running.append(name)
        if not module.is_leaf:
            output = call(*args, **kwargs)
            self.running.pop()
            return output
        self._leaf = name
        try:
            reads = self._record_inputs(name, (args, kwargs))
            output = call(*args, **kwargs)
        finally:
            self._leaf = ""
        output = self._own_output(output, (args, kwargs))
        kept = self._template(name, module, (args, kwargs), reads)
        copied = self._record_outputs(name, output, kept)
        self.calls[name] = kept
        self.running.pop()
        return copied

    def around_function(
        self, kind: str, settings: Mapping[str, Any], call: Call, operands: tuple[Any, ...]
    ) -> Any:
        """Run one kinked function; record its choice, and follow the one that was handed over."""
        if not self.active:
            return call()
        place = self._leaf or f"{self._container()}:{kind.replace(' ', '_')}"
        name = self._numbered(place, "kink")
        arrays = [self.adapter.array(operand) for operand in operands]
        if self.alone and _identity(margin_of(kind, arrays)) in self._known:
            return call()  # both sides choose from the same numbers
        own = self.adapter.choose(kind, settings, operands)
        own = choose(kind, settings, arrays) if own is None else own
        stage = f"{self.stage}choices"
        self.kinks[f"{stage}/{name}"] = {
            "kind": kind,
            "input": self._tap_of(name, margin_of(kind, arrays)),
            "corners": corners(kind, settings),
            "settings": dict(settings),
        }
        self.taps[f"{stage}/{name}"] = own
        given = self.handed.take(stage, name, kind, own.shape) if self.handed else None
        if given is None or np.array_equal(given, own):
            self.branch.add(stage, kind, own)
            return call()
        assert self.handed
        near = near_ties(kind, settings, arrays, own, given)
        self.handed.kept[mode_of(stage)] += int(np.count_nonzero((given != own) & ~near))
        used = np.where(near, given, own).astype(own.dtype)
        self.branch.add(stage, kind, used)
        if not near.any():
            return call()
        return self.adapter.branch(lambda *x: self._on_branch(kind, settings, x, used), operands)

    def fed(self, name: str, arrays: Mapping[str, Array]) -> None:
        """Say which leaf runs alone, and on which arrays."""
        self._leaf = name
        self._known = {_identity(array): tap for tap, array in arrays.items()}

    def record_model_outputs(self, output: Any) -> list[Any]:
        """Record the model's outputs; return those of floats, in the graph."""
        floats = []
        for place, native in leaves(output, self.adapter.is_tensor):
            name = f"{self.stage}forward/{OUTPUT}{'' if place == '.0' else place}"
            self.taps[name] = self.adapter.array(native)
            if self.taps[name].dtype.kind == "f":
                self.natives[name] = native
                floats.append(native)
        if not floats:
            raise ParityError(
                f"{self.stage}forward: output: expected a tensor of floats, or a tuple, list, dict "
                f"or dataclass with one, found {type(output).__name__}; let the model return one, "
                "or leave this mode out of `modes`"
            )
        return floats

    def _on_branch(
        self, kind: str, settings: Mapping[str, Any], operands: tuple[Any, ...], choice: Array
    ) -> Any:
        """The function on the branch of a given choice, by the framework's own operators."""
        adapter, x = self.adapter, operands[0]
        if kind in INDEXED:
            return adapter.take(x, flat_indices(kind, settings, tuple(x.shape), choice))
        if kind in TWO_OPERANDS or kind == "prelu":
            above = adapter.tensor(choice.astype(np.float64))
            below = adapter.tensor(1.0 - choice)
            if kind == "minimum":
                above, below = below, above
            return x * above + (x * operands[1] if kind == "prelu" else operands[1]) * below
        constant, slope, square = coefficients(kind, settings, choice)
        output = x * adapter.tensor(slope) + adapter.tensor(constant)
        return output + x * x * adapter.tensor(square) if square.any() else output

    def _record_inputs(self, name: str, arguments: Any) -> list[str]:
        tensors = leaves(arguments, self.adapter.is_tensor)
        arrays = [self.adapter.array(native) for _, native in tensors]
        return [
            self._tap_of(f"{name}.{number}" if number else name, array)
            for number, array in enumerate(arrays)
        ]

    def _own_output(self, output: Any, arguments: Any) -> Any:
        """The output, with copies of tensors that the module returned as it got them.

        So the gradient by an identity's output has no part of the other uses of its input.
        """
        given = {id(native) for _, native in leaves(arguments, self.adapter.is_tensor)}
        copy = self.adapter.copy
        return rebuild(output, self.adapter.is_tensor, lambda t: copy(t) if id(t) in given else t)

    def _record_outputs(self, name: str, output: Any, call: ModuleCall) -> Any:
        copies: dict[int, Any] = {}
        for place, native in leaves(output, self.adapter.is_tensor):
            tap = f"{self.stage}forward/{name}{place}"
            array = self._add(tap, self.adapter.array(native))
            call.outputs.append(tap)
            self.operations[tap] = self._facts(call)
            if array.dtype.kind == "f":
                self.natives[tap] = native
                copies[id(native)] = self.adapter.copy(native)
        if not call.outputs and type(output).__module__ not in ("builtins", "numpy"):
            self.silent[name] = type(output).__name__
        return rebuild(output, self.adapter.is_tensor, lambda t: copies.get(id(t), t))

    def _facts(self, call: ModuleCall) -> dict[str, Any]:
        module = call.module
        return {
            "operation": module.operation,
            "reads": call.reads,
            "params": list(module.parameters),
            "settings": dict(module.settings),
            "module": module.class_name,
            "source": module.source,
        }

    def _template(
        self, name: str, module: Module, arguments: tuple[Any, Any], reads: list[str]
    ) -> ModuleCall:
        slots = map(Slot, range(len(reads)))
        args, kwargs = rebuild(arguments, self.adapter.is_tensor, lambda _: next(slots))
        shapes = {tap: self.taps[tap].shape for tap in reads}
        tensors = [native for _, native in leaves(arguments, self.adapter.is_tensor)]
        pairs = zip(reads, tensors, strict=True)
        parts = {tap for tap, native in pairs if self.adapter.is_complex(native)}
        return ModuleCall(name, module, args, kwargs, reads, shapes, parts=parts)

    def _tap_of(self, name: str, array: Array) -> str:
        """The latest tap with these numbers, bit by bit; else a new tap `inputs/NAME`."""
        known = self._known.get(_identity(array))
        if not known and self.adapter.channels_last and array.ndim > 3:
            known = self._known.get(_identity(np.moveaxis(array, 1, -1)))
        if known:
            return known
        tap = f"{self.stage}inputs/{name}"
        while tap in self.taps:
            tap += "'"
        self._add(tap, array)
        return tap

    def _add(self, tap: str, array: Array) -> Array:
        self.taps[tap] = array
        self._known[_identity(array)] = tap
        return array

    def _container(self) -> str:
        return self.running[-1] if self.running else ROOT

    def _numbered(self, name: str, kind: str = "module") -> str:
        """The name, with its number from the second call."""
        count = self._counts[f"{kind} {name}"] = self._counts.get(f"{kind} {name}", 0) + 1
        return name if count == 1 else f"{name}#{count}"


def _free_name(path: str) -> str:
    """The name of a module's taps: its path, changed where that is a name of the recorder's own."""
    first, dot, rest = path.partition(".")
    if first == OUTPUT or path == ROOT:
        return f"({first}){dot}{rest}"
    return path or ROOT


def _identity(array: Array) -> tuple[Any, ...]:
    return (digest_of(array), array.shape, array.dtype.str)
