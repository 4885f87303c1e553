"""Every architecture in both twins: its taps are those of its table, its numbers NumPy's."""

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from reference import relative

from parity.cases.case import BY_NAME, CASES, Case
from transfg_core.backend import load_backend
from transfg_core.errors import UserError
from transfg_core.models.layout import architecture, choice_taps, taps_of
from transfg_core.models.rows import resolve

CONVNET = Case("convnet", model={"name": "convnet"}, crop=(41, 32), seed=3)
STAGES = ("stage_loss2", "stage_loss3", "stage_loss4")
REPORTED = ("loss", "cross_entropy", *STAGES, "contrastive", "grad_norm", "clipped_norm")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_taps_are_those_of_the_table(twin, case):
    """The same names in the same order, with the shapes that their letters say."""
    config, batch = case.config(), case.batches()[0]
    trace = twin.backend(case).trace(batch, fine=True)
    table = taps_of(config.model)
    names = [name for name in trace if "/" not in name and name not in REPORTED]
    assert names == list(table)
    sizes = architecture(config.model).sizes(config.model, config.data.crop)
    sizes |= {"B": len(batch.labels)}
    for name, tap in table.items():
        assert trace[name].shape == resolve(tap.axes, sizes), name
        assert (f"d/{name}" in trace) == (name not in choice_taps(config.model)), name


@pytest.mark.parametrize(
    ("case", "precision"),
    [(case, "float32") for case in CASES]
    + [(BY_NAME[name], "bfloat16") for name in ("convnet", "resnet", "hybrid")],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_number_that_is_not_finite_is_not_hidden(twin, case, precision):
    """One NaN pixel reaches the logits of its image, and the loss and gradient of an update.

    Training stops at such a loss. An operator that takes NaN for 0 would hide that it diverged.
    """
    config, batch = case.config(precision), case.batches()[0]
    has_pool = config.model.name == "resnet" or getattr(config.model, "stem", "none") != "none"
    if has_pool and twin.name == "jittor" and twin.has_cuda():
        pytest.skip("Jittor's max pool on CUDA may hide it (docs/jittor.md)")
    backend = load_backend(twin.name, config)
    backend.load_params(case.params())
    clean = backend.fetch(backend.eval_step(batch.images))["logits"]
    images = batch.images.copy()
    images[0, 1, 7, 9] = np.nan
    poisoned = backend.fetch(backend.eval_step(images))["logits"]
    assert np.isnan(poisoned[0]).all()
    assert np.array_equal(poisoned[1:], clean[1:])
    report = backend.fetch(backend.train_step([batch._replace(images=images)], 0.01))
    assert np.isnan(report["loss"])
    assert np.isnan(report["grad_norm"])


def convolve(x, weight, bias, stride):
    """Without padding, by sums over windows: (B, R, H, W) -> (B, F, h, w)."""
    size = weight.shape[-1]
    windows = sliding_window_view(x, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]
    return np.einsum("brhwij,frij->bfhw", windows, weight) + bias[:, None, None]


def test_convnet_is_numpys(twin):
    """In float64 by another formula; float32 adds up to 1e-6 at most."""
    config, batch = CONVNET.config(), CONVNET.batches()[0]
    w = {name: value.astype(np.float64) for name, value in CONVNET.params().items()}
    stride = config.model.stride
    conv1 = convolve(batch.images.astype(np.float64), w["conv1.weight"], w["conv1.bias"], stride)
    conv2 = convolve(np.maximum(conv1, 0), w["conv2.weight"], w["conv2.bias"], stride)
    pool = np.maximum(conv2, 0).mean(axis=(2, 3))
    expected = {"conv1": conv1, "conv2": conv2, "pool": pool, "features": pool}
    expected["logits"] = pool @ w["head.weight"].T + w["head.bias"]
    trace = twin.backend(CONVNET).trace(batch)
    for name, value in expected.items():
        assert relative(trace[name], value) < 2e-6, name


def test_convnet_learns(twin):
    """Six images by heart."""
    backend, batch = twin.backend(CONVNET), CONVNET.batches()[0]
    losses = [
        float(backend.fetch(backend.train_step([batch], 0.05))["cross_entropy"]) for _ in range(60)
    ]
    assert losses[-1] < 0.2 * losses[0]


def test_dropout_of_the_convnet_draws_new_masks(twin):
    case = Case("convnet", model={"name": "convnet", "dropout": 0.5}, seed=3)
    backend, batch = twin.backend(case), case.batches()[0]
    first, second = (backend.trace(batch, training=True)["features"] for _ in range(2))
    pool = backend.trace(batch)["features"]
    for features in (first, second):
        kept = features != 0
        assert 0.2 < kept.mean() < 0.8
        assert relative(features[kept], 2 * pool[kept]) < 1e-6
    assert not np.array_equal(first, second)


def test_convnet_in_bfloat16(twin):
    """Mixed precision: a per cent off, never equal."""
    backend = load_backend(twin.name, CONVNET.config("bfloat16"))
    backend.load_params(CONVNET.params())
    batch = CONVNET.batches()[0]
    trace = backend.trace(batch)
    logits, pool = trace["logits"], np.ascontiguousarray(trace["pool"])
    assert not (pool.view(np.uint32) & 0xFFFF).any()  # bfloat16: the upper half of a float32
    assert 1e-5 < relative(logits, twin.backend(CONVNET).trace(batch)["logits"]) < 3e-2


def test_rollout_needs_attention(twin):
    with pytest.raises(UserError, match="attention rollout: expected model.name vit"):
        twin.backend(CONVNET).rollout(CONVNET.batches()[0].images)
