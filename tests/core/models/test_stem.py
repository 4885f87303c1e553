"""The stems of hybrids: sizes by hand, defaults of the configuration, clear errors."""

import numpy as np
import pytest

from transfg_core.config.loading import load_config
from transfg_core.config.stem import STEMS
from transfg_core.errors import UserError
from transfg_core.metrics import patch_boxes
from transfg_core.models import stem, vit
from transfg_core.models.layout import param_shapes, part_grid
from transfg_core.params.initial import initial_params


def config(*settings, crop=64):
    return load_config(None, ["model.classes=5", f"data.crop={crop}", *settings])


@pytest.mark.parametrize(
    ("name", "channels", "step", "maps"),
    [
        ("tiny_s8", 256, 8, [(112, 105), (56, 53), (28, 27)]),
        ("r_s4", 64, 4, [(112, 105), (56, 53)]),
        ("r26_s32", 2048, 32, [(112, 105), (56, 53), (28, 27), (14, 14), (7, 7)]),
        ("r50_s16", 1024, 16, [(112, 105), (56, 53), (28, 27), (14, 14)]),
        ("r50_s32", 2048, 32, [(112, 105), (56, 53), (28, 27), (14, 14), (7, 7)]),
    ],
)
def test_maps_of_every_stem(name, channels, step, maps):
    """Sides are halved and rounded up: 209 -> 105 -> 53 -> 27 -> 14 -> 7."""
    assert (STEMS[name].channels, STEMS[name].step) == (channels, step)
    assert stem.map_sizes(name, (224, 209)) == maps


def test_operations_of_a_stem_by_hand():
    """`tiny_s8` on 32 x 16 pixels: 16 x 8, 8 x 4 and 4 x 2 positions."""
    root = 128 * 49 * 3 * 32
    first = 32 * (32 * 32 + 9 * 32 * 32 + 32 * 128 + 32 * 128)
    second = 32 * 128 * 64 + 8 * (9 * 64 * 64 + 64 * 256 + 128 * 256)
    third = 8 * (256 * 64 + 9 * 64 * 64 + 64 * 256)
    assert stem.stem_flops("tiny_s8", (32, 16)) == 2 * (root + first + second + third)


def test_the_patch_of_a_stem_with_stages_is_one_position():
    assert config("model.stem=r50_s16").model.patch == 1
    assert config("model.stem=r_s4").model.patch == config().model.patch == 8
    chosen = config("model.stem=tiny_s8", "model.patch=2").model
    assert (chosen.patch, chosen.stride, chosen.step) == (2, 2, 8)


def test_parts_are_squares_of_pixels():
    chosen = config("model.stem=tiny_s8", "model.patch=2", "model.stride=1", crop=[40, 29])
    grid = part_grid(chosen.model, chosen.data.crop, "parts")
    assert grid == (4, 3, 16, 8)  # 5 x 4 positions of 8 pixels
    assert patch_boxes(grid)[4].tolist() == [8, 8, 24, 24]


def test_an_image_that_is_too_small_for_a_stem():
    """9 pixels give 2 positions of 8; 8 pixels give one."""
    chosen = config("model.stem=tiny_s8", "model.patch=2", crop=9)
    assert vit.grid_size(chosen.data.crop, chosen.model) == (1, 1)
    with pytest.raises(UserError, match="8 x 9: expected at least 9 each way .*stem tiny_s8"):
        vit.grid_size((8, 9), chosen.model)
    with pytest.raises(
        UserError, match=r"data.crop \[8, 8\] is smaller than model.patch 2 with model.stem"
    ):
        config("model.stem=tiny_s8", "model.patch=2", crop=8)
    with pytest.raises(UserError, match="model.stem: input should be 'none', 'tiny_s8', 'r_s4'"):
        config("model.stem=r50")


def test_initial_values_of_a_stem():
    """Kernels of variance 1 / inputs; units that start as ReLU of their shortcut."""
    chosen = config("model.stem=r50_s16")
    values = initial_params(chosen.model, chosen.data.crop, 0)
    shapes = param_shapes(chosen.model, chosen.data.crop)
    kernel = values["stem.stages.2.1.conv2.weight"]
    assert kernel.shape == shapes["stem.stages.2.1.conv2.weight"] == (256, 256, 3, 3)
    assert kernel.std() == pytest.approx((9 * 256) ** -0.5, rel=0.01)
    assert not values["stem.stages.2.1.norm3.weight"].any()
    assert (values["stem.stages.2.0.downsample.norm.weight"] == 1).all()


def test_channels_move_with_their_groups():
    orders = stem.stem_orders("tiny_s8", np.random.default_rng(2))
    assert set(orders) == {"F", "I0", "O0", "I1", "O1", "Z"}
    for letter, order in orders.items():
        groups = order.reshape(32, -1) // (len(order) // 32)
        assert (groups == groups[:, :1]).all(), letter
        assert sorted(order) == list(range(len(order)))
    assert (orders["Z"] == orders["O1"]).all() and (orders["O1"] != np.arange(256)).any()
