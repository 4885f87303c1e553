"""What the backward pass computes anew instead of storing: gradients keep every bit."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from parity.cases import Case
from transfg_core.backend import load_backend
from transfg_torch import backend as torch_backend
from transfg_torch.checkpointing import feed, lean

CASE = Case("lean", model={"depth": 4, "stride": 6, "dropout": 0.3})


def updated(precision: str, monkeypatch, wanted: bool):
    """The state after two updates with dropout, and how often GELU was computed in them."""
    config = CASE.config(precision)
    backend = load_backend("torch", config)
    backend.load_params(CASE.params())
    calls, gelu = [], F.gelu
    with monkeypatch.context() as patch:
        patch.setattr(F, "gelu", lambda x: calls.append(x.shape) or gelu(x))
        if not wanted:
            patch.setattr(torch_backend, "lean", lambda wanted: lean(False))
        reports = [backend.fetch(backend.train_step(CASE.batches()[:2], 0.01)) for _ in range(2)]
    return backend.state(), reports, len(calls)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_updates_keep_every_bit(precision, monkeypatch):
    less, less_reports, less_calls = updated(precision, monkeypatch, True)
    all_of_it, reports, calls = updated(precision, monkeypatch, False)
    for name, value in all_of_it.items():
        assert np.array_equal(less[name], value), name
    assert less_reports == reports
    assert calls == 2 * 2 * 4  # two updates of two batches, four blocks
    assert less_calls == 2 * calls


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_keeps_less(precision):
    """Bytes that a block's graph holds and its parameters, input and output do not."""
    config = CASE.config(precision)
    backend = load_backend("torch", config)
    backend.load_params(CASE.params())
    block = backend.model.blocks[0].train()
    width, hidden = config.model.width, config.model.mlp
    x = torch.randn(2, 50, width)

    def held(wanted: bool) -> int:
        kept: dict[int, int] = {}
        pack = torch.autograd.graph.saved_tensors_hooks.__init__

        def spy(self, inner, outer):
            def note(saved):
                found = inner(saved)
                if isinstance(found, torch.Tensor):
                    kept[found.untyped_storage().data_ptr()] = found.untyped_storage().nbytes()
                return found

            pack(self, note, outer)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.autograd.graph.saved_tensors_hooks, "__init__", spy)
            with (
                torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"),
                torch.autograd.graph.saved_tensors_hooks(lambda kept: kept, lambda kept: kept),
                lean(wanted),
            ):
                outputs = block(x)
            return sum(kept.values()) + 0 * len(outputs)

    size = 4 if precision == "float32" else 2
    assert held(False) - held(True) == 2 * 50 * (hidden + 2 * width) * size


def test_second_derivatives_are_right():
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)

    def layer(x, weight):
        with lean(True):
            y = F.gelu(x)
            return feed(lambda y: y @ weight.T, y, lambda: F.gelu(x.detach()))

    assert torch.autograd.gradgradcheck(layer, (x, weight))


def test_only_where_it_is_wanted():
    x, made = torch.ones(2, requires_grad=True), []

    def gradient() -> None:
        y = x * 1
        feed(lambda y: y * y, y, lambda: made.append(1) or x.detach() * 1).sum().backward()

    gradient()
    assert not made
    with lean(True):
        gradient()
        assert made == [1, 1]  # both factors
        with torch.no_grad():
            feed(lambda y: y * y, x, lambda: made.append(1))
        with lean(False):
            gradient()
    assert made == [1, 1]
