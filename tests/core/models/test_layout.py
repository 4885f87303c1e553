"""The table of every architecture is whole: each axis has a size, each parameter a tap."""

from pathlib import Path

import numpy as np
import pytest

from transfg_core.checkpoints import file as checkpoint
from transfg_core.checkpoints.pretrained import load_pretrained
from transfg_core.config.loading import build_config, load_config
from transfg_core.errors import UserError
from transfg_core.models import convnet, vit
from transfg_core.models.layout import (
    ARCHITECTURES,
    architecture,
    choice_taps,
    maker_of,
    param_shapes,
    param_specs,
    part_grid,
    taps_of,
)
from transfg_core.params.initial import initial_params
from transfg_core.params.merge import strict_merge

TINY = Path(__file__).parents[3] / "parity" / "cases" / "golden" / "tiny_vit.npz"
CONFIGS = {
    "parts": build_config({"model": {"classes": 7}}, "parts"),
    "overlap": build_config({"model": {"classes": 7, "patch": 8, "stride": 5}}, "overlap"),
    "lastlayer": build_config({"model": {"classes": 7, "fusion": "lastlayer"}}, "lastlayer"),
    "plain": build_config({"model": {"classes": 7, "placement": "none"}}, "plain"),
    **{
        name: build_config({"model": {"classes": 7} | model}, name)
        for name, model in {
            "extra": {"placement": "extra"},
            "flatten": {"placement": "flatten", "flatten_class_token": False},
            "flatten-layer": {
                "placement": "flatten",
                "flatten_part_layer": True,
                "selection": "cls_similarity",
                "top_k": 5,
            },
            "maws": {"selection": "maws", "top_k": 2},
            "random": {"selection": "random"},
        }.items()
    },
    "convnet": build_config({"model": {"classes": 7, "name": "convnet"}}, "convnet"),
    "swin": build_config({"model": {"classes": 7, "name": "swin"}}, "swin"),
    "resnet": build_config({"model": {"classes": 7, "name": "resnet"}}, "resnet"),
    "bottleneck": build_config({"model": {"classes": 7, "name": "resnet", "depth": 50}}, "50"),
    "swinfc": build_config({"model": {"classes": 7, "name": "swinfc"}}, "swinfc"),
    "backbone of swinfc": build_config(
        {"model": {"classes": 7, "name": "swinfc", "ea": False, "ca": False, "ffm": False}}, "none"
    ),
    "swinfc without ffm": build_config(
        {"model": {"classes": 7, "name": "swinfc", "ffm": False, "fsm": False}}, "maps"
    ),
}
each_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
CONVNET = load_config(None, ["model.name=convnet", "model.classes=5", "data.crop=[40,33]"])
FLATTEN = load_config(None, ["model.placement=flatten", "model.classes=5"])


def test_every_architecture_is_here():
    assert {config.model.name for config in CONFIGS.values()} == set(ARCHITECTURES)


@each_config
def test_every_axis_has_a_size(config):
    known = architecture(config.model)
    sizes = known.sizes(config.model, config.data.crop) | {"B": 6, "C": 7}
    letters = {
        letter
        for text in [
            *(spec.dims for spec in param_specs(config.model).values()),
            *(tap.axes for tap in taps_of(config.model).values()),
        ]
        for letter in text.split()
    }
    assert {letter for letter in letters if not letter.isdigit()} <= set(sizes)
    orders = known.orders(config.model, np.random.default_rng(0))
    for letter, order in orders.items():
        assert sorted(order) == list(range(sizes[letter])), letter


@each_config
def test_taps_read_what_comes_before_them(config):
    before = {"images"}
    for name, tap in taps_of(config.model).items():
        assert set(tap.reads) <= before, name
        before.add(name)
    assert name == "logits"


@each_config
def test_every_parameter_makes_one_tap(config):
    model = config.model
    taps, params = taps_of(model), param_specs(model)
    used = [param for tap in taps.values() for param in tap.params]
    assert sorted(used) == sorted(params)
    assert all(param in taps[maker_of(param, taps)].params for param in params)


@each_config
def test_the_choice_of_parts_alone_has_no_gradient(config):
    model = config.model
    assert bool(choice_taps(model)) == model.selects_parts
    rows = {f"part_row0{i}" for i in (1, 2, 3)}
    assert choice_taps(model) <= {"part_scores", "part_index", *rows}


