"""Names, shapes, initial values, merging, groups, and what a checkpoint puts in their place."""

import dataclasses
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from transfg_core.checkpoints import file as checkpoint
from transfg_core.checkpoints.export import convert, save_as
from transfg_core.checkpoints.google import GOOGLE
from transfg_core.checkpoints.pretrained import build_params
from transfg_core.config.convnet import ConvNetConfig
from transfg_core.config.loading import build_config
from transfg_core.config.sections import Config, OptimConfig
from transfg_core.config.vit import VitConfig
from transfg_core.errors import UserError
from transfg_core.models.layout import param_shapes
from transfg_core.models.vit import grid_size
from transfg_core.params.groups import param_groups
from transfg_core.params.initial import initial_params
from transfg_core.params.merge import strict_merge, summary

SMALL = {"width": 12, "heads": 3, "depth": 3, "mlp": 20, "patch": 4, "classes": 5}
PARTS = VitConfig(**SMALL)
PLAIN = VitConfig(**SMALL, placement="none")
IMAGE = (12, 12)


def make_config(**model: object) -> Config:
    tree = {"data": {"crop": list(IMAGE)}, "model": SMALL | model}
    return build_config(tree, "test")


def write(path: Path, model: VitConfig, seed: int = 7, prefix: str = "") -> dict[str, np.ndarray]:
    arrays = initial_params(model, IMAGE, seed)
    arrays["cls_token"] = arrays["cls_token"] + np.arange(12, dtype=np.float32)
    positions = np.arange(arrays["pos_embed"].size, dtype=np.float32)
    arrays["pos_embed"] = positions.reshape(arrays["pos_embed"].shape)
    safetensors.numpy.save_file({prefix + name: array for name, array in arrays.items()}, path)
    return arrays


@pytest.mark.parametrize(
    ("size", "patch", "stride", "expected"),
    [
        ((448, 448), 16, 16, (28, 28)),
        ((448, 448), 16, 12, (37, 37)),
        ((224, 448), 16, 12, (18, 37)),
        ((16, 17), 16, 16, (1, 1)),
        ((38, 32), 8, 6, (6, 5)),
    ],
)
def test_grid(size, patch, stride, expected):
    assert grid_size(size, VitConfig(patch=patch, stride=stride)) == expected


def test_image_smaller_than_a_patch():
    with pytest.raises(UserError, match=r"7 x 30: expected at least 8 each way \(model.patch 8\)"):
        grid_size((7, 30), VitConfig(patch=8))


def test_names_in_order():
    block = [
        f"{module}.{leaf}"
        for module in ("norm1", "attn.query", "attn.key", "attn.value", "attn.out", "norm2")
        + ("mlp.fc1", "mlp.fc2")
        for leaf in ("weight", "bias")
    ]
    stem = ["cls_token", "pos_embed", "patch_embed.weight", "patch_embed.bias"]
    head = ["head.weight", "head.bias"]
    blocks = [[f"blocks.{i}.{name}" for name in block] for i in range(3)]
    parts = [f"part_layer.{name}" for name in block] + ["part_norm.weight", "part_norm.bias"]
    assert list(param_shapes(PARTS, IMAGE)) == stem + blocks[0] + blocks[1] + parts + head
    plain = [*stem, *sum(blocks, []), "norm.weight", "norm.bias", *head]
    assert list(param_shapes(PLAIN, IMAGE)) == plain


def test_shapes():
    shapes = param_shapes(PARTS, (12, 20))
    assert shapes["pos_embed"] == (1, 16, 12)
    assert shapes["patch_embed.weight"] == (12, 3, 4, 4)
    assert shapes["part_layer.mlp.fc1.weight"] == (20, 12)
    assert shapes["part_layer.mlp.fc2.weight"] == (12, 20)
    assert shapes["head.weight"] == (5, 12)


def test_known_number_of_parameters():
    """86,567,656 is what torchvision and timm report for ViT-B/16 with 1,000 classes at 224."""
    model = VitConfig(size="B", patch=16, classes=1000, placement="none")
    table = summary(param_shapes(model, (224, 224)))
    assert table.splitlines()[-1].split() == ["total", "86,567,656"]
    assert [line.split()[0] for line in table.splitlines()] == [
        "cls_token", "pos_embed", "patch_embed", "blocks", "norm", "head", "total",
    ]  # fmt: skip


