"""Maps over the crop: which a model has, where their values lie, and how they are scaled."""

import numpy as np
import pytest
from small_models import config_of

from transfg_core.config.loading import load_config
from transfg_core.errors import UserError
from transfg_core.explain.maps import explain, map_names, scaled, spread_grid
from transfg_core.inference.images import Crop
from transfg_core.models.layout import (
    ARCHITECTURES,
    FEATURE_MAPS,
    architecture,
    feature_map,
    taps_of,
)
from transfg_core.models.rows import resolve

NAMES = {
    "overlap": ("scores", "rollout", "saliency"),
    "vit": ("rollout", "saliency"),
    "random": ("rollout", "saliency"),
    "hybrid": ("scores", "rollout", "grad_cam", "saliency"),
    "convnet": ("grad_cam", "saliency"),
    "resnet": ("grad_cam", "saliency"),
    "swin": ("grad_cam", "saliency"),
    "swinfc": ("scores", "grad_cam", "saliency"),
}


@pytest.mark.parametrize("case", NAMES)
def test_which_maps_a_model_has(case):
    assert map_names(config_of(case).model) == NAMES[case]


def test_a_map_that_the_model_lacks_is_an_error(predictor):
    model = predictor("model.placement=none")
    crop = model.crop(np.zeros((90, 90, 3), np.uint8), "image")
    with pytest.raises(
        UserError, match="map scores: expected one of rollout, saliency for model.n"
    ):
        explain(model, [crop], ["scores"])


def test_broken_crops_are_left_out(predictor):
    model = predictor("model.placement=none")
    broken = Crop("gone", np.zeros((0, 0, 3), np.uint8), None, "no such file")
    assert explain(model, [broken]) == []


@pytest.mark.parametrize("stride", [9, 6, 4])
def test_a_value_lies_at_the_centre_of_its_patch(stride):
    """The centre of a patch has its value; half-way between two centres is their mean."""
    rows, columns, patch = 5, 7, 9
    size = ((rows - 1) * stride + patch, (columns - 1) * stride + patch)
    values = np.random.default_rng(0).random((rows, columns)).astype(np.float32)
    spread = spread_grid(values, size, stride, patch / 2)
    assert spread.shape == size and spread.dtype == np.float32
    middle = patch // 2
    assert np.allclose(spread[middle::stride, middle::stride][:rows, :columns], values)
    if stride % 2 == 0:
        between = spread[middle, middle + stride // 2 :: stride][: columns - 1]
        assert np.allclose(between, (values[0, 1:] + values[0, :-1]) / 2)
    assert spread[0, 0] == values[0, 0] and spread[-1, -1] == values[-1, -1]


def test_a_single_value_fills_the_crop():
    assert (spread_grid(np.float32([[3]]), (4, 9), 32, 16) == 3).all()


def test_maps_are_scaled_to_their_largest_value():
    assert scaled(np.float32([[1, 4], [2, 0]])).tolist() == [[0.25, 1], [0.5, 0]]
    assert not scaled(np.zeros((2, 2), np.float32)).any()


@pytest.mark.parametrize("case", [n for n in NAMES if "grad_cam" in NAMES[n]])
def test_feature_maps_have_the_shape_of_their_taps(case):
    config = config_of(case)
    found = feature_map(config.model, config.data.crop, "test")
    sizes = architecture(config.model).sizes(config.model, config.data.crop) | {"B": 1}
    shape = resolve(taps_of(config.model)[found.tap].axes, sizes)
    places = shape[2] * shape[3] if len(shape) == 4 else shape[1]
    assert places == found.rows * found.columns
    # the outermost centres lie in the image or, where the map is padded, just beyond it
    for count, side in zip((found.rows, found.columns), config.data.crop, strict=True):
        last = found.centre + (count - 1) * found.stride
        assert 0 < found.centre <= found.stride and last < side + found.stride


def test_every_architecture_says_whether_it_has_a_feature_map():
    assert FEATURE_MAPS.keys() == ARCHITECTURES.keys()
    plain = load_config(None, ["run.name=a", "model.placement=none"]).model
    with pytest.raises(UserError, match=r"Grad-CAM: expected .* vit with a model.stem, found vit"):
        feature_map(plain, (64, 64), "Grad-CAM")
