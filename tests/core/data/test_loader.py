"""Batches: a function of (seed, update) alone, whatever reads them and whatever is broken."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets import Samples, read_dataset
from transfg_core.data.decoding import read_image
from transfg_core.data.loader import TrainStream, eval_batches
from transfg_core.data.sample_reader import EvalReader, TrainReader
from transfg_core.errors import RunFailed, UserError

CUB50 = Path(__file__).parents[3].parent / "shared" / "data" / "cub50"
COUNT = 11
DATA = DataConfig(crop=(16, 24), auto_augment=True, rotation=10.0)
PLAIN = DataConfig(crop=(20, 30), flip=False)  # the stored pixels


def write_samples(folder, count=COUNT):
    """Image i is noise around a colour of its own; its label is i."""
    rng = np.random.default_rng(0)
    paths = []
    for i in range(count):
        pixels = rng.integers(0, 40, (20, 30, 3)) + 20 * i
        paths.append(str(folder / f"{i:02}.png"))
        Image.fromarray(pixels.astype(np.uint8)).save(paths[-1])
    ids = tuple(Path(path).name for path in paths)
    return Samples(tuple(paths), np.arange(count, dtype=np.int64), ids)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return write_samples(tmp_path_factory.mktemp("images"))


def take(samples, count, data=DATA, batch=4, seed=1, start=0):
    stream = TrainStream(samples, data, batch, seed, start)
    batches = [next(stream) for _ in range(count)]
    stream.close()
    return batches


def same(left, right):
    """The same arrays, bit for bit, in batches of training or evaluation."""
    return len(left) == len(right) and all(
        (a is b is None) or (a.tobytes() == b.tobytes() and a.shape == b.shape)
        for one, other in zip(left, right, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def test_batch(samples):
    (batch,) = take(samples, 1)
    assert batch.images.shape == (4, 16, 24, 3) and batch.images.dtype == np.uint8
    assert batch.images.flags.c_contiguous
    assert batch.labels.shape == (4,) and batch.labels.dtype == np.int64


def test_labels_belong_to_their_images(samples):
    for batch in [*take(samples, 6, PLAIN), *eval_batches(samples, PLAIN, 4)]:
        for image, label in zip(batch.images, batch.labels, strict=True):
            stored = np.array(read_image(samples.paths[label]))
            assert (image == stored).all()


def test_every_epoch_is_complete_and_shuffled_anew(samples):
    labels = np.concatenate([batch.labels for batch in take(samples, COUNT, batch=4)])
    epochs = labels.reshape(4, COUNT)  # eleven batches of four cross three borders
    assert (np.sort(epochs, axis=1) == np.arange(COUNT)).all()
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_augmentation_depends_on_epoch_seed_and_sample_alone(samples):
    def by_label(batches):
        return {(i // COUNT, int(label)): image.tobytes() for i, (image, label) in enumerate(
            pair for batch in batches for pair in zip(batch.images, batch.labels, strict=True)
        )}  # fmt: skip

    one, other_size = by_label(take(samples, 11, batch=2)), by_label(take(samples, 4, batch=5))
    shared = one.keys() & other_size.keys()
    assert len(shared) == 20 and all(one[key] == other_size[key] for key in shared)
    assert sum(one[0, i] != one[1, i] for i in range(COUNT)) >= COUNT - 1
    other_seed = by_label(take(samples, 11, batch=2, seed=2))
    assert sum(one[0, i] != other_seed[0, i] for i in range(COUNT)) >= COUNT - 1


def test_batches_are_pinned(samples):
    """The order a seed gives: a change here changes every run."""
    labels = np.concatenate([batch.labels for batch in take(samples, 3, PLAIN, 4, seed=42)])
    assert labels.tolist() == [0, 7, 4, 9, 8, 3, 1, 2, 10, 6, 5, 7]


@settings(max_examples=12, deadline=None)
@given(start=st.integers(0, 9), batch=st.integers(1, 13))
def test_a_stream_begins_at_any_update(samples, start, batch):
    whole = take(samples, start + 2, batch=batch)
    assert same(take(samples, 2, batch=batch, start=start), whole[start:])


def test_a_late_update_costs_nothing(samples):
    began = time.perf_counter()
    take(samples, 1, start=10**9)
    assert time.perf_counter() - began < 2


def test_threads_do_not_matter(samples):
    one, four = (DATA.model_copy(update={"threads": n}) for n in (1, 4))
    assert same(take(samples, 6, one), take(samples, 6, four))
    left, right = (list(eval_batches(samples, data, 3)) for data in (one, four))
    assert same(left, right)


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_do_not_matter(samples, workers):
    data = DATA.model_copy(update={"workers": workers, "threads": 1})
    assert same(take(samples, 4, data, start=2), take(samples, 4, start=2))


def test_evaluation_takes_every_sample_once_in_order(samples):
    batches = list(eval_batches(samples, DATA, 4))
    assert [len(batch.labels) for batch in batches] == [4, 4, 3]
    index = np.concatenate([batch.index for batch in batches])
    assert index.dtype == np.int64 and index.tolist() == list(range(COUNT))
    assert np.concatenate([batch.labels for batch in batches]).tolist() == list(range(COUNT))
    assert batches[2].images.shape == (3, 16, 24, 3)


@pytest.fixture
def broken(tmp_path):
    """Images 3, 4 and 10 cannot be read: not an image, absent, cut short."""
    samples = write_samples(tmp_path)
    Path(samples.paths[3]).write_text("no image")
    Path(samples.paths[4]).unlink()
    content = Path(samples.paths[10]).read_bytes()
    Path(samples.paths[10]).write_bytes(content[: len(content) // 2])
    return samples


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_image_stops_the_run_by_name(broken, workers):
    data = DATA.model_copy(update={"workers": workers})
    with pytest.raises(RunFailed) as caught:
        list(eval_batches(broken, data, 2))
    assert str(caught.value).startswith(f"{broken.paths[3]}: expected an image, found no known")
    assert caught.value.exit_code == 1 and caught.value.__cause__ is None
    if not workers:
        with pytest.raises(RunFailed, match="expected an image"):
            take(broken, 6)


def test_a_skipped_image_is_replaced_in_training(broken):
    data = PLAIN.model_copy(update={"on_bad_image": "skip"})
    stream = TrainStream(broken, data, COUNT, seed=1)
    for _ in range(3):
        batch = next(stream)
        assert sorted(batch.labels) == [0, 0, 1, 2, 5, 5, 5, 6, 7, 8, 9]  # 3, 4 -> 5 and 10 -> 0
    assert set(stream.bad_images) == {broken.paths[i] for i in (3, 4, 10)}
    assert stream.bad_images[broken.paths[4]] == "no such file"
    augmented = DATA.model_copy(update={"on_bad_image": "skip"})
    assert same(take(broken, 3, augmented, start=2), take(broken, 5, augmented)[2:])


def test_a_skipped_image_is_left_out_of_evaluation(broken):
    data, bad = DATA.model_copy(update={"on_bad_image": "skip"}), {}
    batches = list(eval_batches(broken, data, 3, bad))
    index = np.concatenate([batch.index for batch in batches])
    assert index.tolist() == [0, 1, 2, 5, 6, 7, 8, 9]
    assert [len(batch.labels) for batch in batches] == [3, 3, 2]
    assert set(bad) == {broken.paths[i] for i in (3, 4, 10)}


def test_nothing_readable(tmp_path):
    samples = Samples((str(tmp_path / "a"), str(tmp_path / "b")), np.zeros(2, np.int64), ("a", "b"))
    data = DATA.model_copy(update={"on_bad_image": "skip"})
    with pytest.raises(RunFailed, match="none among 2"):
        take(samples, 1, data)
    with pytest.raises(RunFailed, match="none among 2"):
        list(eval_batches(samples, data, 1))


@pytest.mark.parametrize("on_bad_image", ["error", "skip"])
def test_an_image_smaller_than_the_crop_is_named(samples, on_bad_image):
    data = DataConfig(crop=(32, 32), on_bad_image=on_bad_image)
    with pytest.raises(UserError, match=r"00\.png: .*data\.crop \[32, 32\].*\[20, 30\]"):
        list(eval_batches(samples, data, 2))
    with pytest.raises(UserError, match="set data.resize"):
        take(samples, 1, data)


SCRIPT = """
import signal, sys
import numpy as np
from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets import Samples
from transfg_core.data.loader import TrainStream, eval_batches
paths = tuple(sys.argv[2:])
samples = Samples(paths, np.zeros(len(paths), np.int64), paths)
stream = TrainStream(samples, DataConfig(crop=(16, 16)), 4, 0)
batches = eval_batches(samples, DataConfig(crop=(16, 16)), 2)
next(stream), next(batches)
if sys.argv[1] == "raise":
    raise KeyError("mine")