def test_initial_distributions():
    model = VitConfig(width=64, heads=4, depth=2, mlp=256, patch=4, classes=50)
    values = initial_params(model, IMAGE, 3)
    assert {array.dtype for array in values.values()} == {np.dtype(np.float32)}
    bounds = {
        "blocks.0.attn.query.weight": 64**-0.5,
        "part_layer.attn.out.bias": 64**-0.5,
        "head.weight": 64**-0.5,
        "head.bias": 64**-0.5,
        "patch_embed.weight": 48**-0.5,
        "patch_embed.bias": 48**-0.5,
        "blocks.0.mlp.fc1.weight": (6 / 320) ** 0.5,
        "part_layer.mlp.fc2.weight": (6 / 320) ** 0.5,
    }
    for name, bound in bounds.items():
        largest = np.abs(values[name]).max()
        assert 0.8 * bound < largest <= np.nextafter(np.float32(bound), np.float32(1)), name
        if values[name].size > 1000:
            assert np.isclose(values[name].std(), bound / 3**0.5, rtol=0.05), name
    assert np.isclose(values["blocks.0.mlp.fc1.bias"].std(), 1e-6, rtol=0.2)
    assert (values["blocks.0.norm1.weight"] == 1).all() and not values["part_norm.bias"].any()
    assert not values["cls_token"].any() and not values["pos_embed"].any()


def test_initial_values_depend_on_seed_and_name_only():
    first, again = initial_params(PARTS, IMAGE, 1), initial_params(PARTS, IMAGE, 1)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    other = initial_params(PARTS, IMAGE, 2)
    assert not np.array_equal(first["head.weight"], other["head.weight"])
    plain = initial_params(PLAIN, IMAGE, 1)
    shared = first.keys() & plain.keys()
    assert "blocks.1.mlp.fc1.weight" in shared
    assert all(np.array_equal(first[name], plain[name]) for name in shared)
    rng = np.random.default_rng([1, zlib.crc32(b"head.bias")])
    assert np.array_equal(first["head.bias"], rng.uniform(-(12**-0.5), 12**-0.5, 5).astype("f4"))


def test_strict_merge_restores_order_and_type():
    shapes = param_shapes(PARTS, IMAGE)
    arrays = {name: np.zeros(shape, np.float64, "F") for name, shape in reversed(shapes.items())}
    merged = strict_merge(shapes, arrays, "test")
    assert list(merged) == list(shapes)
    assert all(a.dtype == np.float32 and a.flags.c_contiguous for a in merged.values())
    assert strict_merge({"scalar": ()}, {"scalar": np.zeros(())}, "test")["scalar"].shape == ()


def test_strict_merge_lists_every_problem():
    shapes = param_shapes(PARTS, IMAGE)
    arrays = initial_params(PARTS, IMAGE, 0)
    arrays["part_norm.bias"] = np.zeros(6, np.float32)
    arrays["pos_embed"] = np.zeros((1, 5, 12), np.float32)
    arrays["blocks.0.norm1.weight"][3] = np.nan
    arrays["blocks.1.mlp.fc1.bias"] = np.full(20, 1e300)
    arrays["cls_token"] = np.array([[["a"] * 12]])
    arrays["part_layer.mlp.fc1.weights"] = arrays.pop("part_layer.mlp.fc1.weight")
    with pytest.raises(UserError) as caught:
        strict_merge(shapes, arrays, "some.file")
    text = str(caught.value)
    assert text.startswith("some.file: 7 problems")
    for line in (
        "part_norm.bias: checkpoint (6,), model (12,); is model.width right?",
        "pos_embed: checkpoint (1, 5, 12), model (1, 10, 12); is data.crop",
        "blocks.0.norm1.weight: holds NaN or infinity",
        "blocks.1.mlp.fc1.bias: holds NaN or infinity",
        "cls_token: expected real numbers, found <U1",
        "part_layer.mlp.fc1.weight: missing, model (20, 12)",
        "part_layer.mlp.fc1.weights: unexpected, the model has no such name; the nearest is "
        "part_layer.mlp.fc1.weight",
    ):
        assert line in text


def test_groups():
    names = list(param_shapes(PARTS, IMAGE))
    groups = [
        {"match": "head.*", "lr_scale": 10.0, "weight_decay": 0.0},
        {"match": "*.bias", "weight_decay": 0.0},
        {"match": "part_*", "lr_scale": 5.0},
    ]
    optim = OptimConfig.model_validate({"weight_decay": 0.1, "groups": groups})
    result = param_groups(PARTS, optim)
    assert list(result) == names
    assert result["head.bias"] == (10.0, 0.0)
    assert result["part_norm.bias"] == (1.0, 0.0)
    assert result["part_norm.weight"] == (5.0, 0.1)
    assert result["blocks.0.norm1.weight"] == (1.0, 0.1)


