"""Files of hybrids and of DINOv2: every array in its place, and clear errors for the wrong model.

The names and layouts are stated here a second time, from the programs' own sources.
"""

import hashlib
import math
import re

import numpy as np
import pytest
from foreign_forms import (
    DEPTH,
    FORMS,
    HEADS,
    IMAGE,
    MLP,
    WRITERS,
    D,
    canonical,
    model,
    timm,
    write_npz,
)

from transfg_core.checkpoints.export import save_as
from transfg_core.checkpoints.google import GOOGLE
from transfg_core.checkpoints.plan import plan_form
from transfg_core.checkpoints.pretrained import load_pretrained
from transfg_core.checkpoints.recognise import open_weights, recognise
from transfg_core.checkpoints.tables import TIMM
from transfg_core.checkpoints.weight_file import Header, WeightFile
from transfg_core.config.stem import STEMS
from transfg_core.config.vit import VitConfig
from transfg_core.errors import UserError
from transfg_core.models.layout import param_shapes
from transfg_core.models.vit import forward_flops, param_specs, sizes

UNITS = {"tiny_s8": (1, 2), "r_s4": ()}
WIDTH = {"tiny_s8": 32, "r_s4": 64}
MODULES = ("conv1", "norm1", "conv2", "norm2", "conv3", "norm3")


def unit_shapes(inputs, inner, first):
    """Module of a unit -> shape of its weight."""
    outer = 4 * inner
    shapes = {
        "conv1": (inner, inputs, 1, 1), "norm1": (inner,), "conv2": (inner, inner, 3, 3),
        "norm2": (inner,), "conv3": (outer, inner, 1, 1), "norm3": (outer,),
    }  # fmt: skip
    if first:
        shapes |= {"downsample.conv": (outer, inputs, 1, 1), "downsample.norm": (outer,)}
    return shapes


def stem_shapes(width, units):
    """Canonical name of a module -> shape of its weight, and the channels of the last map."""
    shapes = {"stem.root.conv": (width, 3, 7, 7), "stem.root.norm": (width,)}
    channels = width
    for stage, count in enumerate(units):
        for unit in range(count):
            inner = width * 2**stage
            for module, shape in unit_shapes(channels, inner, unit == 0).items():
                shapes[f"stem.stages.{stage}.{unit}.{module}"] = shape
            channels = 4 * inner
    return shapes, channels


def hybrid(stem, patch=1):
    """Random parameters of a hybrid under this project's names."""
    rng = np.random.default_rng(7)
    shapes, channels = stem_shapes(WIDTH[stem], UNITS[stem])
    arrays = {}
    for module, shape in shapes.items():
        arrays[f"{module}.weight"] = rng.standard_normal(shape).astype("f4")
        if len(shape) == 1:
            arrays[f"{module}.bias"] = rng.standard_normal(shape).astype("f4")
    embed = {"patch_embed.weight": rng.standard_normal((D, channels, patch, patch)).astype("f4")}
    return arrays | canonical() | embed


def as_timm(params, stem):
    """timm: `patch_embed.backbone`, where R+Ti/16 has no module `stem`."""
    found = timm(params)
    root = "patch_embed.backbone." + ("stem." if UNITS[stem] else "")
    for name, array in params.items():
        if name.startswith("stem.root."):
            found[root + name.removeprefix("stem.root.")] = array
        elif name.startswith("stem.stages."):
            stage, unit, rest = name.removeprefix("stem.stages.").split(".", 2)
            found[f"patch_embed.backbone.stages.{stage}.blocks.{unit}.{rest}"] = array
    return found


def as_google(params, flat=False):
    """Google: numbers from 1, kernels with inputs and outputs last, norms of four axes or one."""
    found = FORMS["Google"]({k: v for k, v in params.items() if not k.startswith("stem.")})
    leaves = {"weight": "scale", "bias": "bias"}
    names = {"downsample.conv": "conv_proj", "downsample.norm": "gn_proj"}
    names |= {module: module.replace("norm", "gn") for module in MODULES}
    for name, array in params.items():
        if not name.startswith("stem."):
            continue
        module, _, leaf = name.removeprefix("stem.").rpartition(".")
        if module.startswith("root."):
            key = {"root.conv": "conv_root", "root.norm": "gn_root"}[module]
        else:
            stage, unit, rest = module.removeprefix("stages.").split(".", 2)
            key = f"block{int(stage) + 1}/unit{int(unit) + 1}/{names[rest]}"
        if array.ndim == 4:
            found[f"{key}/kernel"] = np.moveaxis(array, (0, 1), (3, 2))
        else:
            found[f"{key}/{leaves[leaf]}"] = array if flat else array.reshape(1, 1, 1, -1)
    return found


