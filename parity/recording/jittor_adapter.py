"""Jittor (1.3.11) behind the recorder's adapter.

Jittor joins operators of neighbouring layers into one kernel and compiles each new kernel for
seconds, so that every architecture would compile its own. Here a kernel ends at the output of each
module: models share the kernels of their layers. A copy of an output (`clone`) also ends it in the
backward pass.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from parity.comparison.sketch import Array
from parity.errors import ParityError
from parity.recording.adapter import Adapter, AroundFunction, AroundModule, Module, Variable
from parity.recording.jittor_facts import facts_of, is_whole, source_of
from parity.recording.jittor_graph import connected
from parity.recording.jittor_kinks import choice_at_ties, patch, watcher
from parity.recording.jittor_start import start_jittor

STATISTICS = ("running_mean", "running_var")
OPTIMISERS = {"sgd": "SGD", "adamw": "AdamW"}


class JittorAdapter(Adapter):
    """Jittor's models: `jittor.Module` with `execute`."""

    name = "jittor"

    def __init__(self) -> None:
        self.jittor: Any = None
        self.precision = "float32"

    def start(self, precision: str) -> dict[str, Any]:
        jt = self.jittor = start_jittor()
        self.precision = precision
        if precision == "float64":
            if jt.flags.use_cuda:
                raise ParityError(
                    "jittor: float64 is not possible on CUDA; set nvcc_path= in the environment"
                )
            jt.flags.auto_convert_64_to_32 = 0  # before any array exists
        threads = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
        return {
            "version": jt.__version__,
            "device": "cuda" if jt.flags.use_cuda else "cpu",
            "threads": int(threads) if threads.isdigit() else len(os.sched_getaffinity(0)),
        }

    def prepare_build(self) -> None:
        patch(self.jittor)
        if self.precision == "float64":  # a model's `x.float_auto()` would make it float32
            self.jittor.Var.float_auto = self.jittor.float_auto = lambda x: x

    def finish_build(self, model: Any) -> Any:
        if not isinstance(model, self.jittor.Module):
            raise ParityError(
                f"jittor: expected the builder to return a jittor.Module, found {type(model)}"
            )
        refuse_hidden(self.jittor, model)
        return self.converted(model)

    def converted(self, module: Any) -> Any:
        """The module, whose state has the run's precision."""
        state = self.state(module)
        self.load(module, {name: entry.array for name, entry in state.items()})
        return module

    def state(self, model: Any) -> dict[str, Variable]:
        return {
            name: Variable(self.array(var), "buffer" if is_buffer(name, var) else "parameter")
            for name, var in self.variables(model).items()
        }

    def variables(self, model: Any) -> dict[str, Any]:
        """Name -> Var of the state, with the names and rules of `Module.state_dict`.

        Attributes that begin with `_` are none of it, nor are buffers that are not persistent.
        """
        found = {}
        for path, module in model.named_modules():
            owned = getattr(module, "params", None)
            if not isinstance(module, self.jittor.nn.ParameterList) or owned is None:
                owned = module.__dict__
            for key, value in owned.items():
                hidden = isinstance(key, str) and key.startswith("_")
                if isinstance(value, self.jittor.Var) and not hidden:
                    if getattr(value, "persistent", True):
                        found[f"{path}.{key}" if path else str(key)] = value
        return found

    def load(self, model: Any, arrays: Mapping[str, Array]) -> None:
        variables = self.variables(model)
        for name, array in arrays.items():
            # `assign` keeps a stopped gradient, as Jittor's own `load_state_dict` does.
            variables[name].assign(self.tensor(np.asarray(array).reshape(variables[name].shape)))
        self.jittor.sync(list(variables.values()))

    def modules(self, model: Any) -> list[Module]:
        found: dict[int, Module] = {}
        inside: tuple[str, ...] = ()  # paths of modules that count as one operation
        variables = self.variables(model)
        for path, module in model.named_modules():
            if id(module) in found or path.startswith(inside) and inside:
                continue
            whole = is_whole(module)
            if whole:
                inside += (f"{path}.",)
            prefix = f"{path}." if path else ""
            own = [
                name
                for name in variables
                if name.startswith(prefix) and (whole or "." not in name[len(prefix) :])
            ]
            operation, settings = facts_of(module)
            found[id(module)] = Module(
                path=path,
                class_name=type(module).__name__,
                is_leaf=whole or not children(module),
                native=module,
                operation=operation,
                settings=settings,
                parameters=[name for name in own if not is_buffer(name, variables[name])],
                buffers=[name for name in own if name.rpartition(".")[2] in STATISTICS],
                source=source_of(module),
            )
        return list(found.values())

    def replace(self, model: Any, path: str, new: Any) -> None:
        new = self.converted(new)
        parent_path, _, name = path.rpartition(".")
        parent = dict(model.named_modules())[parent_path]
        layers = getattr(parent, "layers", None)
        if isinstance(parent, self.jittor.nn.Sequential) and isinstance(layers, dict):
            layers[name if name in layers else int(name)] = new
        else:
            setattr(parent, name, new)

    @contextmanager
    def intercept(self, model: Any, around: AroundModule) -> Iterator[None]:
        """Each module gets an `execute` of its own, for which `Module.__call__` asks."""
        modules = self.modules(model)
        own = [module.native.__dict__.get("execute") for module in modules]
        for module in modules:
            module.native.__dict__["execute"] = self.wrapped(module, around)
        try:
            yield
        finally:
            for module, execute in zip(modules, own, strict=True):
                if execute is None:
                    del module.native.__dict__["execute"]
                else:
                    module.native.__dict__["execute"] = execute

    def wrapped(self, module: Module, around: AroundModule) -> Any:
        """The module's `execute`, through `around`; a leaf's outputs end a kernel."""
        execute = module.native.execute

        def call(*args: Any, **kwargs: Any) -> Any:
            output = execute(*args, **kwargs)
            if module.is_leaf:
                for value in output if isinstance(output, (tuple, list)) else [output]:
                    if self.is_tensor(value):
                        value.stop_fuse()
            return output

        def through(*args: Any, **kwargs: Any) -> Any:
            return around(module.path, call, args, kwargs)

        return through

    @contextmanager
    def intercept_functions(self, around: AroundFunction) -> Iterator[None]:
        before, watcher.around = watcher.around, around
        try:
            yield
        finally:
            watcher.around = before

    def choose(self, kind: str, settings: Mapping[str, Any], operands: Sequence[Any]) -> Any:
        if kind not in ("abs", "minimum", "clamp", "relu6"):
            return None
        return choice_at_ties(kind, settings, [self.array(operand) for operand in operands])

    def take(self, native: Any, indices: Array) -> Any:
        return native.reshape((-1,))[self.jittor.array(np.ascontiguousarray(indices))]

    def mode(self, model: Any, training: bool, dropout: bool) -> None:
        """Set the flags of all modules; `eval()` itself would stop the parameters' gradients."""
        watcher.masks = dropout
        frozen = {name: var.is_stop_grad() for name, var in self.variables(model).items()}
        for _, module in model.named_modules():
            for name in ("train", "eval"):  # a model's own, such as one that keeps norms frozen
                if (name == "train") == training and is_own(self.jittor, module, name):
                    getattr(module, name)()
                    break
            else:
                random = "drop" in type(module).__name__.lower()
                module.is_train = training and (dropout or not random)
        for name, var in self.variables(model).items():
            if var.is_stop_grad() and not frozen[name]:
                fresh = self.tensor(self.array(var))
                var.swap(fresh)  # `start_grad` would mark it as a scalar as well

    def is_tensor(self, value: Any) -> bool:
        return isinstance(value, self.jittor.Var)

    def tensor(self, array: Array) -> Any:
        array = np.ascontiguousarray(array)  # others would keep 64 bits
        if array.dtype.kind == "f":
            array = array.astype(self.precision)
        return self.jittor.array(array)

    def array(self, native: Any) -> Array:
        array: Array = np.array(native.numpy())
        return array

    def copy(self, native: Any) -> Any:
        return native.clone()

    def parameter(self, model: Any, name: str) -> Any:
        return self.variables(model)[name]

    def loss(
        self,
        name: str,
        outputs: Sequence[Any],
        inputs: Mapping[str, Any],
        cotangents: Sequence[Any],
    ) -> Any:
        """The projection adds up in float64: Jittor's float32 sums lose digits, and this sum is
        the recorder's, not the model's."""
        if name == "cross_entropy":
            return self.jittor.nn.cross_entropy_loss(outputs[0], inputs["labels"])
        total = self.inner_product(outputs, cotangents) / float(outputs[0].shape[0])
        return total.cast(self.precision)

    def inner_product(self, outputs: Sequence[Any], cotangents: Sequence[Any]) -> Any:
        """Sum of sum(output * cotangent), in float64."""
        total: Any = 0.0
        for output, cotangent in zip(outputs, cotangents, strict=True):
            total = total + (output.float64() * cotangent.float64()).sum()
        return total

    def gradients(
        self, outputs: Sequence[Any], wrt: Sequence[Any], cotangents: Sequence[Any] | None = None
    ) -> list[Array | None]:
        scalar = outputs[0] if cotangents is None else self.inner_product(outputs, cotangents)
        floats = [number for number, var in enumerate(wrt) if var.dtype.is_float()]
        grads = self.jittor.grad(scalar, [wrt[number] for number in floats])
        reached = connected(self.jittor, grads)
        self.jittor.sync(grads)  # together, so that Jittor compiles their kernels in parallel
        found: list[Array | None] = [None] * len(wrt)
        for number, grad, yes in zip(floats, grads, reached, strict=True):
            array = self.array(grad)
            found[number] = array if yes or array.any() else None
        return found

    def step(self, model: Any, loss: Any, settings: Mapping[str, Any]) -> None:
        settings = dict(settings)
        kind = getattr(self.jittor.optim, OPTIMISERS[settings.pop("name")])
        optimiser = kind(model.parameters(), **settings)
        optimiser.step(loss)
        self.jittor.sync(list(self.variables(model).values()))

    def seed(self, number: int) -> None:
        self.jittor.set_global_seed(number)


