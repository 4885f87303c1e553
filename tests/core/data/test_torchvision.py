"""Pixels against those of torchvision's Pillow path, by golden digests.

`python tools/torchvision_golden.py` writes the digests; torchvision is needed only there.
"""

import json

import numpy as np
import pytest
from torchvision_cases import (
    CUTS,
    FACTORS,
    GOLDEN,
    OLD_PILLOW,
    OPERATIONS,
    PIPELINES,
    SEEDS,
    TURNS,
    batch,
    digest,
    picture,
)

from transfg_core.backend import Batch
from transfg_core.config.sections import DataConfig
from transfg_core.data import autoaugment
from transfg_core.data.color_jitter import ADJUSTMENTS, to_grey
from transfg_core.data.mixing import Mix, cut, mix_batch
from transfg_core.data.transforms import eval_transform, normalise, train_transform

TORCHVISION = json.loads(GOLDEN.read_text())
OTHER = TORCHVISION["old_pillow"] if OLD_PILLOW else {}


@pytest.mark.parametrize("name", PIPELINES)
def test_pipeline(name):
    data = DataConfig(**PIPELINES[name])
    golden = OTHER.get(name) or TORCHVISION["pipelines"][name]
    found = [
        digest(train_transform(picture(), data, np.random.default_rng(seed))) for seed in SEEDS
    ]
    assert found == golden["train"]
    assert len(set(found)) > len(SEEDS) / 2
    pixels = eval_transform(picture(), data)
    assert digest(pixels) == golden["eval"]
    assert digest(normalise(pixels[None], data)[0]) == golden["normalised"]


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_of_autoaugment(name):
    found = [
        [digest(np.array(autoaugment.apply(picture(), name, level, s))) for s in (False, True)]
        for level in range(autoaugment.LEVELS)
    ]
    assert found == TORCHVISION["autoaugment"][name]
    _, first, last, signed = autoaugment.OPERATIONS[name]
    if first != last:
        assert len({tuple(pair) for pair in found}) >= 5, "the levels do not differ"
        assert (found[9][0] != found[9][1]) == signed


@pytest.mark.parametrize("name", OPERATIONS)
def test_magnitudes_of_autoaugment(name):
    """Those of torchvision; of solarize those of TransFG's program, 256 to 0, not 255 to 0."""
    values, signed = TORCHVISION["magnitudes"][name]
    _, first, last, own_signed = autoaugment.OPERATIONS[name]
    own = np.linspace(first, last, autoaugment.LEVELS)
    assert own_signed == signed
    if name == "posterize":
        own = np.round(own)
    if name == "solarize":
        assert own[0] == 256 and values[0] == 255
        own = own * 255 / 256
    assert np.allclose(own if len(values) > 1 else own[:1], values, rtol=1e-6)


def test_policy_of_autoaugment():
    policy = [[[OPERATIONS[n], p, level] for n, p, level in pair] for pair in autoaugment.POLICY]
    expected = TORCHVISION["policy"]
    assert len(policy) == len(expected) == 25
    for own, theirs in zip(sum(policy, []), sum(expected, []), strict=True):
        assert own[:2] == theirs[:2] and theirs[2] in (None, own[2])


@pytest.mark.parametrize("index", range(4))
def test_adjustment(index):
    factors = TURNS if index == 3 else FACTORS
    found = [digest(np.array(ADJUSTMENTS[index](picture(), factor))) for factor in factors]
    assert found == TORCHVISION["adjustments"][index]
    assert len(set(found)) >= len(factors) - 2


def test_grey():
    assert digest(np.array(to_grey(picture()))) == TORCHVISION["grey"]


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
@pytest.mark.parametrize("order", ["pixels", "normalised"])
def test_mixing(kind, order):
    """CutMix before normalisation gives the values of CutMix after it."""
    data, (pixels, labels) = DataConfig(), batch()
    images = pixels if order == "pixels" else normalise(pixels, data)
    for (share, row, column), golden in zip(CUTS, TORCHVISION["mixing"][kind], strict=True):
        mix = cut((48, 64), share, (row, column)) if kind == "cutmix" else Mix(share)
        mixed = mix_batch(Batch(images, labels), mix, data, 4)
        found = mixed.images if mixed.images.dtype == np.float32 else normalise(mixed.images, data)
        assert [digest(found), digest(mixed.targets)] == golden
