"""Mixup and CutMix: the mixture by hand, the draws, and the stream that mixes."""

import numpy as np
import pytest
from PIL import Image

from transfg_core.backend import Batch
from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets import Samples
from transfg_core.data.loader import TrainStream
from transfg_core.data.mixing import Mix, cut, draw_mix, mix_batch
from transfg_core.data.transforms import normalise
from transfg_core.train import split_batch

CLASSES = 5
LABELS = np.array([3, 0, 0, 4])
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6, 8, 3), dtype=np.uint8)
MIXING = DataConfig(crop=(6, 8), mixup=0.4, cutmix=1.0)


def test_mixup_by_hand():
    batch = Batch(PIXELS, LABELS)
    mixed = mix_batch(batch, Mix(0.7), MIXING, CLASSES)
    images = normalise(PIXELS, MIXING).astype(np.float64)
    for i, j in enumerate((3, 0, 1, 2)):
        assert np.abs(mixed.images[i] - (0.7 * images[i] + 0.3 * images[j])).max() < 1e-6
    assert np.allclose(mixed.targets, [
        [0, 0, 0, 0.7, 0.3], [0.7, 0, 0, 0.3, 0], [1, 0, 0, 0, 0], [0.3, 0, 0, 0, 0.7]
    ])  # fmt: skip
    assert mixed.images.dtype == mixed.targets.dtype == np.float32
    assert mixed.images.flags.c_contiguous and mixed.labels.tolist() == LABELS.tolist()


def test_cutmix_by_hand():
    mixed = mix_batch(Batch(PIXELS, LABELS), Mix(0.25, (2, 1, 8, 5)), MIXING, CLASSES)
    inside = np.zeros((6, 8), bool)
    inside[1:5, 2:8] = True
    for i, j in enumerate((3, 0, 1, 2)):
        assert (mixed.images[i][inside] == PIXELS[j][inside]).all()
        assert (mixed.images[i][~inside] == PIXELS[i][~inside]).all()
        assert mixed.targets[i] @ np.eye(CLASSES)[LABELS[i]] == (1 if i == 2 else 0.25)
    assert mixed.images.dtype == np.uint8
    assert mixed.labels.tolist() == [4, 3, 0, 0]  # the partner has the larger share


@pytest.mark.parametrize("mix", [Mix(0.3), Mix(0.3, (0, 0, 5, 5))], ids=["mixup", "cutmix"])
def test_the_batch_itself_is_left_alone(mix):
    pixels, labels = PIXELS.copy(), LABELS.copy()
    mix_batch(Batch(pixels, labels), mix, MIXING, CLASSES)
    assert (pixels == PIXELS).all() and (labels == LABELS).all()


def test_the_label_is_that_of_the_larger_share():
    for share in (0.0, 0.2, 0.49, 0.5, 0.8, 1.0):
        mixed = mix_batch(Batch(PIXELS, LABELS), Mix(share), MIXING, CLASSES)
        largest = mixed.targets[np.arange(4), mixed.labels]
        assert (largest == mixed.targets.max(1)).all() and (largest >= 0.5).all()
        assert np.allclose(mixed.targets.sum(1), 1, atol=1e-7)


@pytest.mark.parametrize(
    ("share", "centre", "box"),
    [
        (0.75, (40, 50), (25, 20, 75, 60)),  # half of 80 x 100, around its centre
        (0.75, (0, 99), (74, 0, 100, 20)),  # clipped at two edges
        (1.0, (40, 50), (50, 40, 50, 40)),  # empty
        (0.0, (40, 50), (0, 0, 100, 80)),
    ],
)
def test_boxes(share, centre, box):
    mix = cut((80, 100), share, centre)
    left, top, right, bottom = box
    assert mix.box == box
    assert mix.share == pytest.approx(1 - (right - left) * (bottom - top) / 8000)


def drawn(data, count=4000):
    rng = np.random.default_rng(0)
    return [draw_mix((30, 40), data, rng) for _ in range(count)]


