"""The experiments of the suite build, and together they cover all choices of the settings."""

from dataclasses import replace

import numpy as np
import pytest

from parity.cases.case import BATCH, BY_NAME, CASES, LARGE, WEIGHTS
from parity.cases.golden import GOLDENS
from transfg_core.models.layout import ARCHITECTURES, param_shapes
from transfg_core.schedule import lr_at


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_cases_build(case):
    config, params, batches = case.config(), case.params(), case.batches()
    shapes = param_shapes(config.model, config.data.crop)
    assert {name: value.shape for name, value in params.items()} == shapes
    assert all(value.dtype == np.float32 and np.std(value) > 0.01 for value in params.values())
    assert len(batches) == case.updates + case.continued <= config.train.steps
    for batch in batches:
        assert batch.images.shape == (BATCH, 3, *config.data.crop)
        assert batch.images.dtype == np.float32 and batch.labels.dtype == np.int64
        assert 0 <= batch.labels.min() and batch.labels.max() < config.model.classes
        assert len(set(batch.labels.tolist())) < BATCH  # pairs of one class
        assert (batch.targets is not None) == case.mixed
        if batch.targets is not None:
            assert batch.targets.shape == (BATCH, config.model.classes)
            assert batch.targets.dtype == np.float32 and (batch.targets > 0).sum() == 2 * BATCH
            assert np.allclose(batch.targets.sum(1), 1)
            assert (batch.targets.argmax(1) == batch.labels).all()
    assert config.model.dropout == 0 and config.data.crop[0] != config.data.crop[1]
    again = case.params()
    assert all(np.array_equal(value, again[name]) for name, value in params.items())
    assert case.config("float64").run.precision == "float64"
    assert config.run.precision == "float32"


def test_cases_cover_the_choices():
    configs = [case.config() for case in CASES]
    vits = [config.model for config in configs if config.model.name == "vit"]
    assert {config.model.name for config in configs} == set(ARCHITECTURES)
    assert {model.placement for model in vits} == {"transfg", "extra", "flatten", "none"}
    assert {model.fusion for model in vits} == {"matmul", "mul", "add", "lastlayer"}
    selections = {"fused", "maws", "cls_similarity", "random", "center"}
    assert {model.selection for model in vits} == selections
    flat = [model for model in vits if model.placement == "flatten"]
    assert {model.flatten_class_token for model in flat} == {True, False}
    assert {model.flatten_part_layer for model in flat} == {True, False}
    assert {config.optim.name for config in configs} == {"sgd", "adam", "adamw"}
    assert {config.optim.schedule for config in configs} >= {"cosine", "linear"}
    assert {model.stride < model.patch for model in vits} == {True, False}
    assert {config.train.accumulation > 1 for config in configs} == {True, False}
    assert {config.optim.clip is None for config in configs} == {True, False}
    assert {config.loss.label_smoothing > 0 for config in configs} == {True, False}
    assert {config.loss.contrastive for config in configs} == {True, False}
    assert any(config.optim.groups for config in configs)
    assert any(case.mixed and case.accumulation > 1 for case in CASES)
    assert any(case.mixed and case.config().loss.label_smoothing > 0 for case in CASES)
    # taps inside blocks with and without part selection
    fine = [case.config().model for case in CASES if case.fine]
    placements = {model.placement for model in fine if model.name == "vit"}
    assert placements == {"transfg", "extra", "none"}
    assert len(BY_NAME) == len(CASES) + 1


@pytest.mark.parametrize("case", [*CASES, LARGE], ids=lambda case: case.name)
def test_every_update_moves(case):
    config = case.config()
    rates = [lr_at(k + 1, config.optim, config.train.steps) for k in range(len(case.batches()))]
    assert min(rates) > 0.1 * config.optim.lr


def test_updates_from_a_loaded_state_are_several():
    assert {case.continued for case in CASES if case.updates > 1} == {3}


def test_another_seed_is_another_experiment():
    case = CASES[0]
    other = case.reseeded(7, "noise")
    assert other.name == "nonoverlap-7-noise" and other.model == case.model
    for name, value in case.params().items():
        assert not np.array_equal(value, other.params()[name]), name
    assert not np.array_equal(case.batches()[0].images, other.batches()[0].images)


@pytest.mark.parametrize("draw", WEIGHTS)
def test_weights_of_every_kind(draw):
    case = replace(CASES[0], weights=draw)
    params = case.params()
    assert all(value.dtype == np.float32 and np.isfinite(value).all() for value in params.values())
    means = params["pos_embed"].mean(axis=(0, 1))
    far = set(np.flatnonzero(np.abs(means) > 10))
    assert far == ({5, 17} if draw == "outliers" else set())
    if draw == "truncated":
        assert np.abs(params["head.weight"]).max() <= np.float32(0.04)
        assert params["part_norm.weight"].mean() == pytest.approx(1, abs=0.02)


def test_outliers_of_every_architecture():
    """Two channels, even where the channels are few."""
    for channels in (10, 12):
        model = {"name": "convnet", "width": channels}
        params = replace(BY_NAME["convnet"], model=model, weights="outliers").params()
        assert set(np.flatnonzero(np.abs(params["conv1.bias"]) > 10)) == {
            5,
            {10: 7, 12: 4}[channels],
        }


@pytest.mark.parametrize("golden", GOLDENS, ids=lambda golden: golden.name)
def test_goldens_build(golden):
    config, batches, trace = golden.config(), golden.batches(), golden.trace()
    shapes = param_shapes(config.model, config.data.crop)
    for section in ("grad", "after"):
        found = {
            n.removeprefix(f"{section}/"): v.shape
            for n, v in trace.items()
            if n.startswith(section)
        }
        assert found == shapes
    assert len(batches) == golden.updates
    assert batches[0].images.shape == (6, 3, *config.data.crop)
    assert golden.checkpoint.is_file()
    assert golden.config("float64").run.precision == "float64"
