"""Residual networks against torchvision's, and what is special to batch norm in training."""

import json

import numpy as np
import pytest
import resnet_cases as golden
from reference import pad, relative, windows
from running import ROOT, python

from parity.cases.case import BY_NAME, Case
from transfg_core.backend import load_backend
from transfg_core.errors import UserError

# Relative L2 of logits and of gradients. In float64, kept numbers have nine digits.
BOUNDS = {"float32": (1e-5, 1e-4), "float64": (1e-7, 1e-7)}
CASE = BY_NAME["resnet"]


@pytest.mark.parametrize("mode", ["training", "evaluation"])
@pytest.mark.parametrize("depth", golden.DEPTHS)
def test_agrees_with_torchvision(twin, depth, mode, record_property):
    """Logits, gradients and running statistics, in training in float64.

    There a batch of three images normalises few values, so rounding in float32 moves inputs of ReLU
    over zero, and gradients by per cents. Jittor has one precision per process.
    """
    forward, backward = BOUNDS["float64" if mode == "training" else "float32"]
    if mode == "training":
        call = f"print(json.dumps(golden.distances({twin.name!r}, {depth}, {mode!r})))"
        result = python(ROOT / "tests", ["-c", f"import json, resnet_cases as golden; {call}"])
        assert result.returncode == 0, result.stderr
        found = json.loads(result.stdout.splitlines()[-1])
    else:
        found = golden.distances(twin.name, depth, mode)
    assert found.pop("logits") < forward
    worst = max(found, key=found.__getitem__)
    record_property("worst", f"{worst} {found[worst]:.1e}")
    assert found[worst] < backward, worst


def test_a_golden_distance_sees_a_wrong_array():
    rng = np.random.default_rng(0)
    right = rng.standard_normal((40, 30))
    wrong = right + 1e-3 * rng.standard_normal((40, 30))
    assert golden.distance(right, golden.kept(right)) < 1e-8
    assert 3e-4 < golden.distance(wrong, golden.kept(right)) < 3e-3
    assert golden.distance(right.T, golden.kept(right)) > 0.3


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("rough", [False, True])
def test_max_pool_gives_the_gradient_to_the_first_maximum(twin, padding, rough):
    """Values from a few, so that most windows have ties; also negative ones at the border.

    `rough`: in bfloat16, which has these values, and whose sums of gradients are rounded.
    """
    rng = np.random.default_rng(2)
    x = (rng.integers(-3, 0, (2, 3, 9, 6)) / 2).astype(np.float32)
    pools = (
        twin.framework.nn.functional if twin.name == "torch" else twin.module("ops.feature_maps")
    )

    def pool(x, *how):
        if twin.name == "torch":
            return pools.max_pool2d(x.bfloat16() if rough else x, *how).to(x.dtype)
        bfloat16 = twin.module("ops.bfloat16")
        with bfloat16.autocast(rough):
            return bfloat16.to_float32(pools.max_pool2d(bfloat16.cast_once(x), *how))

    places = windows(x, (3, 3), (2, 2), (padding, padding))
    (rows, columns), padded = places[-1][0], pad(x, (padding, padding), -np.inf)
    out = np.zeros((2, 3, rows + 1, columns + 1))
    grad = rng.standard_normal(out.shape).astype(np.float32)
    slope = np.zeros_like(padded)
    for (i, j), window in places:
        flat = padded[window].reshape(2, 3, -1)
        out[:, :, i, j] = flat.max(-1)
        first = np.eye(9)[flat.argmax(-1)] * grad[:, :, i, j, None]
        slope[window] += first.reshape(2, 3, 3, 3)
    slope = slope[:, :, padding : padding + 9, padding : padding + 6]
    (found,) = twin.run(lambda x: pool(x, 3, 2, padding), x)
    assert np.array_equal(found, out)
    factor = twin.tensor(grad)
    (found,) = twin.gradients(lambda x: (pool(x, 3, 2, padding) * factor).sum(), [x])
    assert relative(found, slope) < (5e-3 if rough else 1e-6)


def test_updates_with_recomputed_blocks_are_the_same(twin):
    """The second pass of a block counts no batch twice."""
    config, batches = CASE.config(), CASE.batches()
    states = []
    for recomputed in (False, True):
        run = config.run.model_copy(update={"grad_checkpointing": recomputed})
        backend = load_backend(twin.name, config.model_copy(update={"run": run}))
        backend.load_params(CASE.params())
        for batch in batches[:2]:
            backend.fetch(backend.train_step([batch], 0.05))
        states.append(backend.state())
    for name, value in states[0].items():
        assert relative(states[1][name], value) < 1e-5, name
    moved = relative(states[0]["param/bn1.running_mean"], CASE.params()["bn1.running_mean"])
    assert moved > 0.05