def is_buffer(name: str, var: Any) -> bool:
    """Whether an entry of the state is no parameter: statistics, whole numbers, or registered.

    An array of floats whose gradient is stopped stays a parameter: it may be frozen by accident.
    """
    last = name.rpartition(".")[2]
    return last in STATISTICS or not var.dtype.is_float() or hasattr(var, "persistent")


def children(module: Any) -> list[Any]:
    """The modules directly inside a module."""
    return [child for path, child in module.named_modules() if path and "." not in path]


def is_own(jittor: Any, module: Any, name: str) -> bool:
    """Whether a module overrides `train` or `eval`."""
    return getattr(type(module), name) is not getattr(jittor.Module, name)


def refuse_hidden(jittor: Any, model: Any) -> None:
    """Refuse modules that Jittor does not see, since they stand in a plain list or dict.

    Raises:
        ParityError: there is one; the text names it.
    """
    seen = {id(module) for _, module in model.named_modules()}
    for path, module in model.named_modules():
        for key, value in module.__dict__.items():
            values = value.values() if isinstance(value, dict) else value
            if key == "_conv" or not isinstance(values, (list, tuple, type({}.values()))):
                continue
            if any(isinstance(v, jittor.Module) and id(v) not in seen for v in values):
                raise ParityError(
                    f"jittor: {path or type(module).__name__}.{key} is a {type(value).__name__} of "
                    "modules, and Jittor sees no modules in it: their parameters are neither saved "
                    "nor trained; use jittor.nn.ModuleList"
                )
