"""What a framework's adapter does for the recorder; everything native stays behind it.

The shared part (recorder.py) names the taps, numbers the calls, decides what is recorded, draws,
follows choices and writes traces. An adapter knows one framework. `native` below is any object of
the framework: a tensor, a module, a model. `ADAPTERS` lists the adapters, each imported at use.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from parity.comparison.sketch import Array
from parity.errors import ParityError
from parity.recording.keeping import Kept

# framework -> module and class of its adapter
ADAPTERS = {
    "torch": ("parity.recording.frameworks.torch.adapter", "TorchAdapter"),
    "jittor": ("parity.recording.frameworks.jittor.adapter", "JittorAdapter"),
    "numpy": ("parity.recording.frameworks.numpy.adapter", "NumpyAdapter"),
    "jax": ("parity.recording.frameworks.jax.adapter", "FlaxAdapter"),
    "onnx": ("parity.recording.frameworks.onnx.adapter", "OnnxAdapter"),
}

FRAMEWORKS = f"one of {', '.join(ADAPTERS)}, or the class of an adapter: package.module:Class"

ABILITIES = frozenset({"gradients", "update", "follow", "isolated", "float64"})

Call = Callable[..., Any]
# (path, call, args, kwargs) -> output; `call(*args, **kwargs)` runs the module
AroundModule = Callable[[str, Call, tuple[Any, ...], dict[str, Any]], Any]
# (kind, settings, call, operands) -> output; `call()` runs the function as the framework has it
AroundFunction = Callable[[str, Mapping[str, Any], Call, tuple[Any, ...]], Any]


class RestartNeededError(ParityError):
    """The framework has changed itself on the disk: a new process may start it."""


@dataclass(frozen=True)
class Variable:
    """One entry of a model's state. `kind`: parameter, or buffer (running statistics, tables)."""

    array: Array
    kind: str = "parameter"


@dataclass(frozen=True)
class Module:
    """One module of a model. The path of the model itself is the empty text."""

    path: str
    class_name: str
    is_leaf: bool  # its inside is not recorded: it has no children, or is one operation
    native: Any
    operation: str = ""  # canonical name, such as `convolution`; empty for any other
    settings: Mapping[str, Any] = field(default_factory=dict)  # canonical; JSON can hold them
    parameters: Sequence[str] = ()  # names of its own entries in the model's state
    buffers: Sequence[str] = ()  # those that change in training, such as running statistics
    source: str = ""  # `torch/nn/modules/batchnorm.py:137`, the class's forward (see places.py)