if sys.argv[1] == "interrupt":
    signal.raise_signal(signal.SIGINT)
assert not {"torch", "jittor", "jax"} & set(sys.modules)
"""


@pytest.mark.parametrize(
    ("way", "code", "last"),
    [("exit", 0, ""), ("raise", 1, "KeyError: 'mine'"), ("interrupt", -2, "KeyboardInterrupt")],
)
def test_threads_end_with_the_program(samples, way, code, last):
    """No hang and not a word on the error stream, grain's greeting included."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, way, *samples.paths],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert done.returncode == code, done.stderr
    assert done.stderr.strip().rpartition("\n")[2] == last
    assert done.stderr.count("Traceback") == (way != "exit")


def test_settings_of_reading_reach_training_and_evaluation(tmp_path):
    """Without EXIF the stored pixels are too low for the crop; with a small limit none is read."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20), (9, 99, 199)).save(tmp_path / "a.png", exif=exif)
    samples = Samples((str(tmp_path / "a.png"),) * 2, np.arange(2), ("a", "b"))
    upright = DataConfig(crop=(30, 20), exif="apply")
    (batch,) = take(samples, 1, upright, 2)
    (only,) = eval_batches(samples, upright, 2)
    assert batch.images.shape == only.images.shape == (2, 30, 20, 3)
    with pytest.raises(RunFailed, match="expected at least data.crop"):
        take(samples, 1, upright.model_copy(update={"exif": "ignore"}), 2)
    small = upright.model_copy(update={"max_megapixels": 0})
    train = TrainReader(samples, small, 1)
    for read in (train, EvalReader(samples, small)):
        assert "data.max_megapixels 0" in read(0).error


@pytest.mark.skipif(not CUB50.is_dir(), reason=f"{CUB50} is absent")
def test_real_images():
    data = DataConfig(name="cub", root=str(CUB50), resize=(64, 64), crop=(48, 48))
    dataset = read_dataset(data, 0)
    (batch,) = take(dataset.train, 1, data, 8)
    assert batch.images.shape == (8, 48, 48, 3) and 10 < batch.images.std() < 120
    paths = (*dataset.test.paths, *dataset.train.paths)
    path = next(path for path in paths if "Brewer_Blackbird_0028_2682" in path)
    with Image.open(path) as image:
        assert image.mode == "L"
    (only,) = eval_batches(Samples((path,), np.zeros(1, np.int64), ("grey",)), data, 4)
    assert only.images.shape == (1, 48, 48, 3)


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_hold_the_regions_alone(tmp_path, workers):
    """The left half of image k is black; its right half, the region, has the grey level k."""
    count = 6
    for k in range(count):
        image = Image.new("RGB", (16, 8))
        image.paste((40 * k, 0, 0), (8, 0, 16, 8))
        image.save(tmp_path / f"{k}.png")
    paths = tuple(str(tmp_path / f"{k}.png") for k in range(count))
    regions = np.tile(np.array([[8, 0, 16, 8]], np.int32), (count, 1))
    samples = Samples(paths, np.arange(count, dtype=np.int64), paths, regions=regions)
    data = DataConfig(resize=(8, 8), crop=8, flip=False, workers=workers)
    expected = [40 * k for k in range(count)]
    (batch,) = eval_batches(samples, data, count)
    first = batch.images[..., 0]  # the red plane
    assert [set(plane.ravel()) for plane in first] == [{k} for k in expected]
    stream = TrainStream(samples, data, count, seed=1)
    batch = next(stream)
    stream.close()
    assert sorted(set(batch.images[..., 0].ravel())) == expected
