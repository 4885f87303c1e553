"""Parts that are drawn outside the model: the controls `random` and `center`."""

from collections import Counter

import numpy as np
import pytest

from transfg_core.config.loading import build_config
from transfg_core.data.transforms import normalise
from transfg_core.parts import draw_parts, nearest_to_center

GRID = 5, 4  # of images of 44 x 32 pixels


def config(selection, seed=3, **model):
    tree = {"selection": selection, "patch": 8, "classes": 5} | model
    return build_config({"run": {"seed": seed}, "data": {"crop": [44, 32]}, "model": tree}, "test")


def images(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 44, 32, 3)).astype(np.uint8)


RANDOM, CENTER = config("random", top_k=6), config("center", top_k=3)


@pytest.mark.parametrize(
    "model",
    [{"selection": "fused"}, {"selection": "maws"}, {"selection": "random", "placement": "none"}],
    ids=str,
)
def test_other_models_choose_themselves(model):
    assert draw_parts(config(**model), images(2)) is None
    convnet = build_config({"model": {"name": "convnet", "classes": 5}}, "test")
    assert draw_parts(convnet, images(2)) is None


def test_random_parts_depend_on_seed_update_and_image_alone():
    pixels = images(4)
    drawn = draw_parts(RANDOM, pixels, 7)
    assert drawn.shape == (4, 6) and drawn.dtype == np.int64
    assert len({tuple(row) for row in drawn}) == 4  # of other images, others
    alone = [draw_parts(RANDOM, pixels[i : i + 1], 7)[0] for i in range(4)]
    assert np.array_equal(drawn, alone)
    assert np.array_equal(drawn, draw_parts(RANDOM, normalise(pixels, RANDOM.data), 7))
    for other in (draw_parts(RANDOM, pixels, 8), draw_parts(RANDOM, pixels)):
        assert (drawn != other).any(axis=1).all()
    assert (drawn != draw_parts(config("random", seed=4, top_k=6), pixels, 7)).any()
    assert np.array_equal(draw_parts(RANDOM, pixels), draw_parts(RANDOM, pixels))


def test_random_parts_stay_when_colours_change_places():
    """So that the parity suite may permute them."""
    planes = normalise(images(3), RANDOM.data)
    assert np.array_equal(draw_parts(RANDOM, planes), draw_parts(RANDOM, planes[:, [2, 0, 1]]))


def test_random_parts_are_uniform_and_without_repetition():
    """400 images of 6 parts among 20 patches: each is expected 120 times, with deviation 9."""
    drawn = draw_parts(RANDOM, images(400))
    assert all(len(set(row)) == 6 for row in drawn)
    counts = Counter(drawn.ravel().tolist())
    assert set(counts) == set(range(1, 21))
    assert all(abs(count - 120) < 5 * 9.2 for count in counts.values())
    first = Counter(drawn[:, 0].tolist())  # order matters to a flattened head
    assert len(first) == 20 and max(first.values()) < 20 + 5 * 4.4


def test_center_parts():
    # rows 0 to 4 and columns 0 to 3: the centre lies at row 2 between columns 1 and 2
    assert draw_parts(CENTER, images(2), 5).tolist() == [[10, 11, 6]] * 2
    assert draw_parts(config("center"), images(1)).shape == (1, 4)  # as many as heads


@pytest.mark.parametrize("grid", [(5, 4), (4, 4), (3, 7), (1, 5), (2, 1)])
def test_nearest_patches_by_distance(grid):
    rows, columns = grid
    places = [(row, column) for row in range(rows) for column in range(columns)]
    distance = {
        1 + k: ((row - (rows - 1) / 2) ** 2 + (column - (columns - 1) / 2) ** 2, k)
        for k, (row, column) in enumerate(places)
    }
    assert nearest_to_center(grid).tolist() == sorted(distance, key=distance.__getitem__)
