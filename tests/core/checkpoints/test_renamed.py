"""The same ResNet or Swin in every program's names gives the same parameters; or a clear error."""

import numpy as np
import pytest
from foreign_forms import bfloat16_bits, write_npz, write_safetensors
from foreign_namings import (
    CLASSES,
    DEPTHS,
    HEADS,
    RESNETS,
    SWINS,
    WIDTH,
    WINDOW,
    canonical_resnet,
    canonical_swin,
)

from transfg_core.checkpoints import file as checkpoint
from transfg_core.checkpoints.naming import NAMINGS
from transfg_core.checkpoints.pretrained import build_params, load_pretrained
from transfg_core.checkpoints.renamed import write_naming
from transfg_core.config.loading import build_config
from transfg_core.errors import UserError
from transfg_core.models.layout import param_shapes
from transfg_core.params.bias_tables import resize_bias_table

IMAGE = (24, 24)
SWIN = {
    "name": "swin", "width": WIDTH, "depths": DEPTHS, "heads": HEADS, "window": WINDOW,
}  # fmt: skip
RESNET = {"name": "resnet", "blocks": DEPTHS, "width": 4}
SWINFC = SWIN | {"name": "swinfc", "memories": 4, "align_width": 6, "fused_width": 8}
MODELS = {
    "swin": (SWIN, canonical_swin()),
    "swinfc": (SWINFC, canonical_swin()),
    "basic": (RESNET, canonical_resnet("basic", 4)),
    "bottleneck": (RESNET | {"bottleneck": True}, canonical_resnet("bottleneck", 4)),
}
WRITERS = {key: ("swin", write) for key, write in SWINS.items()}
WRITERS |= {
    f"{key} {kind}": (kind, write)
    for key, write in RESNETS.items()
    for kind in ("basic", "bottleneck")
}
kinds = pytest.mark.parametrize("kind", WRITERS)


def model(name, **changes):
    tree = MODELS[name][0] | {"classes": CLASSES, "pretrained_head": True} | changes
    return build_config({"model": tree, "data": {"crop": IMAGE}}, name).model


def stored(kind):
    name, write = WRITERS[kind]
    return name, MODELS[name][1], write(MODELS[name][1])


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == np.float32 and found[name].flags.c_contiguous
        assert np.array_equal(found[name], array), name


@pytest.mark.parametrize("container", [write_npz, write_safetensors])
@kinds
def test_every_program_gives_the_same_parameters(tmp_path, kind, container):
    name, params, arrays = stored(kind)
    path = container(tmp_path / "weights.of_no_known_suffix", arrays)
    found, report = load_pretrained(str(path), model(name), IMAGE)
    assert_equal(found, params)
    assert list(found) == list(param_shapes(model(name), IMAGE))
    assert not report.resized and not report.missing and not report.initialised
    assert all("computed from the window" in x or "counts batches" in x for x in report.ignored)
    assert report.origin and report.origin.form in report.summary()


@kinds
def test_bfloat16_is_exact(tmp_path, kind):
    name, params, _ = stored(kind)
    short = {n: (bfloat16_bits(a).astype("<u4") << 16).view("f4") for n, a in params.items()}
    path = write_safetensors(tmp_path / "bf16", WRITERS[kind][1](short), "BF16")
    assert_equal(load_pretrained(str(path), model(name), IMAGE)[0], short)


@kinds
def test_the_head(tmp_path, kind):
    """Not wanted, of other classes, or absent: it keeps its initial values."""
    name, _, arrays = stored(kind)
    path = str(write_safetensors(tmp_path / "x", arrays))
    for changes, reason in (
        ({"pretrained_head": False}, "model.pretrained_head is false"),
        ({"classes": 9}, f"{CLASSES} classes, model.classes 9"),
    ):
        found, report = load_pretrained(path, model(name, **changes), IMAGE)
        assert report.initialised == ("head.weight", "head.bias") and reason in report.summary()
        assert "head.weight" not in found
    words = ("head.weight", "head.bias", "fc.weight", "fc.bias")
    body = {n: a for n, a in arrays.items() if not n.endswith(words) or ".mlp" in n}
    body = {n: a for n, a in body.items() if "classifier" not in n}
    assert len(body) == len(arrays) - 2
    path = str(write_safetensors(tmp_path / "body", body))
    found, report = load_pretrained(path, model(name), IMAGE)
    assert report.missing == ("head.weight", "head.bias") and "head.bias" not in found


@kinds
def test_a_head_that_is_not_trained(tmp_path, kind):
    """The report says so, for other programs' names and for this project's."""
    name, params, _ = stored(kind)
    params = params | {"head.weight": np.zeros_like(params["head.weight"])}
    for arrays in (WRITERS[kind][1](params), params):
        path = write_safetensors(tmp_path / "x", arrays)
        _, report = load_pretrained(str(path), model(name), IMAGE)
        assert report.notes == ("head: all weights are zero: the file's head is not trained",)


