"""The adapter of JAX: modules of flax.linen, with their variables.

One method for each of `Adapter`'s, so the file is long; what they need is in the other files of
this folder.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from parity.comparison.sketch import Array
from parity.errors import ParityError
from parity.recording.adapter import (
    ABILITIES,
    Adapter,
    AroundFunction,
    AroundModule,
    Module,
    Variable,
)

RANDOM_MODULES = ("Dropout", "DropPath", "StochasticDepth", "DropBlock")


class FlaxAdapter(Adapter):
    """JAX on the CPU. A model is a `FlaxModel`: a module, its variables and its mode."""

    name = "jax"
    channels_last = True

    def start(self, precision: str) -> dict[str, Any]:
        """See `Adapter`. Without optax there is no update."""
        try:
            import flax
            import jax
        except ImportError as error:
            raise ParityError(
                f"jax cannot be imported here: {error}; install jax and flax"
            ) from error
        try:
            import optax
        except ImportError:
            optax = None
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_enable_x64", precision == "float64")
        self.jax, self.optax = jax, optax
        self.abilities = ABILITIES if optax else ABILITIES - {"update"}
        self.type = jax.numpy.dtype(precision)
        self.key = jax.random.key(0)
        self.run: Any = None
        self.model: Any = None
        self.functions: Any = None
        self._originals: dict[int, tuple[Any, Any]] = {}  # id of a copy -> copy, original
        self._modules: list[Module] = []
        self._masks: set[str] = set()  # paths of modules that draw a random mask
        self._axes: dict[str, int] = {}  # path -> axes of the module's first input
        self._seen: dict[tuple[bool, str], Any] = {}  # training, path -> module in that mode
        return {
            "version": f"{jax.__version__}, flax {flax.__version__}",
            "device": jax.default_backend(),
            "threads": len(os.sched_getaffinity(0)),
        }

    @contextmanager
    def inside_script(self, precision: str) -> Iterator[None]:
        """See `Adapter`."""
        import jax

        before = jax.config.jax_enable_x64
        try:
            yield
        finally:
            jax.config.update("jax_enable_x64", before)

    def finish_build(self, model: Any) -> Any:
        """See `Adapter`."""
        from parity.recording.frameworks.jax.model import FlaxModel

        self.model = FlaxModel.from_build(model, self.examples)
        self.model.variables = {n: self._typed(v) for n, v in self.model.variables.items()}
        self._find_modules()
        return self.model

    def _typed(self, value: Any) -> Any:
        jnp = self.jax.numpy
        floats = jnp.issubdtype(value.dtype, jnp.floating)
        return jnp.asarray(value, self.type) if floats else jnp.asarray(value)

    def _find_modules(self) -> None:
        """A pass in each mode shows the modules, in the order of their calls."""
        from parity.recording.frameworks.jax.modules import Calls, has_modes

        calls = Calls(self.model, self._seen)
        inputs = [self.tensor(value) for value in self.examples.values()]
        variables = dict(self.model.variables)
        for training in dict.fromkeys((False, has_modes(self.model))):
            self.mode(self.model, training, dropout=False)
            with self.intercept(self.model, calls.around):
                self.call(self.model, inputs)
            self._masks = {module.path for module in calls.modules() if _is_mask(module)}
        self.mode(self.model, training=False, dropout=False)
        self.model.variables = variables  # training has moved the running statistics
        self._modules, self._axes = calls.modules(), calls.axes

    def layouts(self, model: Any) -> dict[str, str]:
        """See `Adapter`: kernels of convolutions and dense layers, and channels last."""
        from parity.recording.frameworks.jax.modules import layouts_of

        return layouts_of(model, self._modules, self._axes)

    def state(self, model: Any) -> dict[str, Variable]:
        """See `Adapter`; in the order of the modules. Also of what a builder returns."""
        from parity.recording.frameworks.jax.model import FlaxModel

        if not isinstance(model, FlaxModel):
            model = FlaxModel.from_build(model, self.examples)
        places = {n: number for number, m in enumerate(self._modules) for n in _own(m)}
        names = sorted(model.variables, key=lambda name: places.get(name, len(places)))
        return {
            name: Variable(
                self.array(model.variables[name]),
                "parameter" if model.is_parameter(name) else "buffer",
            )
            for name in names
        }

    def load(self, model: Any, arrays: Mapping[str, Array]) -> None:
        """See `Adapter`."""
        model.variables = model.variables | {n: self.tensor(a) for n, a in arrays.items()}

    def parameter(self, model: Any, name: str) -> Any:
        """See `Adapter`."""
        return model.variables[name]

    def modules(self, model: Any) -> list[Module]:
        """See `Adapter`."""
        return self._modules

    def replace(self, model: Any, path: str, new: Any) -> None:
        """See `Adapter`."""
        raise ParityError(f"{path}: a flax module cannot be replaced; change its builder")

    def call(self, model: Any, inputs: Sequence[Any]) -> Any:
        """See `Adapter`. Running statistics of the model change in training."""
        training, key = model.training, self.key
        changed: dict[str, Any] = {}

        def compute(variables: Mapping[str, Any], inputs: Sequence[Any]) -> Any:
            model.training = training
            output, nested = model.apply(variables, inputs, key)
            changed.update(nested if self.run is None or self.run.deltas is None else {})
            return output

        self._begin(compute, dict(model.variables), inputs)
        output = self.run.first()
        model.take(changed)
        return output

    def call_module(self, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See `Adapter`: a copy of the module, with its part of the variables."""
        from parity.recording.frameworks.jax.model import PARAMS, rngs_of
        from parity.recording.frameworks.jax.replay import is_array
        from parity.recording.structure import leaves, rebuild

        model, path = self.model, tuple(module.path.split(".")) if module.path else ()
        alone = self._seen[model.training, module.path].clone(parent=None)
        tensors = [leaf for _, leaf in leaves((args, kwargs), is_array)]
        names = _own(module)
        changed: dict[str, Any] = {}

        def compute(variables: Mapping[str, Any], inputs: Sequence[Any]) -> Any:
            given = iter(inputs)
            new_args, new_kwargs = rebuild((args, kwargs), is_array, lambda _: next(given))
            nested = model.nested(variables, path)
            mutable = [name for name in nested if name != PARAMS] if model.training else []
            output, new = alone.apply(
                nested, *new_args, **new_kwargs, rngs=rngs_of(self.key), mutable=mutable
            )
            changed.update(new if self.run is None or self.run.deltas is None else {})
            return output

        self._begin(compute, {name: model.variables[name] for name in names}, tensors)
        output = self.run.first()
        for collection, nested in changed.items():
            for key in reversed(path):
                nested = {key: nested}
            model.take({collection: nested})
        return output

    def _begin(self, compute: Any, variables: Mapping[str, Any], inputs: Sequence[Any]) -> None:
        """A new run, whose inputs are known also by the arrays that they are copies of."""
        from parity.recording.frameworks.jax.replay import Run

        self.run = Run(compute, variables, inputs)
        for number, native in enumerate(inputs):
            original = self._originals.get(id(native))
            if original:
                self.run.know(original[1], ("input", number))
        self._originals = {}

    @contextmanager
    def intercept(self, model: Any, around: AroundModule) -> Iterator[None]:
        """See `Adapter`. Modules inside jit, scan, checkpoint or vmap are not seen."""
        from parity.recording.frameworks.jax.replay import intercepted

        def seen(path: tuple[str, ...], module: Any) -> None:
            self._seen[model.training, ".".join(path)] = module

        def silent(module: Any) -> bool:
            if model.dropout or not model.training:
                return False
            return ".".join(module.path) in self._masks

        with intercepted(lambda: self.run, around, seen, silent):
            yield

    @contextmanager
    def intercept_functions(self, around: AroundFunction) -> Iterator[None]:
        """See `Adapter`."""
        from parity.recording.frameworks.jax.functions import Functions

        self.functions = Functions(around, lambda: self.run)
        with self.functions.patched():
            yield

    def branch(self, function: Callable[..., Any], operands: tuple[Any, ...]) -> Any:
        """See `Adapter`: the pass is computed again for gradients, on the same branch."""
        if self.functions is not None:
            self.functions.on_branch.append(function)
        return function(*operands)

    def take(self, native: Any, indices: Array) -> Any:
        """See `Adapter`."""
        return native.reshape(-1)[indices]

    def mode(self, model: Any, training: bool, dropout: bool) -> None:
        """See `Adapter`."""
        model.training, model.dropout = training, dropout

    def is_tensor(self, value: Any) -> bool:
        """See `Adapter`."""
        return isinstance(value, self.jax.Array)

    def tensor(self, array: Array) -> Any:
        """See `Adapter`."""
        return self._typed(self.jax.numpy.array(array))

    def array(self, native: Any) -> Array:
        """See `Adapter`."""
        value = np.array(native)
        if value.dtype.kind == "c":
            raise ParityError(
                "jax: complex arrays are not recorded; let the module take and return real parts"
            )
        if value.dtype == np.int32:  # JAX has no int64 unless float64 is on
            return value.astype(np.int64)
        return value.astype(np.float32) if value.dtype.name == "bfloat16" else value

    def copy(self, native: Any) -> Any:
        """See `Adapter`."""
        made = self.jax.numpy.array(native)
        self._originals[id(made)] = (made, native)
        return made

    def loss(
        self,
        name: str,
        outputs: Sequence[Any],
        inputs: Mapping[str, Any],
        cotangents: Sequence[Any],
    ) -> Any:
        """See `Adapter`."""
        if name == "cross_entropy":
            return self.own_loss(self._cross_entropy, outputs, inputs)

        def projection(outputs: Sequence[Any], inputs: Mapping[str, Any]) -> Any:
            total = sum((o * c).sum() for o, c in zip(outputs, cotangents, strict=True))
            return total / (outputs[0].shape[0] if outputs[0].ndim else 1)

        return self.own_loss(projection, outputs, inputs)

    def _cross_entropy(self, outputs: Sequence[Any], inputs: Mapping[str, Any]) -> Any:
        logs = self.jax.nn.log_softmax(outputs[0])
        rows = self.jax.numpy.arange(len(logs))
        return -logs[rows, inputs["labels"]].mean()

    def own_loss(self, function: Any, outputs: Sequence[Any], inputs: Mapping[str, Any]) -> Any:
        """See `Adapter`."""
        value = function(outputs, inputs)
        self.run.losses[id(value)] = (value, lambda ends: function(ends, inputs), list(outputs))
        return value

    def gradients(
        self,
        outputs: Sequence[Any],
        wrt: Sequence[Any],
        cotangents: Sequence[Any] | None = None,
    ) -> list[Array | None]:
        """See `Adapter`; zeros where not connected."""
        with self.functions.patched() if self.functions else nullcontext():
            found = self.run.gradients(outputs, wrt, cotangents)
        return [None if value is None else self.array(value) for value in found]

    def optimiser(self, parameters: Sequence[Any], settings: Mapping[str, Any]) -> Any:
        """See `Adapter`: optax's sgd (after `add_decayed_weights`) or adamw."""
        from parity.recording.frameworks.jax.update import optimiser

        return optimiser(self.optax, settings)

    def step(self, model: Any, loss: Any, settings: Mapping[str, Any]) -> None:
        """See `Adapter`."""
        names = [name for name in model.variables if model.is_parameter(name)]
        parameters = {name: self.run.variables[name] for name in names}
        found = self.gradients([loss], list(parameters.values()))
        gradients = {n: self.tensor(g) for n, g in zip(names, found, strict=True) if g is not None}
        rule = self.optimiser(list(parameters.values()), settings)
        updates, _ = rule.update(gradients, rule.init(parameters), parameters)
        model.variables = model.variables | self.optax.apply_updates(parameters, updates)

    def seed(self, number: int) -> None:
        """See `Adapter`."""
        self.key = self.jax.random.key(number)


def _is_mask(module: Module) -> bool:
    """Whether a module is a random mask itself, and no block that has one, such as
    `ConvDropoutNorm`: that block has modules in it, or weights."""
    named = any(word in module.class_name for word in RANDOM_MODULES)
    return named and module.is_leaf and not module.parameters


def _own(module: Module) -> list[str]:
    return [*module.parameters, *module.buffers]