def hybrid_model(stem, **changes):
    return model(**({"stem": stem, "patch": {"tiny_s8": 1, "r_s4": 4}[stem]} | changes))


SIZE = {"tiny_s8": (24, 17), "r_s4": (48, 48)}  # 3 x 3 patches


@pytest.mark.parametrize("stem", UNITS)
@pytest.mark.parametrize("form", ["timm", "google", "google, flat norms", "google, optimiser"])
def test_every_form_of_a_hybrid(tmp_path, form, stem):
    params = hybrid(stem, {"tiny_s8": 1, "r_s4": 4}[stem])
    arrays = as_timm(params, stem) if form == "timm" else as_google(params, "flat" in form)
    if form.endswith("optimiser"):
        arrays = {f"opt/target/{key}": array for key, array in arrays.items()}
    path = write_npz(tmp_path / "x", arrays)
    loaded, report = load_pretrained(str(path), hybrid_model(stem), SIZE[stem])
    assert loaded.keys() == params.keys() == set(param_specs(hybrid_model(stem)))
    for name, array in params.items():
        assert loaded[name].tobytes() == array.tobytes(), name
    assert not (report.ignored or report.missing or report.initialised or report.resized)


def test_a_hybrid_under_its_own_names(tmp_path):
    params = hybrid("tiny_s8")
    path = str(write_npz(tmp_path / "x", params))
    loaded, _ = load_pretrained(path, hybrid_model("tiny_s8"), SIZE["tiny_s8"])
    assert all(np.array_equal(loaded[name], array) for name, array in params.items())
    with pytest.raises(UserError, match="expected model.stem none, found a hybrid: tiny_s8; set"):
        load_pretrained(path, model(), IMAGE)
    plain = str(write_npz(tmp_path / "plain", canonical()))
    with pytest.raises(UserError, match="expected model.stem tiny_s8, found a plain Vision"):
        load_pretrained(plain, hybrid_model("tiny_s8"), SIZE["tiny_s8"])


@pytest.mark.parametrize("form", ["timm", "google"])
def test_files_of_another_stem_are_refused_in_one_line(tmp_path, form):
    params = hybrid("tiny_s8")
    arrays = as_timm(params, "tiny_s8") if form == "timm" else as_google(params)
    path = str(write_npz(tmp_path / "x", arrays))
    for expected, chosen in (("none", model()), ("r_s4", hybrid_model("r_s4"))):
        with pytest.raises(UserError) as caught:
            load_pretrained(path, chosen, (48, 48))
        assert f"expected model.stem {expected}, found a hybrid: tiny_s8" in str(caught.value)
        assert "\n" not in str(caught.value)
    write = FORMS["timm" if form == "timm" else "Google"]
    plain = str(write_npz(tmp_path / "plain", write(canonical())))
    with pytest.raises(UserError, match="found a plain Vision Transformer: none; set model.stem="):
        load_pretrained(plain, hybrid_model("tiny_s8"), SIZE["tiny_s8"])


def test_a_hybrid_with_units_missing(tmp_path):
    arrays = as_google(hybrid("tiny_s8"))
    fewer = {key: array for key, array in arrays.items() if "block2/unit2" not in key}
    path = str(write_npz(tmp_path / "x", fewer))
    with pytest.raises(UserError, match=r"tiny_s8 \(1, 2\).* found \(1, 1\) units; is the file"):
        load_pretrained(path, hybrid_model("tiny_s8"), SIZE["tiny_s8"])
    del arrays["block2/unit2/gn2/scale"]
    path = str(write_npz(tmp_path / "x", arrays))
    with pytest.raises(UserError, match="block2/unit2/gn2/scale: missing; is the file complete"):
        load_pretrained(path, hybrid_model("tiny_s8"), SIZE["tiny_s8"])
    arrays["block2/unit2/gn2/scale"] = np.ones((1, 1, 1, 65), "f4")
    path = str(write_npz(tmp_path / "x", arrays))
    with pytest.raises(
        UserError, match=r"expected \(1, 1, 1, 64\), found \(1, 1, 1, 65\); is model.s"
    ):
        load_pretrained(path, hybrid_model("tiny_s8"), SIZE["tiny_s8"])