def test_a_group_of_frozen_parameters_alone_is_named():
    groups = [{"match": "blocks.0.*", "lr_scale": 0.5}]
    optim = OptimConfig.model_validate({"frozen": ["blocks.*"], "groups": groups})
    with pytest.raises(UserError, match=r"groups\.0.*'blocks\.0\.\*': .*optim\.frozen alone"):
        param_groups(PARTS, optim)


def test_group_without_a_match_names_the_nearest():
    optim = OptimConfig.model_validate({"groups": [{"match": "head.*"}, {"match": "haed.weight"}]})
    with pytest.raises(UserError, match=r"groups\.1.*'haed.weight'.*the nearest is head.weight"):
        param_groups(PARTS, optim)


@pytest.mark.parametrize(
    ("model", "layers"),
    [
        (PARTS, {"cls_token": 0, "pos_embed": 0, "patch_embed.bias": 0, "blocks.0.norm1.bias": 1,
                 "blocks.1.attn.key.weight": 2, "part_layer.mlp.fc1.bias": 3, "part_norm.weight": 4,
                 "head.bias": 4}),
        (PLAIN, {"patch_embed.weight": 0, "blocks.0.norm2.weight": 1, "blocks.2.mlp.fc2.bias": 3,
                 "norm.bias": 4, "head.weight": 4}),
        (ConvNetConfig(name="convnet", classes=5), {"conv1.bias": 0, "conv2.weight": 1,
                                                    "head.bias": 2}),
    ],
)  # fmt: skip
def test_layer_decay_multiplies_the_rate_of_each_layer_below_the_head(model, layers):
    settings = {"layer_decay": 0.5, "groups": [{"match": "*.bias", "lr_scale": 3.0}]}
    groups = param_groups(model, OptimConfig.model_validate(settings))
    last = max(layers.values())
    for name, layer in layers.items():
        expected = 0.5 ** (last - layer) * (3.0 if name.endswith(".bias") else 1.0)
        assert groups[name] == (expected, 0.0), name
    assert list(groups) == list(param_shapes(model, (32, 32)))


def test_rates_without_layer_decay_are_those_of_the_groups():
    assert set(param_groups(PARTS, OptimConfig()).values()) == {(1.0, 0.0)}


def test_build_without_a_checkpoint():
    values, report = build_params(make_config())
    assert report is None and list(values) == list(param_shapes(PARTS, IMAGE))
    assert np.array_equal(values["head.bias"], initial_params(PARTS, IMAGE, 42)["head.bias"])


@pytest.mark.parametrize("prefix", ["", "param/"])
def test_own_checkpoint_is_taken_whole(tmp_path, prefix):
    path = tmp_path / "own.safetensors"
    arrays = write(path, PARTS, prefix=prefix)
    if prefix:
        more = {f"momentum/{name}": array for name, array in arrays.items()}
        more |= {f"param/{name}": array for name, array in arrays.items()}
        safetensors.numpy.save_file(more, path)
    values, report = build_params(make_config(pretrained=str(path)))
    assert list(values) == list(arrays)
    assert all(np.array_equal(values[name], arrays[name]) for name in arrays)
    assert report is not None and set(report.loaded) == set(arrays) and not report.initialised
    assert len(report.ignored) == (len(arrays) if prefix else 0)
    assert json.loads(json.dumps(dataclasses.asdict(report)))["source"] == str(path)
    assert f"{len(arrays)} arrays loaded" in report.summary()


def test_other_number_of_classes_starts_the_head_anew(tmp_path):
    path = tmp_path / "own.safetensors"
    write(path, PARTS)
    values, report = build_params(make_config(pretrained=str(path), classes=9))
    assert values["head.weight"].shape == (9, 12)
    assert report is not None and report.initialised == ("head.weight", "head.bias")
    assert "head.weight: 5 classes, model.classes 9" in report.ignored
    assert "initial values: head (2 arrays)" in report.summary()


def test_own_positions_are_resized(tmp_path):
    path = tmp_path / "own.safetensors"
    arrays = write(path, PARTS)
    config = build_config(
        {"data": {"crop": [20, 12]}, "model": SMALL | {"pretrained": str(path)}}, "test"
    )
    values, report = build_params(config)
    assert values["pos_embed"].shape == (1, 16, 12)
    old, new = (a[0, 1:].reshape(-1, 3, 12) for a in (arrays["pos_embed"], values["pos_embed"]))
    assert np.allclose(new[::2], old) and np.allclose(new[1], (old[0] + old[1]) / 2)
    assert report is not None
    assert report.resized == ("pos_embed: 3 x 3 (assumed square) to 5 x 3",)
    arrays["pos_embed"] = arrays["pos_embed"][:, :9]
    safetensors.numpy.save_file(arrays, path)
    with pytest.raises(UserError, match="pos_embed.*only a square grid"):
        build_params(config)


