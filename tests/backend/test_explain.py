"""Grad-CAM against formulas in NumPy and differences of logits; part scores of evaluations."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from reference import relative

from parity.cases.case import BY_NAME
from transfg_core.backend import load_backend
from transfg_core.errors import UserError
from transfg_core.models.layout import feature_map
from transfg_core.params.groups import trained_params

BOUND = 1.3e-6  # relative L2 error in float32: four times the largest that was measured
MAPS = ["resnet", "bottleneck", "hybrid", "swin", "swinfc", "swinfc-options"]
STEP = 0.005  # of differences
DIFFERENCES = 5e-4  # relative L2 error of differences: four times the largest measured one


def convolved(images, weight, bias, stride):
    """ReLU of a convolution without padding, in float64: (B, R, H, W) -> (B, F, h, w)."""
    side = weight.shape[-1]
    windows = sliding_window_view(images, (side, side), (2, 3))[:, :, ::stride, ::stride]
    summed = np.einsum("brhwij,frij->bfhw", windows, weight)
    return np.maximum(summed + bias[:, None, None], 0)


def test_grad_cam_of_the_convnet_is_equations_1_and_2(twin):
    """Behind the last map are only a mean and a linear layer, so the gradient is known."""
    case = BY_NAME["convnet"]
    backend, images = twin.backend(case), case.batches()[0].images
    params = {name: value.astype(np.float64) for name, value in case.params().items()}
    x = images.astype(np.float64)
    for layer in ("conv1", "conv2"):
        weight, bias = params[f"{layer}.weight"], params[f"{layer}.bias"]
        x = convolved(x, weight, bias, case.config().model.stride)
    logits = x.mean((2, 3)) @ params["head.weight"].T + params["head.bias"]
    places = x.shape[2] * x.shape[3]
    slopes = params["head.weight"][logits.argmax(-1)] / places  # of each position: (B, G)
    expected = np.maximum((slopes[:, :, None, None] * x).sum(1), 0).reshape(len(images), -1)
    found = backend.fetch(backend.grad_cam(images))
    assert list(found) == ["grad_cam"] and found["grad_cam"].dtype == np.float32
    assert found["grad_cam"].shape == expected.shape == (6, x.shape[2] * x.shape[3])
    assert relative(found["grad_cam"], expected) < BOUND
    assert x.shape[2] != x.shape[3]  # so that a transposed map shows
    alone = backend.fetch(backend.grad_cam(images[1:]))["grad_cam"]
    assert relative(alone, expected[1:]) < BOUND


@pytest.mark.parametrize("name", MAPS)
def test_grad_cam_by_differences(twin, name):
    """Where every position grows by the channels of one position, the chosen logit grows by the
    weighted sum of these channels, times the number of positions: equations 1 and 2 at once.

    Copies of one image are a batch; in each, the replayed map moves by another position's channels.
    """
    case = BY_NAME[name]
    config, backend, batch = case.config(), twin.backend(case), case.batches()[0]
    batch = batch._replace(images=np.repeat(batch.images[1:2], 6, axis=0))
    before = backend.state()
    found = backend.fetch(backend.grad_cam(batch.images))["grad_cam"]
    where = feature_map(config.model, case.crop, "test")
    taps = backend.trace(batch)
    values, places = taps[where.tap], where.rows * where.columns
    tokens = values.ndim == 3
    channels = values[0] if tokens else values[0].reshape(values.shape[1], -1).T  # of a position
    assert found.shape == (6, places) and len(channels) == places
    chosen, expected = int(answer(taps, config)[0].argmax()), []
    for first in range(0, places, 6):
        rows = np.arange(first, first + 6) % places
        moves = channels[rows][:, None] if tokens else channels[rows][:, :, None, None]
        both = [
            answer(backend.trace(batch, {where.tap: values + step * moves}), config)[:, chosen]
            for step in (np.float32(STEP), np.float32(-STEP))
        ]
        expected += list((both[0] - both[1]) / (2 * STEP * places))
    expected = np.maximum(expected[:places], 0)
    assert expected.any() and relative(found[0], expected) < DIFFERENCES
    after = backend.state()
    assert all(np.array_equal(value, after[key]) for key, value in before.items())


@pytest.mark.parametrize("name", ["convnet", "resnet"])
def test_positions_see_regions_around_their_centres(twin, name):
    """A row of pixels that changes reaches as far above as below: the centres are in the middle."""
    case = replace(BY_NAME[name], crop=(208, 32))
    backend, batch = twin.backend(case), case.batches()[0]
    where = feature_map(case.config().model, case.crop, "test")
    image = np.repeat(batch.images[:1], 6, axis=0)
    before = backend.trace(batch._replace(images=image))[where.tap][0]
    reach = []
    for first in range(80, 122, 6):
        moved = image.copy()
        for row in range(6):
            moved[row, :, first + row] += 30
        after = backend.trace(batch._replace(images=moved))[where.tap]
        for row, place in zip(*np.nonzero((after != before).any(axis=(1, 3))), strict=True):
            reach.append(where.centre + place * where.stride - (first + row + 0.5))
    assert max(reach) == -min(reach) > 5


def answer(taps, config):
    """The logits that classify: with `prediction: sum` those of all classifiers together."""
    names = [n for n in taps if n == "logits" or (n.startswith("stage_logits") and "." not in n)]
    sums = getattr(config.model, "prediction", "") == "sum"
    return sum(taps[name] for name in (names if sums else ["logits"]))


def test_grad_cam_needs_a_feature_map(twin):
    case = BY_NAME["vit"]
    with pytest.raises(UserError, match="Grad-CAM: expected model.name convnet, resnet, swin"):
        twin.backend(case).grad_cam(case.batches()[0].images)


def test_grad_cam_of_averages_and_behind_frozen_layers(twin):
    """It uses the averaged parameters, and frozen layers have slopes, too."""
    case = BY_NAME["convnet"]
    config, batch = case.config(), case.batches()[0]
    optim = config.optim.model_copy(update={"ema": 0.9, "frozen": ("conv1.*", "conv2.*")})
    backend = load_backend(twin.name, config.model_copy(update={"optim": optim}))
    backend.load_params(case.params())
    for _ in range(3):
        backend.train_step([batch], 0.5)
    state = backend.state()
    averaged = {name: state[f"param/{name}"] for name in backend.param_shapes()}
    averaged |= {n: state[f"ema/{n}"] for n in trained_params(config.model, optim)}
    plain = load_backend(twin.name, config)
    found = backend.fetch(backend.grad_cam(batch.images))["grad_cam"]
    for params, same in ((averaged, True), ({n: state[f"param/{n}"] for n in averaged}, False)):
        plain.load_params(params)
        expected = plain.fetch(plain.grad_cam(batch.images))["grad_cam"]
        assert np.allclose(found, expected, rtol=1e-4, atol=1e-7) == same


@pytest.mark.parametrize("name", ["overlap", "mul", "maws", "similarity", "swinfc"])
def test_an_evaluation_has_the_scores_of_its_parts(twin, name):
    """They are those of a trace, and choose the indices beside them."""
    case = BY_NAME[name]
    backend, batch = twin.backend(case), case.batches()[0]
    found, traced = backend.fetch(backend.eval_step(batch.images)), backend.trace(batch)
    assert relative(found["part_scores"], traced["part_scores"]) < BOUND
    assert np.array_equal(found["part_index"], traced["part_index"])
    rows = found["part_scores"].shape[1]
    best = found["part_scores"].argmax(-1) + 1
    share = found["part_index"].shape[1] // rows
    assert np.array_equal(found["part_index"][:, ::share], best)


@pytest.mark.parametrize("name", ["random", "center", "vit", "convnet"])
def test_an_evaluation_without_scores(twin, name):
    case = BY_NAME[name]
    backend = twin.backend(case)
    assert "part_scores" not in backend.fetch(backend.eval_step(case.batches()[0].images))