@pytest.mark.parametrize("stem", UNITS)
def test_hybrids_under_the_names_of_other_programs(tmp_path, stem):
    params, chosen = hybrid(stem, {"tiny_s8": 1, "r_s4": 4}[stem]), hybrid_model(stem)
    save_as(GOOGLE, tmp_path / "x.npz", params, chosen)
    save_as(TIMM, tmp_path / "x.safetensors", params, chosen)
    for target, expected in (("npz", as_google(params)), ("safetensors", as_timm(params, stem))):
        with open_weights(str(tmp_path / f"x.{target}")) as file:
            assert file.headers().keys() == expected.keys()
            for key, array in expected.items():
                assert np.array_equal(file.read(key), array), key


# model.size, model.stem, model.patch, tokens, and of timm's model with 1,000 classes the SHA-256 of
# the lines `name shape`, sorted: its first digits. timm 1.0.31:
#   lines = sorted(f"{name} {tuple(value.shape)}" for name, value in model.state_dict().items())
#   hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
TIMM_MODELS = {
    "vit_tiny_r_s16_p8_224": ("Ti", "r_s4", 8, 50, "8fcd993543bc7bfc"),
    "vit_small_r26_s32_224": ("S", "r26_s32", 1, 50, "9dfe3199719e8d1a"),
    "vit_base_r50_s16_224": ("B", "r50_s16", 1, 197, "cf637373e6b303d0"),
    "vit_large_r50_s32_224": ("L", "r50_s32", 1, 50, "09f67bc65913b9be"),
    "vit_tiny_patch16_224": ("Ti", "none", 16, 197, "e1821155d0eba217"),
    "vit_small_patch32_224": ("S", "none", 32, 50, "ff031ede2fd2877c"),
    "vit_base_patch8_224": ("B", "none", 8, 785, "a29f16448069118c"),
    "vit_large_patch32_224": ("L", "none", 32, 50, "0da9cb2fc13ed603"),
    "vit_huge_patch14_224": ("H", "none", 14, 257, "59a39c17296da542"),
    "vit_small_patch14_dinov2": ("S", "none", 14, 1370, "8b7de9ad788ecf8e"),
    "vit_large_patch14_dinov2": ("L", "none", 14, 1370, "ee235f738ab7aac7"),
}


@pytest.mark.parametrize("name", TIMM_MODELS)
def test_names_and_shapes_are_timms_and_all_of_them_load(name):
    size, stem, patch, tokens, digest = TIMM_MODELS[name]
    dinov2 = name.endswith("dinov2")
    chosen = VitConfig(
        size=size, stem=stem, patch=patch, placement="none", classes=1000, pretrained_head=True
    )
    letters = sizes(chosen) | {"T": tokens}
    shapes = {
        step.key: step.shape(letters)
        for step in TIMM.expand(chosen, chosen.depth)
        if step.names and (dinov2 or not step.row.scales)
        if not (dinov2 and step.names[0].startswith("head."))
    }
    lines = sorted(f"{key} {shape}" for key, shape in shapes.items())
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] == digest
    headers = {key: Header(shape, "float32") for key, shape in shapes.items()}
    assert recognise(WeightFile(name), headers) is TIMM
    plan = plan_form(TIMM, headers, chosen, name)
    filled = [param for step in plan.steps if not step.row.scales for param in step.names]
    assert sorted([*filled, *plan.missing]) == sorted(param_specs(chosen))
    assert set(plan.missing) == ({"head.weight", "head.bias"} if dinov2 else set())
    assert {step.key for step in plan.steps} == shapes.keys() and not plan.ignored


@pytest.mark.parametrize("stem", [stem for stem in STEMS if stem != "tiny_s8"])
def test_names_and_shapes_of_googles_stems(stem):
    """Those of R50+B/16 are compared with the real file in test_google.py."""
    shapes, _ = stem_shapes(64, STEMS[stem].units)
    arrays = {f"{module}.weight": np.broadcast_to(0.0, shape) for module, shape in shapes.items()}
    norms = {f"{module}.bias": shape for module, shape in shapes.items() if len(shape) == 1}
    arrays |= {name: np.broadcast_to(0.0, shape) for name, shape in norms.items()}
    expected = {k: v.shape for k, v in as_google(canonical() | arrays).items()}
    expected = {k: v for k, v in expected.items() if re.match("conv_root|gn_root|block", k)}
    chosen = VitConfig(stem=stem)
    steps = [s for s in GOOGLE.expand(chosen, 4) if s.row.name.startswith("stem.")]
    assert {step.key: step.shape(sizes(chosen)) for step in steps} == expected
    assert {step.names[0] for step in steps} == arrays.keys()