class Adapter:
    """Base of all adapters. `abilities`: what a framework can do; no more is asked of it."""

    name = ""
    # gradients: losses and gradients. update: one step of an optimiser. follow: kinked functions
    # can be seen, and computed with given choices. isolated: one module can run alone. An adapter
    # with `taps` has models without modules, which return all their taps; it needs only `start`,
    # `finish_build`, `state`, `load`, `tensor` and `taps`.
    abilities: frozenset[str] = ABILITIES
    channels_last = False  # kinked functions are seen with channels first, taps have them last
    may_fold = False  # models may hold a weight in a product with others, under its own name
    entry = ""  # the model's method that gets the inputs, such as `forward`; empty: not known
    trial = True  # the baseline is called once before the candidate is built, to find mistakes
    # The pair's inputs by name, for models whose sizes only a first call decides; set before
    # `finish_build`.
    examples: Mapping[str, Array] = MappingProxyType({})

    def start(self, precision: str) -> dict[str, Any]:
        """Import and set up the framework; `precision` is float32 or float64.

        Returns:
            dict: facts for `producer` of the manifest: version, device, threads.

        Raises:
            ParityError: the framework is not installed or cannot run here.
        """
        raise NotImplementedError

    def inside_script(self, precision: str) -> AbstractContextManager[Any] | None:
        """What is set back afterwards when a running script records its own model."""
        return None

    def keep(self, model: Any, whole: bool) -> Kept | None:
        """What a pass can change in a model, ready to be put back; None: nothing but its state.

        `whole`: also the state. Else `load` follows each time.
        """
        return None

    def prepare_build(self) -> None:
        """Run before the builder: patch what `intercept_functions` needs, such as `jt.nn.relu`."""

    def finish_build(self, model: Any) -> Any:
        """The model in the run's precision, ready to be called; run once, after the builder."""
        return model

    def state(self, model: Any) -> dict[str, Variable]:
        """Every parameter and buffer of a model by name, in the order of the model.

        Arrays are copies. A shared parameter has an entry under each of its names.
        """
        raise NotImplementedError

    def unsaved(self, model: Any) -> dict[str, Array]:
        """Buffers that are no part of the state, since the framework does not save them."""
        return {}

    def load(self, model: Any, arrays: Mapping[str, Array]) -> None:
        """Set entries of the state (all, or some) from arrays, converted to the run's precision.

        Optimisers, gradients and modes are as in a fresh model afterwards.
        """
        raise NotImplementedError

    def modules(self, model: Any) -> list[Module]:
        """Every module in order, the model itself first. A shared module has its first path."""
        return []

    def layouts(self, model: Any) -> dict[str, str]:
        """How this framework lays out axes: patterns of names -> layouts of PyTorch's axes.

        Names and layouts are those of `parity.matching`, such as `{"conv1\\.kernel": "HWIO"}`.
        """
        return {}

    def replace(self, model: Any, path: str, new: Any) -> None:
        """Put another module at a path."""
        raise NotImplementedError

    def call(self, model: Any, inputs: Sequence[Any]) -> Any:
        """Run the model; inputs are native, in the order of the pair."""
        return model(*inputs)

    def call_module(self, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one module alone."""
        return module.native(*args, **kwargs)

    def intercept(self, model: Any, around: AroundModule) -> AbstractContextManager[Any]:
        """Within: every call of every module of the model goes through `around`.

        `around` gets the path of `modules`, for containers also. It may pass other arguments to
        `call`, and return something else. A call during the backward pass runs as it is.
        """
        raise NotImplementedError

    def intercept_functions(self, around: AroundFunction) -> AbstractContextManager[Any]:
        """Within: every kinked function goes through `around` (kinds: choices.py's tables).

        `operands` are the tensors of which the function chooses: one, or two for `maximum`. For an
        in-place function (`relu_`) the adapter copies what `around` returns into the operand and
        returns the operand. `call()` must not go through `around` again.
        """
        return nullcontext()

    def choose(self, kind: str, settings: Mapping[str, Any], operands: Sequence[Any]) -> Any:
        """The choice that the framework itself makes, as an array; None: by choices.py.

        Override it only where the framework breaks exact ties in another way than choices.py (a
        region's lower side; the first of equal elements).
        """
        return None

    def branch(self, function: Callable[..., Any], operands: tuple[Any, ...]) -> Any:
        """A kinked function on the branch of a choice: `function(*operands)`.

        An adapter that computes a pass again, to differentiate it, must keep the function.
        """
        return function(*operands)

    def take(self, native: Any, indices: Array) -> Any:
        """Elements by index into the flattened tensor, differentiable; int64 of any shape."""
        raise NotImplementedError

    def taps(
        self, model: Any, inputs: Mapping[str, Any], training: bool
    ) -> dict[str, Array] | None:
        """All taps by `stage/tap`, with `forward/output`; None: the model has no such mode."""
        raise NotImplementedError

    def mode(self, model: Any, training: bool, dropout: bool) -> None:
        """Evaluation or training mode of every module. `dropout` False: it is off in training too.

        Dropout is every random mask: also stochastic depth and functions (`F.dropout`) while
        `intercept_functions` is active. Gradients of parameters exist in both modes.
        """
        raise NotImplementedError

    def is_complex(self, native: Any) -> bool:
        """Whether a tensor is complex: as an array it then has its two parts in a last axis."""
        return False

    def as_complex(self, native: Any) -> Any:
        """A tensor with two parts in its last axis as a complex one, differentiable."""
        raise NotImplementedError

    def is_tensor(self, value: Any) -> bool:
        """Whether a value is a tensor of the framework."""
        raise NotImplementedError

    def tensor(self, array: Array) -> Any:
        """A tensor with the array's numbers; floats get the run's precision, others stay."""
        raise NotImplementedError

    def array(self, native: Any) -> Array:
        """A tensor as a NumPy array that shares no memory with it; see `is_complex`."""
        raise NotImplementedError

    def copy(self, native: Any) -> Any:
        """A differentiable copy: a change of it in place does not change the original."""
        raise NotImplementedError

    def watch_gradients(self, native: Any) -> Any:
        """A tensor of floats by which `gradients` can differentiate: for inputs of the model."""
        return native

    def parameter(self, model: Any, name: str) -> Any:
        """The native parameter of a name in `state`, as `wrt` of `gradients`."""
        raise NotImplementedError

    def loss(
        self,
        name: str,
        outputs: Sequence[Any],
        inputs: Mapping[str, Any],
        cotangents: Sequence[Any],
    ) -> Any:
        """A scalar. `projection`: sum over outputs of sum(output * cotangent) / batch size, where
        the batch size is the first axis of the first output. `cross_entropy`: mean, of the first
        output (n, classes) and the target `inputs["labels"]` (n,).
        """
        raise NotImplementedError

    def own_loss(self, function: Any, outputs: Sequence[Any], inputs: Mapping[str, Any]) -> Any:
        """A scalar by the user's own function of outputs and inputs."""
        return function(outputs, inputs)

    def gradients(
        self, outputs: Sequence[Any], wrt: Sequence[Any], cotangents: Sequence[Any] | None = None
    ) -> list[Array | None]:
        """Gradients of sum(output * cotangent) by each of `wrt`; None where not connected.

        One scalar output needs no cotangents. Where the framework cannot tell zeros from "not
        connected", zeros.
        """
        raise NotImplementedError

    def optimiser(self, parameters: Sequence[Any], settings: Mapping[str, Any]) -> Any:
        """A new optimiser by the settings of `step`; also to check these before anything slow."""
        return None

    def step(self, model: Any, loss: Any, settings: Mapping[str, Any]) -> None:
        """One step of the framework's own optimiser, as its users write it (fresh state).

        Settings: `name` (sgd or adamw), `lr`, and the others by the optimiser's names. It gets
        all parameters of the model.
        """
        raise NotImplementedError

    def seed(self, number: int) -> None:
        """Seed the framework's random numbers."""


def adapter_of(framework: str) -> Adapter:
    """A new adapter; its framework is not imported before `start`.

    Args:
        framework: a key of `ADAPTERS`, or `package.module:Class`, a subclass of `Adapter`.

    Raises:
        ParityError: the framework is unknown.
    """
    if not is_framework(framework):
        raise ParityError(f"framework {framework!r}: expected {FRAMEWORKS}")
    module, name = ADAPTERS.get(framework) or framework.split(":")
    try:
        made: Adapter = getattr(importlib.import_module(module), name)()
    except (ImportError, AttributeError) as error:
        if framework in ADAPTERS:
            raise
        raise ParityError(f"framework {framework!r}: {error}; expected {FRAMEWORKS}") from error
    return made


def is_framework(name: object) -> bool:
    """Whether a text is the name of an adapter here, or the place of another one."""
    return isinstance(name, str) and (name in ADAPTERS or name.count(":") == 1)