def test_sizes_of_the_convnet_by_hand():
    # (40, 33) -> ((40 - 5) // 2 + 1, (33 - 5) // 2 + 1) -> ((18 - 5) // 2 + 1, (15 - 5) // 2 + 1)
    assert convnet.map_sizes((40, 33), CONVNET.model) == ((18, 15), (7, 6))
    shapes = param_shapes(CONVNET.model, CONVNET.data.crop)
    assert shapes["conv1.weight"] == (32, 3, 5, 5) and shapes["conv2.weight"] == (64, 32, 5, 5)
    assert shapes["head.weight"] == (5, 64)
    products = 18 * 15 * 25 * 3 * 32 + 7 * 6 * 25 * 32 * 64 + 64 * 5
    assert convnet.forward_flops(CONVNET.model, CONVNET.data.crop) == 2 * products


def test_an_image_that_is_too_small_is_refused():
    """The smallest that is taken, and one pixel less: 4 · 2 + 5 = 13."""
    assert convnet.map_sizes((13, 13), CONVNET.model)[1] == (1, 1)
    with pytest.raises(UserError, match="image 13 x 12: expected at least 13 each way"):
        convnet.map_sizes((13, 12), CONVNET.model)
    with pytest.raises(UserError, match=r"data.crop \[12, 12\] is smaller than what model.kernel"):
        load_config(None, ["model.name=convnet", "data.crop=12"])


@pytest.mark.parametrize("switch", ["run.compile=true", "run.grad_checkpointing=true"])
def test_what_needs_blocks_is_refused_without(switch):
    with pytest.raises(UserError, match="expected a model with blocks, found model.name"):
        load_config(None, ["model.name=convnet", switch])


def test_names_and_keys_of_another_architecture():
    with pytest.raises(UserError, match="model.name: expected 'vit', .*'convnet', .*found 'x'"):
        load_config(None, ["model.name=x"])
    with pytest.raises(UserError, match="model.name: input should be 'vit', found None"):
        build_config({"model": {"name": None}}, "empty")
    with pytest.raises(UserError, match="model.placement: unknown key"):
        load_config(None, ["model.name=convnet", "model.placement=none"])
    with pytest.raises(UserError, match="model.kernel: unknown key"):
        load_config(None, ["model.kernel=3"])


def test_a_configuration_of_version_0_1_0_is_a_vit():
    """It has no `model.name`, and sizes that were not set were null."""
    tree = {"model": {"size": "S", "width": None, "heads": None, "stride": None, "patch": 16}}
    model = build_config(tree, "old").model
    assert (model.name, model.width, model.heads, model.mlp) == ("vit", 384, 6, 1536)
    assert model.stride == 16
    assert build_config({"model": {"width": 24, "heads": 3}}, "old").model.depth == 4


def test_a_patch_of_a_wrong_type_is_named_alone():
    """Not the stride, which would be the same by default."""
    with pytest.raises(UserError, match="model.patch") as raised:
        build_config({"model": {"patch": "x"}}, "test")
    assert "stride" not in str(raised.value)


def test_a_wrong_shape_names_the_setting_of_its_architecture():
    for config, name, setting in (
        (CONVNET, "head.weight", "model.width2"),
        (load_config(None, ["model.classes=5"]), "cls_token", "model.width"),
        (FLATTEN, "head.weight", "model.width or model.placement .with .*top_k and .*"),
    ):
        shapes = param_shapes(config.model, config.data.crop)
        arrays = initial_params(config.model, config.data.crop, 0)
        arrays[name] = np.zeros((*arrays[name].shape[:-1], 3), np.float32)
        with pytest.raises(UserError, match=f"{name}: .* is {setting} right"):
            strict_merge(shapes, arrays, "x")


def test_parameters_of_a_convnet_as_pretrained(tmp_path):
    params = initial_params(CONVNET.model, CONVNET.data.crop, 3)
    arrays = {f"param/{name}": value for name, value in params.items()}
    path = tmp_path / "best.safetensors"
    checkpoint.save(path, arrays, {"config": CONVNET.model_dump(mode="json")})
    loaded, report = load_pretrained(str(path), CONVNET.model, (64, 50))  # of another image size
    assert loaded.keys() == params.keys() and not report.resized
    assert all(np.array_equal(loaded[name], value) for name, value in params.items())
    other = CONVNET.model.model_copy(update={"classes": 9})
    loaded, report = load_pretrained(str(path), other, (64, 50))
    assert set(report.initialised) == {"head.weight", "head.bias"}
    plain = load_config(None, ["model.classes=5"]).model
    with pytest.raises(UserError, match="expected model.name vit, found convnet; set model.name"):
        load_pretrained(str(path), plain, (64, 64))
    strided = CONVNET.model.model_copy(update={"stride": 3})
    with pytest.raises(UserError, match="expected model.stride 3, found 2; set model.stride=2"):
        load_pretrained(str(path), strided, (64, 64))
    with pytest.raises(UserError, match="expected model.name vit, found convnet"):
        load_pretrained(str(TINY), CONVNET.model, (64, 64))


def test_vit_only_functions_refuse_others():
    with pytest.raises(UserError, match="rollout: expected model.name vit, found convnet"):
        vit.require_vit(CONVNET.model, "rollout")


