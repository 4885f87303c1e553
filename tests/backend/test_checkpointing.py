"""Gradient checkpointing: blocks are computed twice, and updates do not change."""

import numpy as np
import pytest
from reference import relative

from parity.cases.case import Case
from transfg_core.backend import load_backend

CASE = Case("checkpointed", model={"depth": 4, "stride": 6, "dropout": 0.3})


@pytest.fixture(params=["float32", "bfloat16"])
def pair(twin, request):
    """A backend that stores its blocks' activations, and one that recomputes them."""
    config = CASE.config(request.param)
    run = config.run.model_copy(update={"grad_checkpointing": True})
    recomputing = config.model_copy(update={"run": run})
    backends = [load_backend(twin.name, variant) for variant in (config, recomputing)]
    for backend in backends:
        backend.load_params(CASE.params())
    return backends


def test_updates_are_the_same(twin, pair):
    """With dropout: the second pass must use the masks of the first."""
    stored, recomputed = pair
    for number in range(2):
        batches = CASE.batches()[:2]
        expected, report = (backend.fetch(backend.train_step(batches, 0.01)) for backend in pair)
        for name, value in expected.items():
            assert report[name] == pytest.approx(value, rel=1e-5), (number, name)
    state, expected = recomputed.state(), stored.state()
    for name, value in expected.items():
        if not name.endswith("key.bias"):  # zero except for rounding
            assert relative(state[name], value) < 1e-4, name


def test_blocks_are_computed_twice(twin, pair, monkeypatch):
    mlp, calls = twin.module("models.layers").Mlp, []
    method = "forward" if twin.name == "torch" else "execute"
    run = getattr(mlp, method)
    monkeypatch.setattr(mlp, method, lambda self, *more: calls.append(id(self)) or run(self, *more))
    batch = CASE.batches()[:1]
    times = {}
    for name, backend in zip(("stored", "recomputed"), pair, strict=True):
        calls.clear()
        backend.fetch(backend.train_step(batch, 0.01))
        times[name] = [calls.count(id(block.mlp)) for block in backend.model.blocks]
        calls.clear()
        backend.fetch(backend.eval_step(batch[0].images))
        assert len(calls) == 4
    assert times == {"stored": [1, 1, 1], "recomputed": [2, 2, 2]}


def cut(encoded):
    """Without a gradient for the encoder's blocks."""
    return encoded._replace(layers=[x.detach() for x in encoded.layers])


@pytest.mark.only("jittor")
def test_a_frozen_backbone(twin, pair, monkeypatch):
    """Blocks without gradients made Jittor crash once."""
    for backend in pair:
        encode = backend.model.encode
        monkeypatch.setattr(backend.model, "encode", lambda *inputs, to=encode: cut(to(*inputs)))
    before = pair[0].state()
    for backend in pair:
        for _ in range(2):
            backend.fetch(backend.train_step(CASE.batches()[:2], 0.01))
    stored, recomputed = (backend.state() for backend in pair)
    assert not np.array_equal(stored["param/head.weight"], before["param/head.weight"])
    assert not stored["momentum/blocks.0.mlp.fc1.weight"].any()
    for name, value in stored.items():
        assert np.allclose(recomputed[name], value, rtol=1e-4, atol=1e-7), name


def test_an_evaluation_is_the_same(twin, pair):
    images = CASE.batches()[0].images
    expected, found = (backend.fetch(backend.eval_step(images)) for backend in pair)
    assert (found["logits"] == expected["logits"]).all()
    assert (found["part_index"] == expected["part_index"]).all()
