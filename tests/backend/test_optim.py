"""Optimisers, groups and clipping against float64 NumPy.

Each update of the reference uses the backend's gradients at that moment (`trace`), so that the two
differ only in the update. The test compares the parameters' changes, to a relative L2 of 1e-3:
float32 stores a parameter to 6e-8 of its size, about 1e-4 of its change in five updates.
"""

import numpy as np
import pytest
import reference

from parity.cases.case import Case
from transfg_core.params.groups import param_groups
from transfg_core.train import split_batch

GROUPS = [
    {"match": "head.*", "lr_scale": 5.0, "weight_decay": 0.0},
    {"match": "blocks.0.*", "lr_scale": 0.2, "weight_decay": 0.3},
]
# eps is as large as the gradients, so that its place in the formula matters.
ADAM = {"lr": 1e-3, "eps": 1e-2, "betas": (0.8, 0.95)}
CASES = {
    "sgd": {"name": "sgd", "clip": None},
    "sgd, clipped": {"name": "sgd", "clip": 0.3, "weight_decay": 0.05},
    "sgd, clip not reached": {"name": "sgd", "clip": 1e3, "groups": GROUPS},
    "adam": ADAM | {"name": "adam", "weight_decay": 0.05, "groups": GROUPS},
    "adamw": ADAM
    | {"name": "adamw", "weight_decay": 0.5, "clip": 0.3, "groups": GROUPS}
    | {"layer_decay": 0.7},
}
MICRO = {"adam": 2, "adamw": 3}  # micro-batches per update; the moments count updates
RATES = (0.01, 0.02, 0.03, 0.02, 0.005)


@pytest.mark.parametrize("name", CASES)
def test_five_updates(twin, name):
    case = Case(name, optim={"warmup": 0} | CASES[name], accumulation=MICRO.get(name, 1))
    config, params = case.config(), case.params()
    backend = twin.backend(case)
    groups = param_groups(config.model, config.optim)
    expected = reference.Optimizer(params, groups, config.optim)
    for batch, lr in zip(case.batches(), RATES, strict=False):
        micro = split_batch(batch, config.train.accumulation)
        traces = [backend.trace(part) for part in micro]
        grads = {
            key: np.mean([trace[f"grad/{key}"].astype(np.float64) for trace in traces], axis=0)
            for key in params
        }
        norm = expected.step(grads, lr)
        report = backend.fetch(backend.train_step(micro, lr))
        assert report["grad_norm"] == pytest.approx(norm, rel=1e-6)
        if len(micro) == 1:
            assert traces[0]["grad_norm"] == pytest.approx(norm, rel=1e-6)
    state = backend.state()
    for key in params:
        if "key.bias" in key:  # its gradient is noise
            continue
        change = state[f"param/{key}"].astype(np.float64) - params[key]
        assert reference.relative(change, expected.params[key] - params[key]) < 1e-3, key
        for slot, values in expected.slots.items():
            assert reference.relative(state[f"{slot}/{key}"], values[key]) < 1e-5, (slot, key)


def test_norm_of_many_values(twin):
    """2e7 values in shapes of a real model; a sequential float32 sum would be too small."""
    rng = np.random.default_rng(2)
    shapes = [(4096, 4096), (1, 1370, 768), (768, 3, 16, 16), (3072, 768), (768,), (1, 1, 768)]
    arrays = [1 + rng.random(shape, np.float32) for shape in shapes]
    expected = np.sqrt(sum((array.astype(np.float64) ** 2).sum() for array in arrays))
    (norm,) = twin.run(lambda *grads: twin.module("optim").global_norm(grads), *arrays)
    assert norm.item() == pytest.approx(expected, rel=1e-6)
    (norm,) = twin.run(lambda grad: twin.module("optim").global_norm([grad]), arrays[1])
    expected = np.sqrt((arrays[1].astype(np.float64) ** 2).sum())
    assert norm.item() == pytest.approx(expected, rel=1e-6)


def test_clipping_of_tiny_gradients(twin):
    """The denominator is the norm + 1e-6: a norm of 1e-6 with limit 5e-7 shrinks to a quarter."""
    grad = twin.tensor(np.full(4, 5e-7, np.float32))
    twin.module("optim").clip_gradients([grad], 5e-7)
    assert twin.array(grad) == pytest.approx(np.full(4, 1.25e-7), rel=1e-5)


@pytest.mark.parametrize("limit", [None, 0.5, 1e3])
def test_clipping(twin, limit):
    rng = np.random.default_rng(5)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in ((3, 5), (7,))]
    grads = [twin.tensor(array.copy()) for array in arrays]
    norm = twin.array(twin.module("optim").clip_gradients(grads, limit)).item()
    expected = np.sqrt(sum((array.astype(np.float64) ** 2).sum() for array in arrays))
    assert norm == pytest.approx(expected, rel=1e-6)
    factor = 1.0 if limit is None else min(1.0, limit / (expected + 1e-6))
    for grad, array in zip(grads, arrays, strict=True):
        assert reference.relative(twin.array(grad), array * factor) < 1e-6