def test_parts_are_chosen_from_a_grid_of_patches():
    """The grid of (40, 33) with patches of 8 and a stride of 5; a convnet has none."""
    model = CONFIGS["overlap"].model
    assert part_grid(model, (40, 33), "parts") == (7, 6, 8, 5)
    assert part_grid(CONFIGS["swinfc"].model, (72, 64), "parts") == (3, 2, 32, 32)
    with pytest.raises(UserError, match="parts: expected model.name vit or swinfc, found convnet"):
        part_grid(CONVNET.model, (40, 33), "parts")


MODEL = {"width": 12, "heads": 3, "depth": 4, "mlp": 20, "patch": 8, "classes": 7}


@pytest.mark.parametrize(
    ("settings", "blocks", "layer", "parts", "width"),
    [
        ({"placement": "none"}, 4, False, 3, 12),
        ({"placement": "transfg"}, 3, True, 3, 12),
        ({"placement": "extra"}, 4, True, 3, 12),
        ({"placement": "flatten"}, 4, False, 3, 48),
        ({"placement": "flatten", "flatten_class_token": False}, 4, False, 3, 36),
        ({"placement": "flatten", "flatten_part_layer": True}, 4, True, 3, 48),
        ({"selection": "maws"}, 3, True, 9, 12),
        ({"selection": "maws", "top_k": 2, "placement": "extra"}, 4, True, 8, 12),
        ({"selection": "random", "top_k": 5, "placement": "flatten"}, 4, False, 5, 72),
    ],
    ids=str,
)
def test_sizes_of_placements_by_hand(settings, blocks, layer, parts, width):
    config = build_config({"model": MODEL | settings, "data": {"crop": [24, 40]}}, "test")
    shapes = param_shapes(config.model, config.data.crop)
    assert f"blocks.{blocks - 1}.norm1.bias" in shapes
    assert f"blocks.{blocks}.norm1.bias" not in shapes
    assert ("part_layer.norm1.bias" in shapes, "part_norm.bias" in shapes) == (layer, layer)
    assert ("norm.bias" in shapes) != layer
    assert shapes["head.weight"] == (7, width)
    assert config.model.part_count == parts
    linear = 4 * 12 * 12 + 2 * 12 * 20
    products = blocks * (16 * linear + 2 * 16 * 16 * 12)  # 3 x 5 patches and the class token
    tokens = parts + 1
    products += layer * (tokens * linear + 2 * tokens * tokens * 12)
    products += 15 * 3 * 64 * 12 + 7 * width
    assert vit.forward_flops(config.model, (24, 40)) == 2 * products
    layers = vit.layers(config.model)
    assert layers["head.bias"] == blocks + layer + 1
    assert layers.get("part_layer.mlp.fc1.bias", blocks + 1) == blocks + 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("model.top_k=3", "selection fused takes one token for each head; leave model.top_k out"),
        (
            "model.placement=extra model.part_layer_init=last_block",
            "the part layer of placement extra is a new block; leave model.part_layer_init out",
        ),
        (
            "model.placement=flatten model.pretrained_head=true",
            "reads several tokens, that of a file one; leave model.pretrained_head out",
        ),
        (
            "model.flatten_class_token=false",
            "flatten_class_token: expected true, .* set model.placement=flatten",
        ),
        (
            "model.placement=extra model.flatten_part_layer=true",
            "flatten_part_layer: expected false, .* changes nothing with placement extra; leave",
        ),
        (
            "model.selection=maws model.fusion=mul",
            "fusion: expected matmul, since selection maws fuses no .*; leave model.fusion out",
        ),
        (
            "model.selection=best",
            "model.selection: input should be 'fused', 'maws', 'cls_similarity'",
        ),
    ],
)
def test_settings_that_do_not_fit_a_placement(settings, message):
    with pytest.raises(UserError, match=message):
        load_config(None, settings.split())


def test_one_key_makes_the_plain_model_of_any_file():
    """Settings of parts are then without effect, and allowed."""
    for settings in ("fusion=mul", "selection=maws", "flatten_part_layer=true"):
        plain = load_config(None, ["model.placement=none", f"model.{settings}"]).model
        assert not plain.has_part_layer and not plain.draws_parts and plain.feature_width == 96


def test_more_parts_than_patches_are_refused():
    config = load_config(None, ["model.selection=center", "model.top_k=16", "model.classes=5"])
    param_shapes(config.model, (32, 32))
    with pytest.raises(UserError, match="model.top_k 16: expected at most 12, the number of patc"):
        param_shapes(config.model, (24, 32))
    plain = load_config(None, ["model.placement=none", "model.classes=5"])
    param_shapes(plain.model, (8, 8))
