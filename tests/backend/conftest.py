"""Each test here that uses `twin` runs once per declared backend (`pytest --backends`).

A declared backend that does not start fails the run. Tests marked `only` run for the named backend,
and tests marked `gpu` if the backend has a CUDA device; a skipped test gives the reason.
"""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import pytest

from parity.cases.case import Case
from transfg_core.backend import BACKENDS, Array, Backend, load_backend
from transfg_core.errors import UserError


class Twin:
    """One twin's modules, and the few framework calls that the tests need."""

    name: str

    def __init__(self) -> None:
        self.package = BACKENDS[self.name]
        self.module("runtime").prepare()
        self.framework = importlib.import_module(self.name)

    def module(self, name: str) -> ModuleType:
        """A module of the twin, such as `loss`."""
        return importlib.import_module(f"{self.package}.{name}")

    def backend(self, case: Case) -> Backend:
        """A backend that holds the case's parameters."""
        backend = load_backend(self.name, case.config())
        backend.load_params(case.params())
        return backend

    def run(self, function: Any, *arrays: Array) -> tuple[Array, ...]:
        """Call a function on arrays as tensors; return its values as arrays."""
        values = function(*map(self.tensor, arrays))
        return tuple(map(self.array, values if isinstance(values, tuple) else (values,)))


class TorchTwin(Twin):
    name = "torch"

    def default_device(self) -> AbstractContextManager[Any]:
        return self.framework.device("cuda") if self.has_cuda() else nullcontext()

    def tensor(self, array: Array) -> Any:
        return self.framework.from_numpy(array).to("cuda" if self.has_cuda() else "cpu")

    def array(self, tensor: Any) -> Array:
        return tensor.detach().cpu().numpy()

    def has_cuda(self) -> bool:
        return self.framework.cuda.is_available()

    def gradients(self, function: Any, arrays: Sequence[Array]) -> list[Array]:
        """Gradients of a scalar function of tensors."""
        tensors = [self.tensor(array).requires_grad_() for array in arrays]
        return [self.array(g) for g in self.framework.autograd.grad(function(*tensors), tensors)]


class JittorTwin(Twin):
    name = "jittor"

    def default_device(self) -> AbstractContextManager[Any]:
        return nullcontext()  # Jittor has one device

    def tensor(self, array: Array) -> Any:
        return self.framework.array(array)

    def array(self, tensor: Any) -> Array:
        return tensor.numpy()

    def has_cuda(self) -> bool:
        return bool(self.framework.flags.use_cuda)

    def gradients(self, function: Any, arrays: Sequence[Array]) -> list[Array]:
        """Gradients of a scalar function of tensors."""
        tensors = [self.tensor(array) for array in arrays]
        return [self.array(g) for g in self.framework.grad(function(*tensors), tensors)]


TWINS: dict[str, type[Twin]] = {"torch": TorchTwin, "jittor": JittorTwin}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "twin" not in metafunc.fixturenames:
        return
    names = [name.strip() for name in metafunc.config.getoption("--backends").split(",")]
    only = metafunc.definition.get_closest_marker("only")
    params = [
        pytest.param(name, marks=pytest.mark.skip(reason=f"concerns {only.args[0]} alone"))
        if only and only.args[0] != name
        else name
        for name in dict.fromkeys(names)
    ]
    metafunc.parametrize("twin", params, indirect=True, scope="session")


@pytest.fixture(scope="session")
def twin(request: pytest.FixtureRequest) -> Twin:
    """The declared backend under test."""
    try:
        return TWINS[request.param]()
    except (UserError, ImportError) as error:
        pytest.exit(f"declared backend {request.param} does not start: {error}", returncode=1)


@pytest.fixture(autouse=True)
def _needs_gpu(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("gpu"):
        twin = request.getfixturevalue("twin")
        if not twin.has_cuda():
            pytest.skip(f"backend {twin.name} has no CUDA device here")


@pytest.fixture(autouse=True)
def _default_device(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tensors and modules that a test makes are on the twin's device; those of other tests not."""
    if "twin" not in request.fixturenames:
        yield
        return
    with request.getfixturevalue("twin").default_device():
        yield
