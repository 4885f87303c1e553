"""The adapter of PyTorch."""

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
from parity.recording.places import source_of

# Modules with random masks by class name, of any library; and attributes that hold a probability.
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

    @contextmanager
    def same_mode(self, model: Any) -> Iterator[None]:
        """See `Adapter`."""
        kept = [(module, module.training) for module in model.modules()]
        try:
            yield
        finally:
            self.mode(model, training=False, dropout=True)
            for module, training in kept:
                module.training = training

    def finish_build(self, model: Any) -> Any:
        """See `Adapter`."""
        nn = self.torch.nn
        if not isinstance(model, nn.Module):
            raise ParityError(f"build: expected a torch.nn.Module, found {type(model).__name__}")
        if hasattr(model, "_orig_mod"):
            raise ParityError("build: a compiled model hides its modules; return it uncompiled")
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if value.device.type != "cpu":
                raise ParityError(
                    f"build: expected a model on the CPU, where the inputs are, found {name} on "
                    f"{value.device}; give model.cpu(), or copy.deepcopy(model).cpu()"
                )
        return model.to(self.type)

    def state(self, model: Any) -> dict[str, Variable]:
        """See `Adapter`."""
        parameters = dict(model.named_parameters(remove_duplicate=False))
        return {
            name: Variable(self.array(value), "parameter" if name in parameters else "buffer")
            for name, value in model.state_dict().items()
            if isinstance(value, self.torch.Tensor)
        }

    def load(self, model: Any, arrays: Mapping[str, Array]) -> None:
        """See `Adapter`."""
        known = dict(model.named_buffers(remove_duplicate=False))
        known |= dict(model.named_parameters(remove_duplicate=False))
        with self.torch.no_grad():
            for name, array in arrays.items():
                known[name].copy_(self.torch.from_numpy(np.array(array)))
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
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, new.to(self.type))

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
            if not dropout and any(word in type(module).__name__ for word in RANDOM_MODULES):
                module.eval()
            if isinstance(module, (nn.MultiheadAttention, nn.RNNBase)):
                rate = self._rates.setdefault(module, module.dropout)
                module.dropout = rate if dropout else 0.0

    def is_tensor(self, value: Any) -> bool:
        """See `Adapter`."""
        return isinstance(value, self.torch.Tensor)

    def tensor(self, array: Array) -> Any:
        """See `Adapter`."""
        native = self.torch.from_numpy(np.array(array))
        return native.to(self.type) if native.is_floating_point() else native

    def array(self, native: Any) -> Array:
        """See `Adapter`."""
        value = native.detach().cpu()
        value = value.to_dense() if value.layout != self.torch.strided else value
        value = value.float() if value.dtype is self.torch.bfloat16 else value
        return np.array(value.numpy())

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
        total = sum((output * c).sum() for output, c in zip(outputs, cotangents, strict=True))
        return total / (outputs[0].shape[0] if outputs[0].dim() else 1)

    def gradients(
        self,
        outputs: Sequence[Any],
        wrt: Sequence[Any],
        cotangents: Sequence[Any] | None = None,
    ) -> list[Array | None]:
        """See `Adapter`."""
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

    def step(self, model: Any, loss: Any, settings: Mapping[str, Any]) -> None:
        """See `Adapter`."""
        options = {name: value for name, value in settings.items() if name != "name"}
        optimisers = {"sgd": self.torch.optim.SGD, "adamw": self.torch.optim.AdamW}
        optimiser = optimisers[settings["name"]](model.parameters(), **options)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    def seed(self, number: int) -> None:
        """See `Adapter`."""
        self.torch.manual_seed(number)
