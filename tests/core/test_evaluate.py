"""Evaluation on a backend in NumPy: every image once, and numbers only where there are some."""

import numpy as np
import pytest
from fake import FakeBackend
from PIL import Image

from transfg_core.config.loading import load_config
from transfg_core.data.datasets import Samples
from transfg_core.errors import RunFailed
from transfg_core.evaluate import boxes_in_crop, evaluate, mean_part_hits
from transfg_core.params.initial import initial_params

CONFIG = load_config(
    None, ["data.crop=16", "model.classes=3", "train.eval_batch_size=4", "model.depth=2"]
)
COUNT = 10


@pytest.fixture
def samples(tmp_path):
    """Image k has the grey level 20 k; the box of its part is in its upper left."""
    paths = tuple(str(tmp_path / f"{k}.png") for k in range(COUNT))
    for k, path in enumerate(paths):
        Image.new("RGB", (24, 24), (20 * k,) * 3).save(path)
    boxes = tuple(np.array([[4, 4, 9, 9]], np.float32) for _ in paths)
    return Samples(paths, np.arange(COUNT, dtype=np.int64) % 3, paths, boxes)


class Chooser(FakeBackend):
    """Chooses patch 1 for one head and patch 4 for the other."""

    def eval_step(self, images):
        return super().eval_step(images) | {"part_index": np.array([[1, 4]] * len(images))}


@pytest.fixture
def backend():
    backend = Chooser(CONFIG)
    backend.load_params(initial_params(CONFIG.model, CONFIG.data.crop, 0))
    return backend


def test_every_image_once_in_order(samples, backend):
    told = []
    found = evaluate(backend, samples, CONFIG, told.append)
    assert told == [4, 4, 2] and found.images == COUNT
    assert found.index.tolist() == list(range(COUNT))
    assert (found.labels == samples.labels).all()
    assert found.logits.shape == (COUNT, 3) and found.part_index.shape == (COUNT, 2)
    assert len({row.tobytes() for row in found.logits}) == COUNT
    right = (found.logits.argmax(axis=1) == samples.labels).mean()
    assert found.top1 == right and found.top5 == 1.0
    assert (found.part_hit, found.part_hit_chance) == (0.5, 0.25)  # one of two, one of 2 x 2
    assert found.record()["bad_images"] == 0 and found.seconds > 0


def test_images_that_are_skipped(samples, backend):
    with open(samples.paths[5], "w") as file:
        file.write("no image")
    with pytest.raises(RunFailed, match="5.png: expected an image"):
        evaluate(backend, samples, CONFIG)
    data = CONFIG.data.model_copy(update={"on_bad_image": "skip"})
    found = evaluate(backend, samples, CONFIG.model_copy(update={"data": data}))
    assert found.index.tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9] and found.images == 9
    assert found.bad_images.keys() == {samples.paths[5]} and found.record()["bad_images"] == 1


def test_logits_that_are_not_finite(samples, backend):
    backend.params["head.bias"][1] = np.inf
    with pytest.raises(RunFailed, match="expected finite logits.*optim.lr"):
        evaluate(backend, samples, CONFIG)


def test_boxes_turn_with_their_photograph(tmp_path):
    """The stored box is in the upper left; upright (a quarter to the right) in the upper right."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = str(tmp_path / "a.png")
    Image.new("RGB", (24, 20)).save(path, exif=exif)
    boxes = (np.array([[1, 2, 4, 8]], np.float32),)
    samples = Samples((path,), np.zeros(1, np.int64), ("a",), boxes)
    data = CONFIG.data.model_copy(update={"resize": None, "crop": (20, 20)})
    (stored,) = boxes_in_crop(samples, np.array([0]), data)
    assert stored.tolist() == [[-1, 2, 2, 8]]  # 2 columns are cut off on the left
    (upright,) = boxes_in_crop(samples, np.array([0]), data.model_copy(update={"exif": "apply"}))
    assert upright.tolist() == [[12, -1, 18, 2]]  # 2 rows are cut off at the top


def test_part_hits_where_there_is_nothing_to_hit(samples):
    """No part selection, no boxes, no box within the crop."""
    parts, rows = np.array([[1, 4]]), np.array([3])
    for chosen, boxes in (
        (None, samples.part_boxes),
        (parts, None),
        (parts, (np.array([[0, 0, 3, 3]], np.float32),) * COUNT),
    ):
        changed = Samples(samples.paths, samples.labels, samples.ids, boxes)
        assert mean_part_hits(chosen, rows, changed, CONFIG) == (None, None)


def test_boxes_lie_within_the_region(tmp_path):
    """The region begins at column 6, row 2, and ends at the border of 24 x 20 pixels."""
    path = str(tmp_path / "a.png")
    Image.new("RGB", (24, 20)).save(path)
    boxes = (np.array([[7, 4, 10, 9]], np.float32),)
    regions = np.array([[6, 2, 40, 0]], np.int32)
    samples = Samples((path,), np.zeros(1, np.int64), ("a",), boxes, regions)
    data = CONFIG.data.model_copy(update={"resize": None, "crop": (18, 18)})
    (moved,) = boxes_in_crop(samples, np.array([0]), data)
    assert moved.tolist() == [[1, 2, 4, 7]]
    data = data.model_copy(update={"resize": (36, 36), "crop": (36, 36)})
    (moved,) = boxes_in_crop(samples, np.array([0]), data)
    assert moved.tolist() == [[2, 4, 8, 14]]
