"""The PyTorch twin recomputes tensors instead of saving them; gradients stay equal bit for bit."""

import gc

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from parity.cases.case import Case
from transfg_core.backend import load_backend
from transfg_torch import backend as torch_backend
from transfg_torch.checkpointing import recompute_input, save_less

CASE = Case("save_less", model={"depth": 4, "stride": 6, "dropout": 0.3})


def updated(precision: str, monkeypatch, less: bool):
    """State and reports of two updates with dropout, and how often they computed GELU."""
    config = CASE.config(precision)
    backend = load_backend("torch", config)
    backend.load_params(CASE.params())
    calls, gelu = [], F.gelu
    with monkeypatch.context() as patch:
        patch.setattr(F, "gelu", lambda x: calls.append(x.shape) or gelu(x))
        if not less:
            patch.setattr(torch_backend, "save_less", lambda enabled: save_less(False))
        reports = [backend.fetch(backend.train_step(CASE.batches()[:2], 0.01)) for _ in range(2)]
    return backend.state(), reports, len(calls)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_updates_are_equal_bit_for_bit(precision, monkeypatch):
    state, less_reports, less_calls = updated(precision, monkeypatch, True)
    expected, reports, calls = updated(precision, monkeypatch, False)
    for name, value in expected.items():
        assert np.array_equal(state[name], value), name
    assert less_reports == reports
    assert calls == 2 * 2 * 4  # two updates of two batches, four blocks
    assert less_calls == 2 * calls


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_fewer_bytes_are_saved(precision):
    """Bytes that a block's graph holds, without its parameters, input and output."""
    config = CASE.config(precision)
    backend = load_backend("torch", config)
    backend.load_params(CASE.params())
    block = backend.model.blocks[0].train()
    width, hidden = config.model.width, config.model.mlp
    device = next(block.parameters()).device
    x = torch.randn(2, 50, width, device=device)

    def held(less: bool) -> int:
        sizes: dict[int, int] = {}
        initialise = torch.autograd.graph.saved_tensors_hooks.__init__

        def spy(self, pack, unpack):
            def record(saved):
                packed = pack(saved)
                if not isinstance(packed, torch.Size):
                    sizes[saved.untyped_storage().data_ptr()] = saved.untyped_storage().nbytes()
                return packed

            initialise(self, record, unpack)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.autograd.graph.saved_tensors_hooks, "__init__", spy)
            with (
                torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"),
                torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x),
                save_less(less),
            ):
                outputs = block(x)
            return sum(sizes.values()) + 0 * len(outputs)

    size = 4 if precision == "float32" else 2
    assert held(False) - held(True) == 2 * 50 * (hidden + 2 * width) * size


def test_second_derivatives_are_right():
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)

    def layer(x, weight):
        with save_less(True):
            y = F.gelu(x)
            return recompute_input(lambda y: y @ weight.T, y, F.gelu, x)

    assert torch.autograd.gradgradcheck(layer, (x, weight))


def squared(x, calls):
    y = x * 1
    return recompute_input(lambda y: y * y, y, lambda x: calls.append(1) or x * 1, x).sum()


def test_only_inside_save_less():
    x, calls = torch.ones(2, requires_grad=True), []
    squared(x, calls).backward()
    assert not calls
    with save_less(True):
        squared(x, calls).backward()
        assert calls == [1]  # once for both factors
        with torch.no_grad():
            squared(x, calls)
        with save_less(False):
            squared(x, calls).backward()
    assert calls == [1]


def test_a_second_backward_pass_recomputes_again():
    x, calls = torch.full((2,), 3.0, requires_grad=True), []
    with save_less(True):
        total = squared(x, calls)
    for _ in range(2):
        total.backward(retain_graph=True)
    assert calls == [1, 1]
    assert x.grad.tolist() == [12, 12]


def test_a_view_in_another_order_is_not_the_input():
    x = torch.randn(3, 3, requires_grad=True)
    weight = torch.randn(3, 3)

    def gradient(less: bool):
        with save_less(less):
            y = x * 1
            total = recompute_input(lambda y: (weight @ y.t() * y.t()).sum(), y, lambda x: x * 1, x)
        return torch.autograd.grad(total, x)[0]

    assert torch.equal(gradient(True), gradient(False))


def test_a_change_in_place_is_refused():
    x, weight = torch.ones(2, 2, requires_grad=True), torch.ones(2, 2, requires_grad=True)
    with save_less(True):
        y = x * 1
        total = recompute_input(lambda y: y @ weight, y, lambda x: x * 1, x).sum()
    with torch.no_grad():
        weight.mul_(3)
    with pytest.raises(RuntimeError, match=r"in-place operation: \(2, 2\) is at version 1"):
        total.backward()


def test_a_graph_without_a_backward_pass_is_freed():
    """A hook that returned its argument itself would keep that tensor's graph alive."""
    backend = load_backend("torch", CASE.config())
    block = backend.model.blocks[0].train()
    freed = []

    class Marked(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.mark = Mark()
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad

    class Mark:
        def __del__(self):
            freed.append(1)

    with save_less(True):
        outputs = block(
            Marked.apply(torch.randn(2, 50, CASE.config().model.width).requires_grad_())
        )
    assert not freed
    del outputs
    gc.collect()
    assert freed


@pytest.mark.parametrize(("patterns", "share"), [(["[!h]*"], 0.02), (["[cp]*", "blocks.0.*"], 0.8)])
def test_little_is_saved_behind_frozen_parameters(patterns, share):
    """Bytes of saved tensors of a pass, relative to those of the whole model's training."""

    def saved(frozen: list[str]) -> int:
        case = Case("frozen", model={"placement": "none"}, optim={"frozen": frozen, "warmup": 0})
        backend = load_backend("torch", case.config())
        own = {param.untyped_storage().data_ptr() for param in backend.params.values()}
        sizes: dict[int, int] = {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        images, _, _ = backend.to_device(case.batches()[0])
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = backend.model(images)
        return sum(sizes.values()) + 0 * len(output)

    assert saved(patterns) < share * saved([])
