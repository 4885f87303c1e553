"""The adapter of ONNX Runtime: an .onnx file, every node of which is a module.

ONNX has no gradients, no training and mostly no float64, so these are not recorded. The names are
those of PyTorch's modules where its exporter wrote them into the file.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from parity.comparison.sketch import Array
from parity.errors import ParityError
from parity.recording.adapter import Adapter, AroundModule, Module, Variable

FOLDED = "folded batch norm"  # a product that gives the norm's output


class OnnxAdapter(Adapter):
    """ONNX Runtime on the CPU, in float32."""

    name = "onnx"
    abilities = frozenset({"isolated"})
    may_fold = True

    def start(self, precision: str) -> dict[str, Any]:
        """See `Adapter`."""
        try:
            import onnx
            import onnxruntime
        except ImportError as error:
            raise ParityError(
                f"{error.name} cannot be imported here: {error}; install onnx and onnxruntime"
            ) from error
        self._around: AroundModule | None = None
        self.model: Any = None
        return {
            "version": f"{onnxruntime.__version__}, onnx {onnx.__version__}",
            "device": "cpu",
            "threads": len(os.sched_getaffinity(0)),
        }

    def finish_build(self, model: Any) -> Any:
        """See `Adapter`. The builder returns a path, bytes, or an `onnx.ModelProto`."""
        from parity.recording.frameworks.onnx.model import OnnxModel

        self.model = OnnxModel.from_build(model)
        return self.model

    def state(self, model: Any) -> dict[str, Variable]:
        """See `Adapter`: the initialisers of floats, without folded ones. Also of a file."""
        from parity.recording.frameworks.onnx.model import OnnxModel

        if not isinstance(model, OnnxModel):
            model = OnnxModel.from_build(model)
        return {
            name: Variable(np.array(value), "buffer" if name in model.statistics else "parameter")
            for name, value in model.weights.items()
            if name not in model.folded
        }

    def load(self, model: Any, arrays: Mapping[str, Array]) -> None:
        """See `Adapter`."""
        model.set_weights(arrays)

    def modules(self, model: Any) -> list[Module]:
        """See `Adapter`."""
        nodes = [self._described(path, node) for path, node in model.nodes.items()]
        return [Module("", "Graph", False, model), *nodes]

    def _described(self, path: str, node: Any) -> Module:
        from parity.recording.frameworks.onnx.facts import facts_of
        from parity.recording.frameworks.onnx.model import is_folded

        weights = [name for name in node.input if name in self.model.weights]
        axes = max((self.model.weights[name].ndim for name in weights), default=0)
        operation, settings = facts_of(node, axes)
        if node.op_type == "MatMul" and weights:
            operation = "linear"
        if is_folded(node):
            operation = FOLDED
        names = [name for name in weights if name not in self.model.folded]
        return Module(path, node.op_type, True, node, operation, settings, names)

    def replace(self, model: Any, path: str, new: Any) -> None:
        """See `Adapter`."""
        raise ParityError(f"{path}: a node of an ONNX file cannot be replaced; change the file")

    def call(self, model: Any, inputs: Sequence[Any]) -> Any:
        """See `Adapter`. The outputs are those of a session with all optimisations."""
        names = model.input_names()
        if len(names) != len(inputs):
            raise ParityError(
                f"inputs: expected {', '.join(names)}, as the file has them, found {len(inputs)}"
            )
        if self._around is None:
            return tuple(model.run(inputs))

        def whole(*inputs: Any) -> Any:
            values = model.run_inside(inputs)
            for path, node in model.nodes.items():
                self._call_node(path, node, values)
            return tuple(model.run(inputs))

        return self._around("", whole, tuple(inputs), {})

    def _call_node(self, path: str, node: Any, values: Mapping[str, Any]) -> None:
        assert self._around
        args = tuple(values[name] for name in _fed(self.model, node))
        outputs = tuple(values[name] for name in node.output if name)
        self._around(path, lambda *_: outputs if len(outputs) > 1 else outputs[0], args, {})

    def call_module(self, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See `Adapter`: a graph of one node."""
        given = dict(zip(_fed(self.model, module.native), args, strict=True))
        outputs = tuple(self.model.run_node(module.native, given))
        return outputs if len(outputs) > 1 else outputs[0]

    @contextmanager
    def intercept(self, model: Any, around: AroundModule) -> Iterator[None]:
        """See `Adapter`."""
        self._around = around
        try:
            yield
        finally:
            self._around = None

    def mode(self, model: Any, training: bool, dropout: bool) -> None:
        """See `Adapter`: an ONNX file has one mode."""

    def is_tensor(self, value: Any) -> bool:
        """See `Adapter`. Whole numbers, such as shapes, are part of the graph."""
        return isinstance(value, np.ndarray) and value.dtype.kind == "f"

    def tensor(self, array: Array) -> Any:
        """See `Adapter`."""
        return np.array(array, np.float32) if array.dtype.kind == "f" else np.array(array)

    def array(self, native: Any) -> Array:
        """See `Adapter`."""
        return np.array(native)

    def copy(self, native: Any) -> Any:
        """See `Adapter`."""
        return np.array(native)


def _fed(model: Any, node: Any) -> list[str]:
    """The inputs of a node that are computed: no weights and no constants."""
    fixed = model.weights.keys() | model.constants.keys()
    return list(dict.fromkeys(name for name in node.input if name and name not in fixed))