def test_a_run_becomes_googles_file(tmp_path):
    """And is read back from it bit by bit."""
    config = make_config(placement="none")
    arrays = initial_params(config.model, IMAGE, 1)
    source, target = tmp_path / "run.safetensors", tmp_path / "vit.npz"
    state = {f"param/{name}": value for name, value in arrays.items()}
    state |= {f"momentum/{name}": value for name, value in arrays.items()}
    checkpoint.save(source, state, {"config": config.model_dump(mode="json")})
    assert f"{len(arrays)} parameters" in convert(str(source), target)
    given = {"pretrained": str(target), "pretrained_head": True}
    values, _ = build_params(make_config(placement="none", **given))
    assert all(np.array_equal(value, arrays[name]) for name, value in values.items())
    overlapping = build_config(
        {"data": {"crop": list(IMAGE)}, "model": SMALL | {"placement": "none", "stride": 2}}, "test"
    )
    checkpoint.save(source, state, {"config": overlapping.model_dump(mode="json")})
    with pytest.raises(UserError, match="a square grid of patches without overlap"):
        convert(str(source), target)
    safetensors.numpy.save_file(arrays, source)
    with pytest.raises(UserError, match="found weights without a configuration"):
        convert(str(source), target)


@pytest.mark.parametrize("rule", ["random", "last_block"])
@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_plain_checkpoint_into_part_selection(tmp_path, rule, kind):
    path = tmp_path / f"plain.{kind}"
    arrays = write(tmp_path / "plain.safetensors", PLAIN)
    if kind == "npz":
        save_as(GOOGLE, path, arrays, PLAIN)
    config = make_config(pretrained=str(path), part_layer_init=rule, pretrained_head=True)
    values, report = build_params(config)
    assert report is not None
    initial = initial_params(PARTS, IMAGE, 42)
    for name, value in values.items():
        source = arrays.get(name.replace("part_layer.", "blocks.2.").replace("part_norm", "norm"))
        random = rule == "random" and name.startswith("part_layer.")
        assert np.array_equal(value, initial[name] if random else source), name
        assert (name in report.initialised) == random
    assert len(report.ignored) == (16 if rule == "random" else 0)
    assert ("part_layer (16 arrays)" in report.summary()) == (rule == "random")


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
@pytest.mark.parametrize(
    ("placement", "layer"), [("extra", True), ("flatten", False), ("flatten", True)]
)
def test_plain_checkpoint_into_another_placement(tmp_path, placement, layer, kind):
    """All blocks and the norm are loaded; a new block, and a head of several tokens, are not."""
    path = tmp_path / f"plain.{kind}"
    arrays = write(tmp_path / "plain.safetensors", PLAIN)
    if kind == "npz":
        save_as(GOOGLE, path, arrays, PLAIN)
    changes = {"flatten_part_layer": layer} if placement == "flatten" else {}
    config = make_config(pretrained=str(path), placement=placement, **changes)
    values, report = build_params(config)
    initial = initial_params(config.model, IMAGE, 42)
    new = {name for name in values if name.startswith("part_layer.")}
    assert len(new) == (16 if layer else 0)
    if placement == "flatten" or kind == "npz":  # of npz the head is loaded on demand alone
        new |= {"head.weight", "head.bias"}
    assert report is not None and set(report.initialised) == new
    for name, value in values.items():
        source = arrays.get(name.replace("part_norm", "norm"))
        assert np.array_equal(value, initial[name] if name in new else source), name


def test_checkpoints_of_another_placement_are_refused(tmp_path):
    path, extra = tmp_path / "own.safetensors", make_config(placement="extra")
    state = {f"param/{name}": x for name, x in initial_params(extra.model, IMAGE, 1).items()}
    checkpoint.save(path, state, {"config": extra.model_dump(mode="json")})
    build_params(make_config(pretrained=str(path), placement="extra", fusion="mul"))
    for placement in ("none", "transfg", "flatten"):
        with pytest.raises(UserError, match=r"found one with part .*; set model.placement=extra"):
            build_params(make_config(pretrained=str(path), placement=placement))