# parameters with 1,000 classes, and billions of multiplications and additions at 224 x 224. Those
# of timm 1.0.31's models, and their GMACs in its benchmark-infer-amp-nhwc-pt240-cu124-rtx3090.csv.
PUBLISHED = {
    "R+Ti/16": ("Ti", "r_s4", 6_337_704, 0.44),
    "R26+S/32": ("S", "r26_s32", 36_431_912, 3.56),
    "R50+L/32": ("L", "r50_s32", 328_994_856, 19.58),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    """The published counts include norms and activations, which count nothing here."""
    size, stem, params, gmacs = PUBLISHED[name]
    chosen = VitConfig(size=size, stem=stem, placement="none", classes=1000)
    shapes = param_shapes(chosen, (224, 224))
    assert sum(math.prod(shape) for shape in shapes.values()) == params
    assert 0.97 * gmacs < forward_flops(chosen, (224, 224)) / 2e9 < gmacs


def dinov2(params):
    """DINOv2's program: timm's names, LayerScale, and a mask token of two axes."""
    rng = np.random.default_rng(9)
    names = [f"blocks.{i}.ls{n}.gamma" for i in range(DEPTH) for n in (1, 2)]
    found = timm(params) | {name: rng.standard_normal(D).astype("f4") for name in names}
    return found | {"mask_token": np.zeros((1, D), "f4")}


@pytest.mark.parametrize("container", WRITERS)
def test_layer_scale_is_folded(tmp_path, container):
    params = canonical()
    arrays = dinov2(params)
    path = WRITERS[container](tmp_path / "x", arrays)
    loaded, report = load_pretrained(str(path), model(), IMAGE)
    assert loaded.keys() == params.keys()
    changed = set()
    for i in range(DEPTH):
        for n, module in ((1, f"blocks.{i}.attn.out"), (2, f"blocks.{i}.mlp.fc2")):
            gamma = arrays[f"blocks.{i}.ls{n}.gamma"]
            weight, bias = params[f"{module}.weight"], params[f"{module}.bias"]
            x = np.linspace(-1, 1, weight.shape[1])
            expected = gamma * (weight @ x + bias)
            assert np.allclose(
                loaded[f"{module}.weight"] @ x + loaded[f"{module}.bias"], expected, atol=1e-5
            )
            changed |= {f"{module}.weight", f"{module}.bias"}
    for name in params.keys() - changed:
        assert np.array_equal(loaded[name], params[name]), name
    assert report.notes == ("LayerScale: multiplied into 4 layers before it",)
    assert report.ignored == ("mask_token: not part of the network",)
    parts = model(placement="transfg", pretrained_head=False)  # the last block is not read
    _, report = load_pretrained(str(tmp_path / "x"), parts, IMAGE)
    assert report.notes == ("LayerScale: multiplied into 2 layers before it",)


def test_conversion_of_dinov2(tmp_path):
    """To Google's names, which have no LayerScale: the same parameters."""
    path = write_npz(tmp_path / "x", dinov2(canonical()))
    arrays = load_pretrained(str(path), model(), IMAGE)[0]
    sized = {"width": D, "heads": HEADS, "depth": DEPTH, "mlp": MLP}
    assert sized.items() <= model().model_dump().items()
    save_as(GOOGLE, tmp_path / "y.npz", arrays, model())
    again, report = load_pretrained(str(tmp_path / "y.npz"), model(), IMAGE)
    assert all(np.array_equal(again[name], array) for name, array in arrays.items())
    assert not report.notes


def test_wrong_files_of_dinov2(tmp_path):
    arrays = dinov2(canonical())
    arrays.pop("blocks.1.ls2.gamma")
    with pytest.raises(UserError, match="blocks.1.ls2.gamma: missing; is the file complete"):
        load_pretrained(str(write_npz(tmp_path / "x", arrays)), model(), IMAGE)
    arrays = dinov2(canonical()) | {"register_tokens": np.zeros((1, 4, D), "f4")}
    with pytest.raises(UserError, match="the model has register tokens: register_tokens; this"):
        load_pretrained(str(write_npz(tmp_path / "x", arrays)), model(), IMAGE)
    arrays = dinov2(canonical()) | {"blocks.1.ls2.gamma": np.zeros((D, 1), "f4")}
    with pytest.raises(UserError, match=r"blocks.1.ls2.gamma: expected \(12,\), found \(12, 1\)"):
        load_pretrained(str(write_npz(tmp_path / "x", arrays)), model(), IMAGE)


def test_a_head_of_zeros_is_named(tmp_path):
    arrays = FORMS["Google"](canonical() | {"head.weight": np.zeros((5, D), "f4")})
    _, report = load_pretrained(str(write_npz(tmp_path / "x", arrays)), model(), IMAGE)
    assert report.notes == ("head: all weights are zero: the file's head is not trained",)
    assert "the file's head is not trained" in report.summary()
