"""A function of arrays as a side: `Side("numpy", build)`.

`build()` returns a function (weights, inputs) -> {tap: array} with the attribute `weights`, or both
as a tuple. Tap names are `stage/tap`, or short for `forward/tap`; the last of the forward taps is
also the output. Gradients and statistics are taps as well: `gradients/w`, `losses/loss`. A function
with an argument `training` runs in both modes.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from parity.comparison.sketch import Array
from parity.errors import ParityError
from parity.recording.adapter import Adapter, Variable

FORM = "a function (weights, inputs) -> {tap: array} and its weights: `return function, weights`"


class NumpyModel:
    """The function and its weights in the run's precision."""

    def __init__(self, function: Any, weights: Mapping[str, Array]) -> None:
        self.function = function
        self.weights = {name: np.array(value) for name, value in weights.items()}
        self.modal = "training" in inspect.signature(function).parameters


class NumpyAdapter(Adapter):
    """NumPy functions compute their own gradients, if any: nothing is intercepted."""

    name = "numpy"
    abilities = frozenset({"float64", "taps"})

    def start(self, precision: str) -> dict[str, Any]:
        """See `Adapter`."""
        self.type = np.dtype(precision)
        return {"version": np.__version__, "device": "cpu", "threads": 1}

    def finish_build(self, model: Any) -> Any:
        """See `Adapter`."""
        pair = model if isinstance(model, tuple) and len(model) == 2 else (model, None)
        function, weights = pair[0], getattr(pair[0], "weights", pair[1])
        if not callable(function) or not isinstance(weights, Mapping):
            raise ParityError(f"build: expected {FORM}, found {type(model).__name__}")
        return NumpyModel(function, {n: self.tensor(np.asarray(v)) for n, v in weights.items()})

    def state(self, model: Any) -> dict[str, Variable]:
        """See `Adapter`."""
        return {name: Variable(value.copy()) for name, value in model.weights.items()}

    def load(self, model: Any, arrays: Mapping[str, Array]) -> None:
        """See `Adapter`."""
        for name, array in arrays.items():
            model.weights[name] = self.tensor(array)

    def taps(
        self, model: Any, inputs: Mapping[str, Array], training: bool
    ) -> dict[str, Array] | None:
        """See `Adapter`."""
        if training and not model.modal:
            return None
        options = {"training": training} if model.modal else {}
        weights = {n: value.copy() for n, value in model.weights.items()}  # changed in place?
        taps = model.function(weights, dict(inputs), **options)
        if not isinstance(taps, Mapping) or not taps:
            raise ParityError(f"forward: expected a dict of taps, found {type(taps).__name__}")
        named = {k if "/" in k else f"forward/{k}": np.array(v) for k, v in taps.items()}
        outputs = [name for name in named if name.startswith("forward/")]
        if outputs and "forward/output" not in named:
            named["forward/output"] = named[outputs[-1]]
        return named

    def tensor(self, array: Array) -> Any:
        """See `Adapter`."""
        value = np.array(array)
        return value.astype(self.type) if value.dtype.kind == "f" else value