@kinds
def test_missing_and_further_arrays(tmp_path, kind):
    name, params, arrays = stored(kind)
    lost = {n for n in arrays if n.endswith(("norm1.bias", "layernorm_before.bias", "bn1.bias"))}
    lost |= {n for n in arrays if n.endswith("layer.0.normalization.bias")}
    assert len(lost) >= 2
    less = {n: a for n, a in arrays.items() if n not in lost} | {"surprise": np.ones(3, "f4")}
    path = write_safetensors(tmp_path / "x", less)
    with pytest.raises(UserError) as caught:
        load_pretrained(str(path), model(name), IMAGE)
    text = str(caught.value)
    assert "missing; is the file complete?" in text and " more" in text
    assert "surprise: unexpected, found (3,)" in text and len(text.splitlines()) <= 6


@kinds
def test_values_and_types(tmp_path, kind):
    name, _, arrays = stored(kind)
    key = next(n for n in arrays if arrays[n].ndim == 2)
    bad = arrays | {key: np.where(np.arange(arrays[key].size) == 3, np.nan, 1.0).astype("f4")}
    bad[key] = bad[key].reshape(arrays[key].shape)
    path = write_safetensors(tmp_path / "x", bad)
    with pytest.raises(UserError, match="holds NaN or infinity"):
        load_pretrained(str(path), model(name), IMAGE)
    whole = arrays | {key: np.ones(arrays[key].shape, np.int64)}
    path = write_npz(tmp_path / "y", whole)
    with pytest.raises(UserError, match="expected floating-point numbers, found int64"):
        load_pretrained(str(path), model(name), IMAGE)


def test_a_file_of_another_architecture(tmp_path):
    path = str(write_safetensors(tmp_path / "x", SWINS["timm swin"](MODELS["swin"][1])))
    vit = build_config({"model": {"classes": 3}}, "vit").model
    with pytest.raises(UserError, match=r"model.name vit, found the names of timm \(Swin\); set"):
        load_pretrained(path, vit, IMAGE)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"depths": (1, 2, 2, 1)}, ["layers.1.blocks.2", "unexpected"]),
        ({"depths": (1, 3, 2, 2)}, ["layers.3.blocks.1", "missing"]),
        ({"width": 16}, ["patch_embed.proj.weight: expected (16, 3, 4, 4), found (8, 3, 4, 4)"]),
        (
            {"heads": (1, 2, 4, 8)},
            ["relative_position_bias_table: expected (25, 8)", "model.heads"],
        ),
        ({"mlp_ratio": 2}, ["mlp.fc1.weight: expected (16, 8), found (32, 8)", "model.mlp_ratio"]),
    ],
)
def test_a_swin_of_other_sizes(tmp_path, change, expected):
    path = write_safetensors(tmp_path / "x", SWINS["timm swin"](MODELS["swin"][1]))
    with pytest.raises(UserError) as caught:
        load_pretrained(str(path), model("swin", **change), IMAGE)
    holds = "the file holds model.classes=5 model.width=8 model.depths=[1,3,2,1] model.heads="
    for part in (*expected, holds):
        assert part in str(caught.value), caught.value


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"depth": 50, "blocks": None, "bottleneck": None}, ["layer1.0.conv3.weight: missing"]),
        ({"blocks": (1, 3, 2)}, ["layer4.0.bn1.bias: unexpected"]),
        ({"width": 8}, ["conv1.weight: expected (8, 3, 7, 7), found (4, 3, 7, 7)", "model.width"]),
    ],
)
def test_a_resnet_of_other_sizes(tmp_path, change, expected):
    path = write_safetensors(tmp_path / "x", RESNETS["torchvision resnet"](MODELS["basic"][1]))
    with pytest.raises(UserError) as caught:
        load_pretrained(str(path), model("basic", **change), IMAGE)
    holds = "the file holds model.classes=5 model.width=4 model.blocks=[1,3,2,1] model.bottleneck"
    for part in (*expected, holds):
        assert part in str(caught.value), caught.value


@pytest.mark.parametrize("kind", SWINS)
def test_tables_of_another_window(tmp_path, kind):
    """Resized, with a line in the report; everything else stays."""
    params = MODELS["swin"][1]
    path = write_safetensors(tmp_path / "x", SWINS[kind](params))
    found, report = load_pretrained(str(path), model("swin", window=5), IMAGE)
    assert len(report.resized) == sum(DEPTHS)
    assert "stages.1.blocks.2.attn.bias_table: window 3 to 5" in report.resized
    for name, array in params.items():
        table = name.endswith("bias_table")
        assert np.array_equal(
            found[name], resize_bias_table(array, 81).astype("f4") if table else array
        )