def test_bare_weights_with_a_part_layer(tmp_path):
    """Without a configuration the number of blocks tells the placements apart."""
    path = tmp_path / "own.safetensors"
    remedy = r"model.placement=transfg model.depth={}, or model.placement=extra model.depth={}"
    for placement, others, blocks in (("extra", ("transfg",), 3), ("transfg", ("extra",), 2)):
        arrays = write(path, make_config(placement=placement).model)
        values, report = build_params(make_config(pretrained=str(path), placement=placement))
        assert report is not None and not report.initialised
        assert all(np.array_equal(values[name], array) for name, array in arrays.items())
        for other in (*others, "none", "flatten"):
            with pytest.raises(UserError, match=remedy.format(blocks + 1, blocks)):
                build_params(make_config(pretrained=str(path), placement=other))


def test_own_checkpoint_that_does_not_fit(tmp_path):
    path = tmp_path / "own.safetensors"
    write(path, PLAIN)
    with pytest.raises(UserError, match=r"norm1.weight: checkpoint \(12,\), model \(24,\); is mod"):
        build_params(make_config(pretrained=str(path), width=24))
    with pytest.raises(UserError, match=r"blocks.3: missing; is model.depth 4 right"):
        build_params(make_config(pretrained=str(path), depth=4))
    with pytest.raises(UserError, match=r"blocks.2.norm1.bias: unexpected"):
        build_params(make_config(pretrained=str(path), depth=2))
    write(path, PARTS)
    with pytest.raises(UserError, match="set model.placement=transfg"):
        build_params(make_config(pretrained=str(path), placement="none"))


def test_files_of_other_kinds(tmp_path):
    for name, expected in {"absent": "no such file", ".": "found a directory"}.items():
        with pytest.raises(UserError, match=expected):
            build_params(make_config(pretrained=str(tmp_path / name)))
    path = tmp_path / "own.safetensors"
    write(path, PARTS)
    whole = path.read_bytes()
    for part in (b"", whole[:5], whole[:100], whole[:-1], b"hello" * 100):
        path.write_bytes(part)
        with pytest.raises(UserError, match="cut or damaged|an empty file"):
            build_params(make_config(pretrained=str(path)))
    safetensors.numpy.save_file({"cls_token": np.zeros(3, np.int64)}, path)
    with pytest.raises(UserError, match="cls_token: expected floating-point numbers.*I64"):
        build_params(make_config(pretrained=str(path)))


def test_a_runs_checkpoint_tells_its_heads_and_grid(tmp_path):
    """Neither shows in a shape: 1 x 4 and 2 x 2 patches have one number of tokens."""
    sections = {"data": {"crop": [4, 16]}, "model": SMALL}
    saved = build_config(sections, "test")
    path = tmp_path / "run.safetensors"
    arrays = initial_params(saved.model, saved.data.crop, 1)
    arrays["pos_embed"] = np.arange(arrays["pos_embed"].size, dtype=np.float32).reshape(1, 5, -1)
    stored = {f"param/{name}": value for name, value in arrays.items()}
    checkpoint.save(path, stored, {"config": saved.model_dump(mode="json")})

    wide = {"data": {"crop": [8, 8]}, "model": SMALL | {"pretrained": str(path)}}
    values, report = build_params(build_config(wide, "test"))
    assert report is not None and report.resized == ("pos_embed: 1 x 4 to 2 x 2",)
    first, last = arrays["pos_embed"][0, 1], arrays["pos_embed"][0, 4]
    assert np.allclose(values["pos_embed"][0, 1:], [first, last, first, last])

    wide["model"]["heads"] = 2 * SMALL["heads"]
    with pytest.raises(UserError, match="expected model.heads 6, found 3; set model.heads=3"):
        build_params(build_config(wide, "test"))


def test_weights_trained_on_other_pixels_are_noted(tmp_path):
    """The table of public weights knows a file by the place where its command puts it."""
    path = tmp_path / "vit_base_patch16_224.orig_in21k" / "model.safetensors"
    path.parent.mkdir()
    write(path, PARTS)
    _, report = build_params(make_config(pretrained=str(path)))
    assert report.notes == (
        "note: vit_base_patch16_224.orig_in21k was trained with data.normalise=half, this run has "
        "imagenet",
    )
    assert report.notes[0] in report.summary()
    data = {"crop": list(IMAGE), "normalise": "half"}
    config = build_config({"data": data, "model": SMALL | {"pretrained": str(path)}}, "test")
    assert build_params(config)[1].notes == ()
