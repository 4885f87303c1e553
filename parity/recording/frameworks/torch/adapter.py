"""The adapter of PyTorch.

One method for each of `Adapter`'s, so the file is long.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np

from parity.comparison.sketch import Array
from parity.errors import ParityError
from parity.recording.adapter import (
    Adapter,
    AroundFunction,
    AroundModule,
    Module,
    Variable,
)
from parity.recording.keeping import Kept
from parity.recording.places import source_of

# Modules that draw a random mask, of any library, by words of their class names.
RANDOM_MODULES = ("Dropout", "DropPath", "StochasticDepth", "DropBlock")


class TorchAdapter(Adapter):
    """PyTorch on the CPU."""

    name = "torch"
    entry = "forward"

    def start(self, precision: str) -> dict[str, Any]:
        """See `Adapter`."""
        try:
            import torch
        except ImportError as error:
            raise ParityError(f"torch cannot be imported here: {error}; install it") from error
        self.torch = torch
        self.type = getattr(torch, precision)
        torch.set_default_dtype(self.type)
        self.dropout = True
        self._rates: dict[Any, float] = {}
        self._mode: Any = None
        version = torch.__version__
        return {"version": version, "device": "cpu", "threads": torch.get_num_threads()}

    @contextmanager
    def inside_script(self, precision: str) -> Iterator[None]:
        """See `Adapter`: the default type and the random numbers."""
        import torch

        kept = torch.get_default_dtype()
        with torch.random.fork_rng(devices=[]):
            try:
                yield
            finally:
                torch.set_default_dtype(kept)

    def keep(self, model: Any, whole: bool) -> Kept | None:
        """See `Adapter`."""
        from parity.recording.frameworks.torch.keeping import keep

        self._refuse_unfit(model)
        state = [] if whole else self._state(model).values()
        return keep(model, {id(tensor) for tensor in state})

    def finish_build(self, model: Any) -> Any:
        """See `Adapter`."""
        self._refuse_unfit(model)
        return self._converted(model)

    def _refuse_unfit(self, model: Any) -> None:
        """Refuse what is no module, is compiled, is not on the CPU, or has no shapes yet."""
        if not isinstance(model, self.torch.nn.Module):
            raise ParityError(f"build: expected a torch.nn.Module, found {type(model).__name__}")
        if hasattr(model, "_orig_mod"):
            raise ParityError("build: a compiled model hides its modules; return it uncompiled")
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if value.device.type != "cpu":
                raise ParityError(
                    f"build: expected a model on the CPU, where the inputs are, found {name} on "
                    f"{value.device}; give model.cpu(), or copy.deepcopy(model).cpu()"
                )
        lazy = self.torch.nn.parameter.is_lazy
        if any(lazy(tensor) for tensor in [*model.parameters(), *model.buffers()]):
            raise ParityError(
                "build: expected parameters with shapes, found those of lazy modules, such as "
                "nn.LazyLinear; call the model once in its builder"
            )

    def _converted(self, model: Any) -> Any:
        """The model, whose numbers have the run's precision; complex ones stay complex."""

        def convert(tensor: Any) -> Any:
            if tensor.is_complex():
                return tensor.to(self.type.to_complex())
            return tensor.to(self.type) if tensor.is_floating_point() else tensor

        model.zero_grad(set_to_none=True)
        return model._apply(convert)

    def state(self, model: Any) -> dict[str, Variable]:
        """See `Adapter`."""
        parameters = dict(model.named_parameters(remove_duplicate=False))
        return {
            name: Variable(self.array(value), "parameter" if name in parameters else "buffer")
            for name, value in self._state(model).items()
        }

    def _state(self, model: Any) -> dict[str, Any]:
        """Name -> tensor of the entries of `state_dict`; its extra states are none of them."""
        known = dict(model.named_buffers(remove_duplicate=False))
        known |= dict(model.named_parameters(remove_duplicate=False))
        return {name: known[name] for name in model.state_dict() if name in known}

    def unsaved(self, model: Any) -> dict[str, Array]:
        """See `Adapter`."""
        state = model.state_dict()
        return {n: self.array(v) for n, v in model.named_buffers() if n not in state}

    def load(self, model: Any, arrays: Mapping[str, Array]) -> None:
        """See `Adapter`."""
        known = self._state(model)
        with self.torch.no_grad():
            for name, array in arrays.items():
                values = self.torch.from_numpy(np.array(array))
                complex_ = known[name].is_complex()
                known[name].copy_(self.as_complex(values) if complex_ else values)
        model.zero_grad(set_to_none=True)

    def parameter(self, model: Any, name: str) -> Any:
        """See `Adapter`."""
        return dict(model.named_parameters(remove_duplicate=False))[name]

    def modules(self, model: Any) -> list[Module]:
        """See `Adapter`."""
        return [self._described(path, module) for path, module in model.named_modules()]

    def _described(self, path: str, module: Any) -> Module:
        from parity.recording.frameworks.torch.facts import facts_of

        children = {name for name, _ in module.named_children()} - {"parametrizations"}
        whole = (self.torch.nn.MultiheadAttention, self.torch.jit.ScriptModule)
        leaf = not children or isinstance(module, whole)
        before = f"{path}." if path else ""
        state = module.state_dict(prefix=before)
        own = [f"{before}{name}" for name, _ in module.named_parameters(recurse=leaf)]
        operation, settings = facts_of(module)
        return Module(
            path,
            type(module).__name__,
            leaf,
            module,
            operation,
            settings,
            own,
            [
                f"{before}{n}"
                for n, _ in module.named_buffers(recurse=leaf)
                if f"{before}{n}" in state
            ],
            source_of(getattr(type(module), "forward", None)),
        )

    def replace(self, model: Any, path: str, new: Any) -> None:
        """See `Adapter`."""
        if not isinstance(new, self.torch.nn.Module):
            raise ParityError(
                f"replace: {path}: expected a torch.nn.Module instead, found {type(new).__name__}"
            )
        old, new = model.get_submodule(path), self._converted(new)
        for place, module in list(model.named_modules(remove_duplicate=False)):
            if module is old:
                parent, _, name = place.rpartition(".")
                setattr(model.get_submodule(parent), name, new)

    @contextmanager
    def intercept(self, model: Any, around: AroundModule) -> Iterator[None]:
        """See `Adapter`."""
        base = self.torch.nn.Module
        paths = {id(module): path for path, module in model.named_modules()}
        original = base.__call__

        def called(module: Any, *args: Any, **kwargs: Any) -> Any:
            path = paths.get(id(module))
            if path is None:
                return original(module, *args, **kwargs)
            return around(path, lambda *a, **k: original(module, *a, **k), args, kwargs)

        with patch.object(base, "__call__", called):
            yield

    @contextmanager
    def intercept_functions(self, around: AroundFunction) -> Iterator[None]:
        """See `Adapter`."""
        from parity.recording.frameworks.torch.functions import FunctionMode

        self._mode = FunctionMode(around, self.dropout)
        with self._mode:
            yield
        self._mode = None

    def take(self, native: Any, indices: Array) -> Any:
        """See `Adapter`."""
        if self._mode is not None:
            self._mode.taken = indices
        return native.reshape(-1)[self.torch.from_numpy(indices)]

    def mode(self, model: Any, training: bool, dropout: bool) -> None:
        """See `Adapter`."""
        nn = self.torch.nn
        self.dropout = dropout
        model.train(training)
        for module in model.modules():
            if not dropout and self._is_mask(module):
                module.training = False
            if isinstance(module, (nn.MultiheadAttention, nn.RNNBase)):
                rate = self._rates.setdefault(module, module.dropout)
                module.dropout = rate if dropout else 0.0

    def _is_mask(self, module: Any) -> bool:
        """Whether a module is a random mask itself, and no block that has one, such as
        `ConvDropoutNorm`: that block has modules in it, or weights."""
        if isinstance(module, self.torch.nn.modules.dropout._DropoutNd):
            return True
        named = any(word in type(module).__name__ for word in RANDOM_MODULES)
        return named and next(module.children(), next(module.parameters(), None)) is None

    def is_complex(self, native: Any) -> bool:
        """See `Adapter`."""
        return bool(native.is_complex())

    def as_complex(self, native: Any) -> Any:
        """See `Adapter`."""
        return self.torch.view_as_complex(native.contiguous())

    def is_tensor(self, value: Any) -> bool:
        """See `Adapter`."""
        return isinstance(value, self.torch.Tensor)

    def tensor(self, array: Array) -> Any:
        """See `Adapter`."""
        native = self.torch.from_numpy(np.array(array))
        if native.is_complex():
            return native.to(self.type.to_complex())
        return native.to(self.type) if native.is_floating_point() else native

    def array(self, native: Any) -> Array:
        """See `Adapter`."""
        value = native.detach().cpu()
        value = value.to_dense() if value.layout != self.torch.strided else value
        value = self._parts(value.resolve_neg())
        value = value.float() if value.dtype is self.torch.bfloat16 else value
        return np.array(value.numpy())

    def _parts(self, native: Any) -> Any:
        """A complex tensor as its two parts in a last axis; any other as it is."""
        if not native.is_complex():
            return native
        return self.torch.view_as_real(native.resolve_conj())

    def copy(self, native: Any) -> Any:
        """See `Adapter`."""
        return native.clone()

    def watch_gradients(self, native: Any) -> Any:
        """See `Adapter`."""
        return native.requires_grad_(True)

    def loss(
        self,
        name: str,
        outputs: Sequence[Any],
        inputs: Mapping[str, Any],
        cotangents: Sequence[Any],
    ) -> Any:
        """See `Adapter`."""
        if name == "cross_entropy":
            return self.torch.nn.functional.cross_entropy(outputs[0], inputs["labels"])
        parts = [self._parts(output) for output in outputs]
        total = sum((part * c).sum() for part, c in zip(parts, cotangents, strict=True))
        return total / (outputs[0].shape[0] if outputs[0].dim() else 1)

    def gradients(
        self,
        outputs: Sequence[Any],
        wrt: Sequence[Any],
        cotangents: Sequence[Any] | None = None,
    ) -> list[Array | None]:
        """See `Adapter`."""
        outputs = [self._parts(output) for output in outputs]
        given = cotangents or [None] * len(outputs)
        ends = [(o, c) for o, c in zip(outputs, given, strict=True) if o.requires_grad]
        watched = [native for native in wrt if native.requires_grad]
        if not ends or not watched:
            return [None] * len(wrt)
        values = self.torch.autograd.grad(
            [o for o, _ in ends], watched, [c for _, c in ends], allow_unused=True
        )
        found = {id(n): v for n, v in zip(watched, values, strict=True)}
        wanted = [found.get(id(native)) for native in wrt]
        return [None if value is None else self.array(value) for value in wanted]

    def optimiser(self, parameters: Sequence[Any], settings: Mapping[str, Any]) -> Any:
        """See `Adapter`."""
        options = {name: value for name, value in settings.items() if name != "name"}
        optimisers = {"sgd": self.torch.optim.SGD, "adamw": self.torch.optim.AdamW}
        parameters = parameters or [self.torch.nn.Parameter(self.torch.zeros(1))]
        return optimisers[settings["name"]](parameters, **options)

    def step(self, model: Any, loss: Any, settings: Mapping[str, Any]) -> None:
        """See `Adapter`."""
        optimiser = self.optimiser(list(model.parameters()), settings)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    def seed(self, number: int) -> None:
        """See `Adapter`."""
        self.torch.manual_seed(number)