def test_draws():
    """Probability and switch; shares of Beta(alpha, alpha); centres everywhere."""
    mixes = drawn(DataConfig(mixup=0.4, cutmix=2.0, mix_prob=0.8, mix_switch_prob=0.25))
    some = [mix for mix in mixes if mix is not None]
    cuts = [mix for mix in some if mix.box]
    assert abs(len(some) / 4000 - 0.8) < 0.03 and abs(len(cuts) / len(some) - 0.25) < 0.03
    shares = np.array([mix.share for mix in some if not mix.box])
    assert abs(shares.mean() - 0.5) < 0.03
    assert abs(shares.var() - 1 / (4 * (2 * 0.4 + 1))) < 0.01  # of a beta distribution
    boxes = np.array([mix.box for mix in cuts])
    assert boxes.min() == 0 and boxes[:, 2].max() == 40 and boxes[:, 3].max() == 30


@pytest.mark.parametrize(("key", "cuts"), [("mixup", False), ("cutmix", True)])
def test_one_of_the_two(key, cuts):
    mixes = drawn(DataConfig(**{key: 1.0}), 200)
    assert {mix.box is not None for mix in mixes} == {cuts}


def test_equal_alphas_still_switch():
    assert {mix.box is not None for mix in drawn(DataConfig(mixup=1.0, cutmix=1.0), 50)} == {
        True,
        False,
    }


def test_nothing_is_mixed_by_default():
    assert set(drawn(DataConfig(), 20)) == {None}
    assert set(drawn(MIXING.model_copy(update={"mix_prob": 0.0}), 20)) == {None}


def test_extreme_alphas_give_shares():
    for alpha in (1e-300, 1e-3, 100.0):
        shares = [mix.share for mix in drawn(DataConfig(mixup=alpha), 200)]
        assert np.isfinite(shares).all() and min(shares) >= 0 and max(shares) <= 1


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder, paths = tmp_path_factory.mktemp("images"), []
    rng = np.random.default_rng(0)
    for k in range(7):
        paths.append(str(folder / f"{k}.png"))
        Image.fromarray(rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)).save(paths[-1])
    return Samples(tuple(paths), np.arange(7) % CLASSES, tuple(map(str, range(7))))


def take(samples, count, data=MIXING, start=0, seed=1):
    stream = TrainStream(samples, data, 4, seed, start, classes=CLASSES)
    batches = [next(stream) for _ in range(count)]
    stream.close()
    return batches


def bits(batch):
    return [None if array is None else array.tobytes() for array in batch]


def test_a_stream_begins_at_any_update(samples):
    whole = take(samples, 9)
    for start in (1, 4, 7):
        assert [bits(b) for b in take(samples, 2, start=start)] == [
            bits(b) for b in whole[start : start + 2]
        ]
    other = take(samples, 9, seed=2)
    assert not any(np.array_equal(a.targets, b.targets) for a, b in zip(whole, other, strict=True))


def test_threads_and_workers_do_not_matter(samples):
    expected = [bits(batch) for batch in take(samples, 4)]
    for change in ({"threads": 5}, {"workers": 2}):
        data = MIXING.model_copy(update=change)
        assert [bits(batch) for batch in take(samples, 4, data)] == expected


def test_the_stream_mixes_what_it_would_give_unmixed(samples):
    """Same order and augmentation; each update has a share of its own."""
    plain = take(samples, 12, DataConfig(crop=(6, 8)))
    mixes = [draw_mix((6, 8), MIXING, np.random.default_rng([1, 4, k])) for k in range(1, 13)]
    for batch, before, mix in zip(take(samples, 12), plain, mixes, strict=True):
        assert bits(batch) == bits(mix_batch(before, mix, MIXING, CLASSES))
    assert len({mix.share for mix in mixes}) > 8 and len({mix.box for mix in mixes}) > 4


def test_micro_batches_take_their_targets(samples):
    (batch,) = take(samples, 1)
    parts = split_batch(batch, 2)
    assert np.array_equal(np.concatenate([part.targets for part in parts]), batch.targets)
