"""The tables of residual networks: names, shapes, sizes of maps, operations."""

from math import prod

import numpy as np
import pytest
import resnet_cases

from transfg_core.config.loading import build_config, load_config
from transfg_core.errors import UserError
from transfg_core.models import resnet
from transfg_core.models.layout import hint, param_shapes, param_specs, taps_of
from transfg_core.params.groups import learned_params, param_groups, trained_params
from transfg_core.params.initial import initial_params


def model(*settings: str):
    own = ["model.name=resnet", "model.classes=1000", "data.crop=224", *settings]
    return load_config(None, own)


@pytest.mark.parametrize(
    ("depth", "params", "products"),
    [(18, 11_689_512, 1_814_073_344), (50, 25_557_032, 4_089_184_256)],
)
def test_counts_are_torchvisions(depth, params, products):
    """What torchvision's table of weights states: 1.81 and 4.09 GFLOPS, which are products."""
    config = model(f"model.depth={depth}")
    shapes = param_shapes(config.model, config.data.crop)
    assert sum(prod(shapes[name]) for name in learned_params(config.model)) == params
    assert resnet.forward_flops(config.model, config.data.crop) == 2 * products


@pytest.mark.parametrize("depth", resnet_cases.DEPTHS)
def test_names_are_torchvisions_in_its_order(depth):
    config = resnet_cases.config(depth)
    stored = resnet_cases.read()[str(depth)]["training"]
    grads = [name.removeprefix("grad/") for name in stored if name.startswith("grad/")]
    statistics = [name.removeprefix("param/") for name in stored if name.startswith("param/")]
    assert learned_params(config.model) == grads
    names = list(param_specs(config.model))
    assert [name for name in names if name not in grads] == statistics


def test_sizes_of_maps_by_hand():
    """(41, 30): by 2 to (21, 15), by the pool to (11, 8), then (6, 4), (3, 2), (2, 1)."""
    config = model("data.crop=[41,30]")
    found = resnet.map_sizes(config.data.crop, config.model)
    assert found == [(21, 15), (11, 8), (6, 4), (3, 2), (2, 1)]
    assert resnet.map_sizes((1, 1), config.model) == [(1, 1)] * 5
    numbers = resnet.sizes(config.model, config.data.crop)
    assert (numbers["H0"], numbers["W4"], numbers["G4"], numbers["A"]) == (21, 1, 512, 3)
    deep = resnet.sizes(model("model.depth=50").model)
    assert (deep["F4"], deep["E4"], deep["G4"], deep["A"], deep["G0"]) == (512, 512, 2048, 1, 64)


def test_depth_sets_what_is_not_set():
    deep = model("model.depth=50", "model.blocks=[1,2]").model
    assert (deep.bottleneck, deep.blocks, deep.expansion) == (True, (1, 2), 4)
    assert build_config({"model": {"name": "resnet", "blocks": None}}, "x").model.blocks == (2,) * 4
    with pytest.raises(UserError, match="model.depth: input should be 18 or 50"):
        model("model.depth=34")
    with pytest.raises(UserError, match="model.blocks: .*at most 4"):
        model("model.blocks=[1,1,1,1,1]")


def test_strides_lie_in_the_3x3_convolutions():
    taps = taps_of(model("model.depth=50").model)
    strided = {name for name, tap in taps.items() if tap.stride == 2}
    blocks = ["block03", "block07", "block13"]  # after 3, 4 and 6 blocks
    ends = ("conv2", "downsample.conv")
    assert strided == {"conv1", *(f"{block}.{end}" for block in blocks for end in ends)}
    taps = taps_of(model().model)
    strided = {name for name, tap in taps.items() if tap.stride == 2 and "conv1" in name}
    assert strided == {"conv1", "block02.conv1", "block04.conv1", "block06.conv1"}


def test_letters_are_those_of_every_network():
    """`dims_of` knows no model, and gives the letters of the model's own rows."""
    for depth in (18, 50):
        for name, spec in param_specs(model(f"model.depth={depth}").model).items():
            assert resnet.dims_of(name) == spec.dims, name
    assert resnet.dims_of("layer5.0.conv1.weight") == resnet.dims_of("fc.weight") == ""
    names = list(param_specs(model().model))
    asked = hint("layer2.0.conv1.weight", (128, 64, 3, 3), (128, 64, 1, 1), names)
    assert asked == "; is model.depth right?"
    assert hint("bn1.weight", (64,), (16,), names) == "; is model.width right?"


def test_layers_for_the_decay_of_rates():
    config = model("optim.layer_decay=0.5")
    depths = resnet.layers(config.model)
    assert depths["conv1.weight"] == depths["bn1.running_var"] == 0
    assert depths["layer1.0.conv1.weight"] == 1 and depths["layer4.1.bn2.bias"] == 8
    assert depths["head.bias"] == 9
    groups = param_groups(config.model, config.optim)
    assert groups["conv1.weight"][0] == 0.5**9 and groups["head.weight"][0] == 1
    assert "bn1.running_mean" not in trained_params(config.model, config.optim)


def test_initial_values():
    config = model()
    params = initial_params(config.model, config.data.crop, 0)
    weight = params["layer3.0.conv2.weight"]
    assert np.std(weight) == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)
    assert (params["bn1.weight"] == 1).all() and (params["bn1.running_var"] == 1).all()
    assert not params["bn1.bias"].any() and not params["bn1.running_mean"].any()
    assert np.abs(params["head.weight"]).max() <= 512**-0.5
