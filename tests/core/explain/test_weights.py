"""Pictures of parameters: principal components of filters, similarity of positions."""

import numpy as np
import pytest
from small_models import config_of, params_of

from transfg_core.errors import UserError
from transfg_core.explain.weights import (
    draw_filters,
    draw_positions,
    first_filters,
    position_similarity,
    principal_components,
)

CASES = ["overlap", "hybrid", "convnet", "resnet", "swin", "swinfc"]


def test_principal_components_are_found_again():
    """Filters of two known directions with known deviations, around a mean of their own."""
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.standard_normal((75, 2)))[0].T
    amounts = np.array([[3, 1], [-3, 1], [3, -1], [-3, -1]], float)
    filters = (amounts @ directions + rng.standard_normal(75)).reshape(4, 3, 5, 5)
    found, shares = principal_components(filters, 2)
    assert found.shape == (2, 3, 5, 5)
    assert np.allclose(abs(found.reshape(2, 75) @ directions.T), np.eye(2))
    assert np.allclose(shares, [0.9, 0.1])
    for component in found:  # the sign is fixed
        assert component.max() == abs(component).max()
    again, _ = principal_components(-filters, 2)
    assert np.allclose(found, again)


@pytest.mark.parametrize("name", CASES)
def test_filters_of_every_architecture(name):
    config, params = config_of(name), params_of(name)
    layer, filters = first_filters(config, params)
    assert filters.ndim == 4 and filters.shape[1] == 3
    assert np.array_equal(filters, params[layer].astype(np.float64))
    picture = draw_filters(config, params)
    assert picture.width > 400 and picture.height > 100


def test_similarity_of_positions_leaves_the_class_token_out():
    positions = np.float32([[[9, 9], [1, 0], [0, 2], [-3, 0]]])
    assert position_similarity(positions).tolist() == [[1, 0, -1], [0, 1, 0], [-1, 0, 1]]
    assert np.isfinite(position_similarity(np.zeros((1, 4, 2)))).all()


def test_maps_of_positions_have_the_order_of_patches():
    """The brightest place of each small map is the patch that it belongs to."""
    params = params_of("nonoverlap")
    rows, columns = 5, 4
    params["pos_embed"] = np.eye(1 + rows * columns, 48, dtype=np.float32)[None]
    found = np.asarray(draw_positions(config_of("nonoverlap"), params)).astype(int)
    yellow = np.argwhere((abs(found - [253, 231, 37]) < 2).all(axis=2))
    top, left = yellow.min(axis=0)
    # enlarged pixels of the maps, and white seams of 3 pixels between maps
    side = round(900 / (columns * columns))
    for row in range(rows):
        for column in range(columns):
            y = top + row * (rows * side + 3) + row * side + side // 2
            x = left + column * (columns * side + 3) + column * side + side // 2
            assert (abs(found[y, x] - [253, 231, 37]) < 2).all(), (row, column)


@pytest.mark.parametrize("name", ["convnet", "resnet", "swin"])
def test_models_without_position_embeddings(name):
    with pytest.raises(UserError, match=f"expected model.name vit, found {name}"):
        draw_positions(config_of(name), params_of(name))


def test_many_patches_are_sampled_evenly():
    crop = 136, 104  # 17 x 13 patches
    picture = draw_positions(config_of("vit", crop), params_of("vit", crop))
    assert 600 < picture.width < 1100
