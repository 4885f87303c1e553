"""Hybrids in both twins: against NumPy, in bfloat16, recomputed, frozen."""

import numpy as np
import pytest
from reference import relative
from stem_reference import norm, standardised, stem

from parity.cases.case import Case
from transfg_core.backend import load_backend
from transfg_core.config.stem import STEMS

STEP = 1e-8  # of differences: at larger ones more inputs of ReLU pass zero

# an odd number of rows and columns on the way: 37 x 26 -> 19 x 13 -> 10 x 7 -> 5 x 4
CASE = Case(
    "hybrid",
    model={"stem": "tiny_s8", "patch": 1, "depth": 2, "placement": "none"},
    loss={"contrastive": False},
    crop=(37, 26),
    batch=3,
    seed=21,
)
PARTS = Case("parts", model={"stem": "tiny_s8", "patch": 2, "stride": 1, "depth": 3}, seed=22)


@pytest.fixture(scope="module")
def trace(twin):
    return twin.backend(CASE).trace(CASE.batches()[0], fine=True)


@pytest.fixture(scope="module")
def wide(twin):
    """In float64. A process of Jittor has one precision; the suite compares its float64."""
    backend = load_backend(twin.name, CASE.config("float64"))
    backend.load_params(CASE.params())
    return backend.trace(CASE.batches()[0], fine=True)


def test_taps_are_numpys(twin, trace):
    params = {name: value.astype("f8") for name, value in CASE.params().items()}
    expected = stem(params, CASE.batches()[0].images.astype("f8"), STEMS["tiny_s8"].units)
    names = [
        name for name in trace if name.startswith(("root", "pool", "unit")) and "/" not in name
    ]
    assert names and set(names) == set(expected)
    for name, value in expected.items():
        assert relative(trace[name], value) < 3e-6, name


@pytest.mark.only("torch")
def test_gradients_are_numpys_differences(twin, wide):
    """Along random directions: gradients by the last map's own gradient, in float64."""
    batch, rng = CASE.batches()[0], np.random.default_rng(5)
    params = {n: v.astype("f8") for n, v in CASE.params().items() if n.startswith("stem.")}
    by_map = wide["d/unit1_01"]
    for kind in ("root.conv", "conv2", "conv3", "downsample.conv", "norm1", "norm3", "root.norm"):
        step = {
            name: rng.standard_normal(value.shape) if kind in name else np.zeros(value.shape)
            for name, value in params.items()
        }
        maps = []
        for sign in (1, -1):
            moved = {name: value + sign * STEP * step[name] for name, value in params.items()}
            x = stem(moved, batch.images.astype("f8"), STEMS["tiny_s8"].units)["unit1_01"]
            maps.append((x * by_map).sum())
        difference = (maps[0] - maps[1]) / (2 * STEP)
        slope = sum((wide[f"grad/{name}"] * value).sum() for name, value in step.items())
        assert slope == pytest.approx(difference, rel=1e-4), kind


@pytest.mark.only("torch")
def test_gradients_in_float32(twin, trace, wide):
    for name, value in wide.items():
        if name.startswith("grad/stem."):
            assert relative(trace[name], value) < 1e-5, name


def test_group_norm_far_from_zero(twin):
    """Where E[x²] - E[x]² would cancel; means of 3,000 and deviations of 1."""
    rng = np.random.default_rng(6)
    x = (rng.standard_normal((2, 64, 5, 3)) + 3000).astype("f4")
    module = twin.module("models.stem").GroupNorm(64, relu=True)
    (found,) = twin.run(module, x)
    assert relative(found, np.maximum(norm(x.astype("f8"), np.ones(64), np.zeros(64)), 0)) < 2e-4


def test_standardised_weights(twin):
    package = "ops.group_norm" if twin.name == "jittor" else "ops.standardise"
    function, rng = twin.module(package).standardise, np.random.default_rng(7)
    weight = (rng.standard_normal((5, 4, 3, 3)) * 1e-3 + 0.2).astype("f4")
    (found,) = twin.run(lambda w: function(w, 1e-5), weight)
    assert relative(found, standardised(weight.astype("f8"))) < 1e-5


