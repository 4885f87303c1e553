"""Jittor (1.3.11) behind the recorder's adapter.

Jittor joins operators of neighbouring layers into one kernel and compiles each new kernel for
seconds, so that every architecture would compile its own. Here a kernel ends at the output of each
module: models share the kernels of their layers. A copy of an output (`clone`) also ends it in the
backward pass. The file is longer than most, because it has every method of `Adapter`.
"""

import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from parity.comparison.sketch import Array
from parity.errors import ParityError
from parity.recording.adapter import Adapter, AroundFunction, AroundModule, Module, Variable
from parity.recording.frameworks.jittor.facts import facts_of, is_whole, source_of
from parity.recording.frameworks.jittor.float64 import use_float64
from parity.recording.frameworks.jittor.graph import connected
from parity.recording.frameworks.jittor.keeping import keep
from parity.recording.frameworks.jittor.kinks import choice_at_ties, patch, watcher
from parity.recording.frameworks.jittor.model import (
    STATISTICS,
    children,
    is_buffer,
    is_mask,
    is_own,
    refuse_hidden,
    stopped_by_eval,
    variables_of,
)
from parity.recording.frameworks.jittor.start import start_jittor
from parity.recording.keeping import Kept

OPTIMISERS = {"sgd": "SGD", "adamw": "AdamW"}


class JittorAdapter(Adapter):
    """Jittor's models: `jittor.Module` with `execute`."""

    name = "jittor"
    entry = "execute"
    trial = False  # outside a recording it would compile other kernels than those that follow

    def __init__(self) -> None:
        self.jittor: Any = None
        self.precision = "float32"
        self.named: dict[str, Any] | None = None  # the model's state in this pass

    def start(self, precision: str) -> dict[str, Any]:
        jt = self.jittor = start_jittor()
        self.precision = precision
        if precision == "float64":
            use_float64(jt)
        threads = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
        return {
            "version": jt.__version__,
            "device": "cuda" if jt.flags.use_cuda else "cpu",
            "threads": int(threads) if threads.isdigit() else len(os.sched_getaffinity(0)),
        }

    def prepare_build(self) -> None:
        patch(self.jittor)

    def finish_build(self, model: Any) -> Any:
        if not isinstance(model, self.jittor.Module):
            raise ParityError(
                f"jittor: expected the builder to return a jittor.Module, found {type(model)}"
            )
        refuse_hidden(self.jittor, model)
        self.start_gradients(stopped_by_eval(model))
        return self.converted(model)

    def start_gradients(self, arrays: Sequence[Any]) -> None:
        """Undo `stop_grad`; Jittor's own `start_grad` would mark the array as a scalar as well."""
        for var in arrays:
            var.swap(self.tensor(self.array(var)))

    @contextmanager
    def inside_script(self, precision: str) -> Iterator[None]:
        """See `Adapter`: random numbers of Python and NumPy; Jittor cannot give its own back."""
        if precision == "float64":
            raise ParityError(
                "jittor: float64 needs a process that has computed nothing in float32; describe "
                "the model in a pair file and use `parity run` or `parity record`"
            )
        self.jittor = start_jittor()
        self.prepare_build()
        kept = random.getstate(), np.random.get_state()
        try:
            yield
        finally:
            watcher.masks = True
            random.setstate(kept[0])
            np.random.set_state(kept[1])

    def keep(self, model: Any, whole: bool) -> Kept | None:
        """See `Adapter`."""
        if not isinstance(model, self.jittor.Module):  # `finish_build` says so
            return None
        loaded = [] if whole else variables_of(self.jittor, model).values()
        return keep(self.jittor, model, {id(var) for var in loaded})

    def converted(self, module: Any) -> Any:
        """The module, whose state has the run's precision."""
        state = self.state(module)
        self.load(module, {name: entry.array for name, entry in state.items()})
        return module

    def state(self, model: Any) -> dict[str, Variable]:
        return {
            name: Variable(self.array(var), "buffer" if is_buffer(name, var) else "parameter")
            for name, var in variables_of(self.jittor, model).items()
        }

    def unsaved(self, model: Any) -> dict[str, Array]:
        saved = variables_of(self.jittor, model)
        every = variables_of(self.jittor, model, unsaved=True)
        return {name: self.array(var) for name, var in every.items() if name not in saved}

    def load(self, model: Any, arrays: Mapping[str, Array]) -> None:
        self.named = None
        variables = variables_of(self.jittor, model)
        for name, array in arrays.items():
            # `assign` keeps a stopped gradient, as Jittor's own `load_state_dict` does.
            variables[name].assign(self.tensor(np.asarray(array).reshape(variables[name].shape)))
        self.jittor.sync(list(variables.values()))

    def modules(self, model: Any) -> list[Module]:
        found: dict[int, Module] = {}
        inside: tuple[str, ...] = ()  # paths of modules that count as one operation
        variables = variables_of(self.jittor, model)
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
        if not isinstance(new, self.jittor.Module):
            raise ParityError(
                f"replace: {path}: expected a jittor.Module instead, found {type(new).__name__}"
            )
        modules, new = dict(model.named_modules()), self.converted(new)
        for place in [place for place, module in modules.items() if module is modules[path]]:
            parent_path, _, name = place.rpartition(".")
            parent = modules[parent_path]
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
        """The module's `execute`, through `around`; a leaf's outputs end a kernel.

        A leaf that returns its input (a dropout that is off) returns a copy, so that the gradient
        by its output is its own.
        """
        execute = module.native.execute

        def call(*args: Any, **kwargs: Any) -> Any:
            output = execute(*args, **kwargs)
            if not module.is_leaf:
                return output
            for value in output if isinstance(output, (tuple, list)) else [output]:
                if self.is_tensor(value):
                    value.stop_fuse()
            return self.copy(output) if any(output is value for value in args) else output

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
        watcher.masks, self.named = dropout, None
        before = variables_of(self.jittor, model)
        learning = [var for var in before.values() if not var.is_stop_grad()]
        for _, module in model.named_modules():
            for name in ("train", "eval"):  # a model's own, such as one that keeps norms frozen
                if (name == "train") == training and is_own(self.jittor, module, name):
                    getattr(module, name)()
                    break
            else:
                module.is_train = training and (dropout or not is_mask(module))
        self.start_gradients([var for var in learning if var.is_stop_grad()])

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
        if self.named is None:
            self.named = variables_of(self.jittor, model)
        return self.named[name]

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
        batch = float(outputs[0].shape[0])
        return self.inner_product(outputs, cotangents, batch).cast(self.precision)

    def inner_product(
        self, outputs: Sequence[Any], cotangents: Sequence[Any], divisor: float = 1.0
    ) -> Any:
        """Sum of sum(output * cotangent / divisor), in float64.

        A float64 sum divided by a Python number would be float32 (`binary_dtype_infer`).
        """
        parts = [
            (output.float64() * (cotangent.float64() / divisor)).sum()
            for output, cotangent in zip(outputs, cotangents, strict=True)
        ]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
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

    def optimiser(self, parameters: Sequence[Any], settings: Mapping[str, Any]) -> Any:
        settings = dict(settings)
        kind = getattr(self.jittor.optim, OPTIMISERS[settings.pop("name")])
        return kind(parameters or [self.jittor.zeros((1,))], **settings)

    def step(self, model: Any, loss: Any, settings: Mapping[str, Any]) -> None:
        self.optimiser(model.parameters(), settings).step(loss)
        self.jittor.sync(list(variables_of(self.jittor, model).values()))

    def seed(self, number: int) -> None:
        self.jittor.set_global_seed(number)