@pytest.mark.parametrize("kind", SWINS)
def test_swinfc_takes_a_swin_and_keeps_its_own_modules(tmp_path, kind):
    params = MODELS["swin"][1]
    wanted = model("swinfc")
    path = write_safetensors(tmp_path / "x", SWINS[kind](params))
    found, report = load_pretrained(str(path), wanted, IMAGE)
    assert_equal(found, params)
    assert not report.missing
    modules = {name.partition(".")[0] for name in report.initialised}
    assert modules == {"eaca", "align", "stage_heads"}
    assert found.keys() | set(report.initialised) == param_shapes(wanted, IMAGE).keys()
    found, report = load_pretrained(str(path), model("swinfc", classes=9), IMAGE)
    assert {"head.weight", "head.bias"} <= set(report.initialised)


def test_swinfc_takes_a_swin_of_this_project(tmp_path):
    """Bare weights, and the checkpoint of a run."""
    params = MODELS["swin"][1]
    bare = write_safetensors(tmp_path / "bare", params)
    run = tmp_path / "run"
    saved = build_config({"model": SWIN | {"classes": CLASSES}, "data": {"crop": IMAGE}}, "run")
    stored = {f"param/{name}": array for name, array in params.items()}
    checkpoint.save(run, stored, {"config": saved.model_dump(mode="json")})
    for path in (bare, run):
        found, report = load_pretrained(str(path), model("swinfc"), IMAGE)
        assert_equal(found, params)
        modules = {name.partition(".")[0] for name in report.initialised}
        assert modules == {"eaca", "align", "stage_heads"}
    part = write_safetensors(tmp_path / "part", params | {"align.0.conv1.weight": np.ones(3, "f4")})
    with pytest.raises(UserError, match="missing, model"):
        load_pretrained(str(part), model("swinfc"), IMAGE)
    with pytest.raises(UserError, match="expected model.name resnet, found swin"):
        load_pretrained(str(run), model("basic"), IMAGE)


def test_a_run_of_this_project_with_another_window(tmp_path):
    params = MODELS["swin"][1]
    path = write_safetensors(tmp_path / "own", params)
    found, report = load_pretrained(str(path), model("swin", window=2), IMAGE)
    assert "stages.0.blocks.0.attn.bias_table: window 3 to 2" in report.resized
    table = params["stages.1.blocks.2.attn.bias_table"]
    expected = resize_bias_table(table, 9).astype("f4")
    assert np.array_equal(found["stages.1.blocks.2.attn.bias_table"], expected)
    assert np.array_equal(found["norm.bias"], params["norm.bias"])
    with pytest.raises(UserError, match=r"bias_table: checkpoint \(25, 4\), model \(25, 8\)"):
        load_pretrained(str(path), model("swin", heads=(1, 2, 4, 8)), IMAGE)


def test_lookalikes_are_refused_by_what_they_are(tmp_path):
    swin = SWINS["microsoft swin"](MODELS["swin"][1])
    path = write_safetensors(tmp_path / "x", swin | {"absolute_pos_embed": np.ones((1, 2), "f4")})
    with pytest.raises(UserError, match="absolute positions") as caught:
        load_pretrained(str(path), model("swin"), IMAGE)
    assert "`transfg weights` lists files that fit" in str(caught.value)
    resnet = RESNETS["torchvision resnet"](MODELS["basic"][1])
    for key, word in (
        ("layer1.0.se.fc1.weight", "squeeze and excitation"),
        ("layer2.0.downsample.2.weight", "an average pool before a projection"),
        ("attnpool.k_proj.weight", "attention pooling"),
    ):
        path = write_safetensors(tmp_path / "y", resnet | {key: np.ones((1, 2), "f4")})
        with pytest.raises(UserError, match=word):
            load_pretrained(str(path), model("basic"), IMAGE)


@kinds
def test_written_back(kind):
    """What `transfg bench` and `transfg convert` write is what was read."""
    _, params, arrays = stored(kind)
    naming = next(naming for naming in NAMINGS if naming.bare_names(arrays))
    written = write_naming(naming, params)
    bare = naming.bare_names(arrays)
    assert {bare[name] for name in written} == {
        name for name in arrays if arrays[name].dtype.kind == "f" and "attn_mask" not in name
    }
    assert all(np.array_equal(value, arrays[bare[name]]) for name, value in written.items())


@kinds
def test_a_run_starts_from_it(tmp_path, kind):
    name, params, arrays = stored(kind)
    path = write_safetensors(tmp_path / "x", arrays)
    tree = MODELS[name][0] | {"classes": CLASSES, "pretrained": str(path)}
    config = build_config({"model": tree, "data": {"crop": IMAGE}}, name)
    values, report = build_params(config)
    assert values.keys() == params.keys() and report is not None
    some = "norm.weight" if name == "swin" else "layer4.0.bn1.running_var"
    assert np.array_equal(values[some], params[some])
    assert not np.array_equal(values["head.weight"], params["head.weight"])