def test_resumed_updates_have_the_same_bits(twin):
    """Running statistics are part of the state; averages are those of trained parameters alone."""
    config, batches = CASE.config(), CASE.batches()
    optim = config.optim.model_copy(update={"ema": 0.9})
    config = config.model_copy(update={"optim": optim})
    whole, first, second = (load_backend(twin.name, config) for _ in range(3))
    for backend in (whole, first):
        backend.load_params(CASE.params())
        backend.fetch(backend.train_step(batches[:1], 0.05))
    second.load_state(first.state())
    for backend in (whole, second):
        backend.fetch(backend.train_step(batches[1:2], 0.05))
    found, expected = second.state(), whole.state()
    assert found.keys() == expected.keys() and "ema/bn1.running_mean" not in found
    for name, value in expected.items():
        assert np.array_equal(found[name], value), name
    images = batches[0].images
    found, expected = (b.fetch(b.eval_step(images))["logits"] for b in (second, whole))
    assert np.array_equal(found, expected)


def test_a_trace_leaves_the_state(twin):
    backend = twin.backend(CASE)
    before = backend.state()
    backend.trace(CASE.batches()[0], training=True)
    after = backend.state()
    assert all(np.array_equal(after[name], value) for name, value in before.items())


def test_a_failed_update_leaves_the_state(twin, monkeypatch):
    """Jittor's operators run late: its fault comes after `clip_gradients` has returned."""
    backend, module = twin.backend(CASE), twin.module("backend")
    before, clip = backend.state(), module.clip_gradients

    def planted(grads, limit):
        norm = clip(grads, limit)
        if twin.name == "torch" or twin.has_cuda():
            raise RuntimeError("planted fault")
        source = 'throw std::runtime_error("planted fault");'
        return twin.module("ops.cpu").run_cpu(source, [norm.shape], [norm])[0]

    with monkeypatch.context() as patch:
        patch.setattr(module, "clip_gradients", planted)
        with pytest.raises(RuntimeError, match="planted fault"):
            backend.train_step(CASE.batches()[:1], 0.05)
    after = backend.state()
    assert all(np.array_equal(after[name], value) for name, value in before.items())
    backend.fetch(backend.train_step(CASE.batches()[:1], 0.05))
    assert backend.state()["optim/updates"] == 1


def test_frozen_statistics_stay(twin):
    """And the model normalises by them: a second pass over the batch has the same loss."""
    config, batches = CASE.config(), CASE.batches()
    optim = config.optim.model_copy(update={"frozen": ("*bn*", "*downsample.1.*")})
    backend = load_backend(twin.name, config.model_copy(update={"optim": optim}))
    backend.load_params(CASE.params())
    evaluated = backend.trace(batches[0])["loss"]
    report = backend.fetch(backend.train_step(batches[:1], 0.05))
    assert report["loss"] == pytest.approx(float(evaluated), rel=1e-5)
    state = backend.state()
    for name, value in CASE.params().items():
        frozen = "bn" in name or "downsample.1" in name
        assert np.array_equal(state[f"param/{name}"], value) == frozen, name


def test_bfloat16_is_near_float32(twin):
    """A few per cent off, never equal; the statistics too."""
    results = []
    for precision in ("float32", "bfloat16"):
        backend = load_backend(twin.name, CASE.config(precision))
        backend.load_params(CASE.params())
        trace = backend.trace(CASE.batches()[0], training=True)
        backend.fetch(backend.train_step(CASE.batches()[:1], 0.0))
        results.append((trace, backend.state()))
    (trace, state), (rough, rough_state) = results
    # the gradient of the first layer has passed six batch norms
    for name, bound in (("block00", 0.03), ("logits", 0.06), ("grad/conv1.weight", 0.3)):
        assert 1e-4 < relative(rough[name], trace[name]) < bound, name
    block = np.ascontiguousarray(rough["block00"])
    assert not (block.view(np.uint32) & 0xFFFF).any()  # the upper half of a float32
    name = "param/layer2.1.bn2.running_var"
    assert 1e-5 < relative(rough_state[name], state[name]) < 3e-2


def test_one_value_per_channel_is_refused(twin):
    case = Case("one", model={"name": "resnet"}, crop=(8, 7), batch=1, seed=3)
    backend = twin.backend(case)
    backend.fetch(backend.eval_step(case.batches()[0].images))
    with pytest.raises(UserError, match="more than one value per channel in training"):
        backend.train_step(case.batches()[:1], 0.01)


def test_it_learns(twin):
    """Six images by heart."""
    backend, batch = twin.backend(CASE), CASE.batches()[0]
    losses = [
        float(backend.fetch(backend.train_step([batch], 0.05))["cross_entropy"]) for _ in range(25)
    ]
    assert losses[-1] < 0.2 * losses[0]
