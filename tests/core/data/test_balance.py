"""Balanced epochs: equal shares of the classes, a function of (seed, epoch) alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets import Samples
from transfg_core.data.loader import TrainStream
from transfg_core.data.sample_reader import TrainReader, balanced_order

LABELS = np.array([0] * 20 + [1] * 3 + [2] * 8 + [4] * 3)


@settings(deadline=None)
@given(st.integers(0, 99), st.integers(0, 99))
def test_classes_have_equal_shares(seed, epoch):
    order, repeats = balanced_order(seed, epoch, LABELS)
    shares = np.bincount(LABELS[order])[[0, 1, 2, 4]]
    assert shares.sum() == len(LABELS) and shares.max() - shares.min() <= 1
    for image, count in enumerate(np.bincount(order, minlength=len(LABELS))):
        assert sorted(repeats[order == image]) == list(range(count))  # 0, 1, ... for each image
    for label in (1, 2, 4):  # a small class shows all its images equally often
        counts = np.bincount(order, minlength=len(LABELS))[label == LABELS]
        assert counts.max() - counts.min() <= 1


def test_epochs_differ_and_repeat():
    first, _ = balanced_order(1, 0, LABELS)
    assert (first == balanced_order(1, 0, LABELS)[0]).all()
    assert (first != balanced_order(1, 1, LABELS)[0]).any()
    assert (first != balanced_order(2, 0, LABELS)[0]).any()


@pytest.fixture
def samples(tmp_path):
    paths = []
    for number in range(len(LABELS)):
        noise = np.random.default_rng(number).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        paths.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(noise).save(paths[-1])
    return Samples(tuple(paths), LABELS, tuple(paths))


DATA = DataConfig(crop=(8, 8), auto_augment=True, balance=True)


def test_a_repeated_image_has_another_augmentation(samples):
    reader = TrainReader(samples, DATA, 1)
    records = [reader(position) for position in range(len(LABELS))]
    seen = {}
    for record in records:
        seen.setdefault(record.sample, []).append(record.pixels.tobytes())
    assert max(map(len, seen.values())) >= 2
    assert all(len(set(views)) == len(views) for views in seen.values())


def test_a_balanced_stream_resumes(samples):
    def batches(start, count):
        stream = TrainStream(samples, DATA, 5, 1, start)
        taken = [next(stream) for _ in range(count)]
        stream.close()
        return [(batch.images.tobytes(), batch.labels.tolist()) for batch in taken]

    straight = batches(0, 16)
    assert batches(9, 7) == straight[9:]
    labels = [label for _, batch in straight for label in batch][: 2 * len(LABELS)]
    assert abs(np.bincount(labels)[[0, 1, 2, 4]] - 17).max() <= 1


def test_without_balance_every_image_comes_once(samples):
    reader = TrainReader(samples, DATA.model_copy(update={"balance": False}), 1)
    taken = sorted(reader(position).sample for position in range(len(LABELS)))
    assert taken == list(range(len(LABELS)))
