"""Jittor's linear layers recompute their inputs in the backward pass instead of saving them.

tests/torch/test_saved_tensors_torch.py tests this and more for PyTorch, which uses hooks.
"""

import numpy as np
import pytest
from jittor_allocator import held_bytes
from reference import relative

from parity.cases.case import Case
from transfg_core.backend import load_backend

CASE = Case("save_less", model={"depth": 4, "stride": 6, "dropout": 0.3})
pytestmark = pytest.mark.only("jittor")


def switch(twin, monkeypatch, less):
    """Switch recomputing on or off in the backend; returns the list of calls of GELU."""
    save_less, model = twin.module("checkpointing").save_less, twin.module("models.layers")
    calls, gelu = [], model.gelu
    monkeypatch.setattr(model, "gelu", lambda x: calls.append(x.shape) or gelu(x))
    backend = twin.module("backend")
    monkeypatch.setattr(backend, "save_less", lambda enabled: save_less(enabled and less))
    return calls


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_updates_are_the_same(twin, precision):
    """With dropout: recomputing must use the masks of the forward pass."""
    states, times = [], []
    for less in (True, False):
        backend = load_backend(twin.name, CASE.config(precision))
        backend.load_params(CASE.params())
        with pytest.MonkeyPatch.context() as monkeypatch:
            calls = switch(twin, monkeypatch, less)
            for _ in range(2):
                backend.fetch(backend.train_step(CASE.batches()[:2], 0.01))
            times.append(len(calls))
        states.append(backend.state())
    recomputed, saved = states
    for name, value in saved.items():
        if not name.endswith("key.bias"):  # zero except for rounding
            assert relative(recomputed[name], value) < 1e-6, name
    assert times[1] == 2 * 2 * 4  # two updates of two batches, four blocks
    assert times[0] == 2 * times[1]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_frozen_parts_and_plain_gradients(twin, precision):
    """Only one layer needs a gradient: its input is recomputed for this layer alone."""
    jt, model = twin.framework, twin.module("models.layers")
    config = CASE.config(precision)
    block = model.Block(config.model)
    mixed = precision == "bfloat16"
    x = jt.array(np.random.default_rng(1).standard_normal((2, 9, config.model.width), np.float32))

    def gradients(less):
        with (
            twin.module("ops.bfloat16").autocast(mixed),
            twin.module("checkpointing").save_less(less),
        ):
            out, _, _ = block(x)
        return [jt.grad((out * out).sum(), p).numpy() for p in (block.attn.key.weight, x)]

    block.eval()
    for found, expected in zip(gradients(True), gradients(False), strict=True):
        assert np.array_equal(found, expected)


BLOCKS = """
import numpy as np
from parity.cases.case import Case
from transfg_jt.checkpointing import save_less
from transfg_jt.models.layers import Block
sizes = {"width": 24, "heads": 3, "mlp": 384, "dropout": 0.0}
config = Case("held").config().model.model_copy(update=sizes)
y = jt.array(np.random.default_rng(2).standard_normal((1, 3136, 24)).astype(np.float32))
blocks = [Block(config) for _ in range(8)]
with save_less(switch):
    for block in blocks:
        y, _, _ = block(y)
total = (y * y).sum()
total.sync()
"""


def test_less_memory_is_held(twin):
    """After the forward pass of eight blocks: 5.4 MB less for each."""
    saved = 8 * 3136 * (384 + 2 * 24) * 4
    assert held_bytes(BLOCKS, False) - held_bytes(BLOCKS, True) > saved / 2