@pytest.mark.parametrize("operator", [True, False])
def test_constant_kernels_have_a_gradient(twin, monkeypatch, operator):
    """(g - mean) / eps, as if the deviation of 0 were fixed; also by Jittor's plain formula."""
    if twin.name == "torch" and not operator:
        pytest.skip("PyTorch has one form")
    package = twin.module("ops.group_norm" if twin.name == "jittor" else "ops.standardise")
    if twin.name == "jittor" and not operator:
        monkeypatch.setattr(package, "on_cpu", lambda x: False)
    grad = np.random.default_rng(8).standard_normal((3, 2, 3, 3)).astype("f4")
    weight = np.stack([np.zeros((2, 3, 3)), np.full((2, 3, 3), 0.5), grad[2]]).astype("f4")
    factor = twin.tensor(grad)
    (found,) = twin.gradients(lambda w: (package.standardise(w, 1e-2) * factor).sum(), [weight])
    expected = (grad - grad.mean((1, 2, 3), keepdims=True))[:2] / 1e-2
    assert relative(found[:2], expected) < 1e-5
    assert np.isfinite(found).all()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_units_that_are_recomputed(twin, precision):
    config = PARTS.config(precision)
    run = config.run.model_copy(update={"grad_checkpointing": True})
    states = []
    for chosen in (config, config.model_copy(update={"run": run})):
        backend = load_backend(twin.name, chosen)
        backend.load_params(PARTS.params())
        backend.fetch(backend.train_step(PARTS.batches()[:1], 0.01))
        states.append(backend.state())
    for name, value in states[0].items():
        if not name.endswith("key.bias"):  # zero except for rounding
            assert relative(states[1][name], value) < 1e-4, name


def test_bfloat16(twin, trace):
    """A few per cent off, and rounded: the stem computes in bfloat16, norms in float32 inside."""
    backend = load_backend(twin.name, CASE.config("bfloat16"))
    backend.load_params(CASE.params())
    found = backend.trace(CASE.batches()[0], fine=True)
    for name in ("root.conv", "root", "unit0_00.norm2", "unit1_01"):
        value = np.ascontiguousarray(found[name])
        assert not (value.view(np.uint32) & 0xFFFF).any(), name
        assert 1e-4 < relative(value, trace[name]) < 5e-2, name
    assert relative(found["logits"], trace["logits"]) < 5e-2
    assert relative(found["grad/stem.stages.1.0.conv2.weight"],
                    trace["grad/stem.stages.1.0.conv2.weight"]) < 0.3  # fmt: skip


def test_a_frozen_stem(twin):
    config = PARTS.config()
    optim = config.optim.model_copy(update={"frozen": ("stem.*",)})
    backend = load_backend(twin.name, config.model_copy(update={"optim": optim}))
    backend.load_params(PARTS.params())
    backend.fetch(backend.train_step(PARTS.batches()[:1], 0.01))
    state = backend.state()
    for name, value in PARTS.params().items():
        same = np.array_equal(state[f"param/{name}"], value)
        frozen = name.startswith("stem.")
        assert same == frozen or name.endswith("key.bias"), name  # a gradient of zero
    assert not any("momentum/stem" in name for name in state)


def test_parts_of_the_last_map(twin):
    """Overlapping patches of 2 x 2 positions: 6 x 4 positions give 5 x 3 patches."""
    backend, images = twin.backend(PARTS), PARTS.batches()[0].images
    result = backend.fetch(backend.eval_step(images))
    assert result["part_index"].shape == (6, 3)
    assert result["part_index"].min() >= 1 and result["part_index"].max() <= 15
    assert backend.fetch(backend.rollout(images))["rollout"].shape == (6, 15)
