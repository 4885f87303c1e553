"""An ONNX model in memory: its weights, its nodes by name, and sessions that run them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnxruntime

from parity.comparison.sketch import Array
from parity.errors import ParityError

# What PyTorch's exporter writes of a node: the paths and the classes of its modules, as lists.
SCOPES = "pkg.torch.onnx.name_scopes"
CLASSES = "pkg.torch.onnx.class_hierarchy"
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")  # a batch norm can be folded into these
RENAMED = "onnx::Conv"  # PyTorch's older exporter calls the weights of such products so
STATISTICS = {"BatchNormalization": (3, 4)}  # type of a node -> its inputs that are statistics
Values = dict[str, Any]


@dataclass
class OnnxModel:
    """`proto`: the model. `weights`: initialiser of floats with an axis or more -> array."""

    proto: Any
    weights: dict[str, Array] = field(default_factory=dict)
    _sessions: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_build(cls, built: Any) -> "OnnxModel":
        """The model of what a builder returned: a path, bytes, or an `onnx.ModelProto`.

        Raises:
            ParityError: it is no ONNX model.
        """
        try:
            if isinstance(built, bytes):
                proto = onnx.load_from_string(built)
            elif isinstance(built, (str, Path)):
                proto = onnx.load(str(built))
            else:
                proto = built
            if not isinstance(proto, onnx.ModelProto):
                raise ParityError(
                    "build: expected the path or the bytes of an .onnx file, found "
                    f"{type(built).__name__}"
                )
            onnx.checker.check_model(proto)
        except (OSError, ValueError, onnx.checker.ValidationError) as error:
            first = str(error).strip().split("\n")[0]
            raise ParityError(f"build: expected an ONNX model: {first}") from error
        except Exception as error:
            if type(error).__name__ != "DecodeError":  # protobuf's, which is no package of ours
                raise
            raise ParityError(f"build: expected an ONNX model: {error}") from error
        proto = onnx.inliner.inline_local_functions(proto)
        model = cls(proto)
        for tensor in proto.graph.initializer:
            array = np.array(onnx.numpy_helper.to_array(tensor))
            if array.dtype.kind == "f" and array.ndim:
                model.weights[tensor.name] = array
        return model

    def set_weights(self, arrays: Mapping[str, Array]) -> None:
        """Set weights, in the type that the file has."""
        for tensor in self.proto.graph.initializer:
            if tensor.name in arrays:
                value = np.asarray(arrays[tensor.name], self.weights[tensor.name].dtype)
                self.weights[tensor.name] = value
                tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
        self._sessions.clear()

    @cached_property
    def folded(self) -> set[str]:
        """Weights of products with a folded batch norm: none of the program's parameters."""
        return {name for node in self.proto.graph.node if is_folded(node) for name in node.input}

    @cached_property
    def statistics(self) -> set[str]:
        """Weights that are running statistics."""
        return {
            node.input[number]
            for node in self.proto.graph.node
            for number in STATISTICS.get(node.op_type, ())
        }

    @cached_property
    def constants(self) -> dict[str, Array]:
        """Outputs of Constant nodes, and initialisers that are no weights."""
        found = {
            tensor.name: onnx.numpy_helper.to_array(tensor)
            for tensor in self.proto.graph.initializer
            if tensor.name not in self.weights
        }
        for node in self.proto.graph.node:
            if node.op_type == "Constant":
                value = onnx.helper.get_attribute_value(node.attribute[0])
                is_tensor = isinstance(value, onnx.TensorProto)
                array = onnx.numpy_helper.to_array(value) if is_tensor else np.asarray(value)
                found[node.output[0]] = array
        return found

    @cached_property
    def nodes(self) -> dict[str, Any]:
        """Every node but constants, by path, in the order of the computation."""
        nodes = [node for node in self.proto.graph.node if node.op_type != "Constant"]
        last = {scope: n for n, node in enumerate(nodes) if (scope := scope_of(node))}
        found: dict[str, Any] = {}
        for number, node in enumerate(nodes):
            scope = scope_of(node)
            name = node.name.removeprefix("node_") or f"{node.op_type}_{number}"
            name = name.strip("/").replace("/", ".")
            path = scope if last.get(scope) == number else ".".join(p for p in (scope, name) if p)
            while path in found:
                path += "'"
            found[path] = node
        return found

    def input_names(self) -> list[str]:
        """The inputs of the graph, in order."""
        known = {tensor.name for tensor in self.proto.graph.initializer}
        return [value.name for value in self.proto.graph.input if value.name not in known]

    def run(self, inputs: Sequence[Array]) -> list[Any]:
        """The model's outputs, as its users run it: with all optimisations of the runtime."""
        session = self._sessions.get("plain")
        if session is None:
            session = self._sessions["plain"] = session_of(self.proto)
        return list(session.run(None, dict(zip(self.input_names(), inputs, strict=True))))

    def run_inside(self, inputs: Sequence[Array]) -> Values:
        """The outputs of every node by name, computed node by node, as the file says."""
        session = self._sessions.get("inside")
        if session is None:
            session = self._sessions["inside"] = session_of(with_all_outputs(self.proto), False)
        names = [output.name for output in session.get_outputs()]
        fed = dict(zip(self.input_names(), inputs, strict=True))
        return fed | dict(zip(names, session.run(names, fed), strict=True))

    def run_node(self, node: Any, given: Mapping[str, Any]) -> list[Any]:
        """The outputs of one node alone; `given`: its inputs that are no weights or constants."""
        values = {**self.constants, **self.weights, **given}
        fed = {name: values[name] for name in node.input if name}
        key = f"{node.output[0]} {[(v.shape, v.dtype.str) for v in fed.values()]}"
        session = self._sessions.get(key)
        if session is None:
            inputs = [
                onnx.helper.make_tensor_value_info(
                    name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
                )
                for name, value in fed.items()
            ]
            outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
            graph = onnx.helper.make_graph([node], "node", inputs, outputs)
            made = onnx.helper.make_model(graph, opset_imports=list(self.proto.opset_import))
            made.ir_version = self.proto.ir_version
            session = self._sessions[key] = session_of(made, False)
        return list(session.run(None, fed))


def scope_of(node: Any, key: str = SCOPES) -> str:
    """The path (or the class) of the module that a node is of, if the exporter wrote it."""
    for entry in node.metadata_props:
        if entry.key == key:
            scopes = [part.strip(" '\"") for part in entry.value.strip("[]").split(",")]
            return scopes[-2] if len(scopes) > 1 else ""
    return ""


def is_folded(node: Any) -> bool:
    """Whether a batch norm was folded into a product: its weights are those of neither."""
    named = "BatchNorm" in scope_of(node, CLASSES)
    renamed = any(name.startswith(RENAMED) for name in node.input)
    return node.op_type in PRODUCTS and (named or renamed)


def with_all_outputs(proto: Any) -> Any:
    """A copy of the model whose graph also gives the output of every node."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    known = {value.name for value in made.graph.output}
    for node in made.graph.node:
        for name in node.output:
            if name and name not in known:
                made.graph.output.append(onnx.ValueInfoProto(name=name))
    return made


def session_of(proto: Any, optimised: bool = True) -> Any:
    """A session on the CPU.

    Raises:
        ParityError: the runtime refuses the model.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "onnxruntime":
            raise
        first = str(error).strip().split("\n")[0]
        raise ParityError(f"onnxruntime cannot run the model: {first}") from error
