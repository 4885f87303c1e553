"""The same weights in every form give the same parameters; look-alikes are refused by name."""

import json
import os
import re
import zipfile

import numpy as np
import pytest
from foreign_forms import (
    CLASSES,
    DEPTH,
    FORMS,
    IMAGE,
    SIDE,
    WRITERS,
    D,
    bfloat16_bits,
    big_vision,
    canonical,
    google,
    hugging_face,
    model,
    timm,
    torchvision,
    vit_pytorch,
    write_npz,
    write_safetensors,
)

from transfg_core.checkpoints.plan import plan_form
from transfg_core.checkpoints.pretrained import load_pretrained
from transfg_core.checkpoints.safetensors_file import SafetensorsFile
from transfg_core.checkpoints.tables import TIMM
from transfg_core.checkpoints.weight_file import Header
from transfg_core.config.vit import VitConfig
from transfg_core.errors import UserError
from transfg_core.params.positions import resize_pos_embed

PARAMS = canonical()


def expected_of(kind, params=PARAMS):
    """The parameters; in big_vision the class token has no position."""
    expected = dict(params)
    if "big_vision" in kind:
        expected["pos_embed"] = params["pos_embed"].copy()
        expected["pos_embed"][:, 0] = 0
    return expected


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == np.float32 and found[name].flags.c_contiguous
        assert found[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("container", WRITERS)
@pytest.mark.parametrize("kind", FORMS)
def test_every_form_gives_the_same_parameters(tmp_path, kind, container):
    path = WRITERS[container](tmp_path / "weights.of_no_known_suffix", FORMS[kind](PARAMS))
    arrays, report = load_pretrained(str(path), model(), IMAGE)
    assert_equal(arrays, expected_of(kind))
    assert set(report.loaded) == set(PARAMS)
    assert not report.resized and not report.missing and not report.initialised
    reasons = {item.rpartition(": ")[2] for item in report.ignored}
    assert reasons <= {"not part of the network", "not part of the image model"}
    origin = report.origin
    assert origin.file == str(path) and origin.bytes == path.stat().st_size
    assert f"names of {origin.form}" in report.summary()


@pytest.mark.parametrize("kind", FORMS)
def test_bfloat16_and_float16_are_exact(tmp_path, kind):
    short = {n: bfloat16_bits(a).astype("<u4") << 16 for n, a in PARAMS.items()}
    short = {name: bits.view("f4").reshape(PARAMS[name].shape) for name, bits in short.items()}
    path = write_safetensors(tmp_path / "bf16", FORMS[kind](short), "BF16")
    assert_equal(load_pretrained(str(path), model(), IMAGE)[0], expected_of(kind, short))
    stored = FORMS[kind](short)
    raw = {n: bfloat16_bits(a).reshape(a.shape).view("V2") for n, a in stored.items()}
    path = write_npz(tmp_path / "bf16.npz", raw)
    assert_equal(load_pretrained(str(path), model(), IMAGE)[0], expected_of(kind, short))
    half = {name: array.astype("f2").astype("f4") for name, array in PARAMS.items()}
    path = write_safetensors(tmp_path / "f16", FORMS[kind](half), "F16")
    assert_equal(load_pretrained(str(path), model(), IMAGE)[0], expected_of(kind, half))


@pytest.mark.parametrize("kind", [kind for kind in FORMS if kind != "this project"])
def test_into_part_selection_at_another_size(tmp_path, kind):
    """Encoder norm, last block, head and positions, as from Google's file."""
    parts = model(placement="transfg", part_layer_init="last_block", classes=CLASSES + 1)
    path = write_safetensors(tmp_path / "x.safetensors", FORMS[kind](PARAMS))
    arrays, report = load_pretrained(str(path), parts, (IMAGE[0] + 8, IMAGE[1]))
    assert report.resized == (f"pos_embed: {SIDE} x {SIDE} to {SIDE + 2} x {SIDE}",)
    assert report.initialised == ("head.weight", "head.bias")
    assert f"{CLASSES} classes, model.classes {CLASSES + 1}" in report.summary()
    expected = expected_of(kind)
    resized = resize_pos_embed(expected["pos_embed"], (SIDE + 2, SIDE))
    assert np.array_equal(arrays["pos_embed"], resized)
    last = f"blocks.{DEPTH - 1}."
    for name, array in expected.items():
        name = name.replace(last, "part_layer.")
        name = name.replace("norm.", "part_norm.") if name.startswith("norm.") else name
        if not name.startswith(("head.", "pos_embed")):
            assert np.array_equal(arrays[name], array), name
    random = parts.model_copy(update={"part_layer_init": "random"})
    arrays, report = load_pretrained(str(path), random, IMAGE)
    assert not any(name.startswith("part_layer.") for name in arrays)
    assert "part_layer, head (18 arrays)" in report.summary()


@pytest.mark.parametrize("kind", FORMS)
def test_a_file_without_a_head(tmp_path, kind):
    def is_head(name):
        return re.search(r"(^|/)(head|heads\.head|classifier)[./]", name)

    arrays = {n: a for n, a in FORMS[kind](PARAMS).items() if not is_head(n)}
    path = write_safetensors(tmp_path / "x", arrays)
    loaded, report = load_pretrained(str(path), model(), IMAGE)
    assert report.missing == report.initialised == ("head.weight", "head.bias")
    assert "head.weight" not in loaded and len(loaded) == len(PARAMS) - 2


def test_no_array_is_read_before_the_plan_is_made(tmp_path, monkeypatch):
    path = write_safetensors(tmp_path / "x", timm(PARAMS))
    monkeypatch.setattr(SafetensorsFile, "read", lambda *_: pytest.fail("an array was read"))
    with pytest.raises(UserError, match="is model.depth right?"):
        load_pretrained(str(path), model(depth=DEPTH + 1), IMAGE)


def block_names(pattern):
    return {pattern.format(i): np.ones(D, "f4") for i in range(DEPTH)}


LOOKALIKES = {
    "LayerScale ": hugging_face(PARAMS) | block_names("encoder.layer.{}.layer_scale1.lambda1"),
    "LayerScale  ": timm(PARAMS) | block_names("blocks.{}.gamma_1"),
    "register tokens": timm(PARAMS) | {"reg_token": np.ones((1, 4, D), "f4")},
    "register tokens ": hugging_face(PARAMS)
    | {"embeddings.register_tokens": np.ones((1, 4, D), "f4")},
    "mean pooling": timm(PARAMS) | {"fc_norm.weight": np.ones(D, "f4")},
    "norm before the blocks": timm(PARAMS) | {"norm_pre.weight": np.ones(D, "f4")},
    "distillation token": timm(PARAMS) | {"dist_token": np.ones((1, 1, D), "f4")},
    "distillation token ": hugging_face(PARAMS)
    | {"embeddings.distillation_token": np.ones((1, 1, D), "f4")},
    "MAP head": big_vision(PARAMS) | {"params/MAPHead_0/probe": np.ones((1, 1, D), "f4")},
    "MAP head ": timm(PARAMS) | {"attn_pool.latent": np.ones((1, 1, D), "f4")},
    "relative positions": timm(PARAMS) | block_names("blocks.{}.attn.relative_position_bias_table"),
    "rotary positions": timm(PARAMS) | {"rope.periods": np.ones(3, "f4")},
    "gated MLP": timm(PARAMS) | block_names("blocks.{}.mlp.w12.bias"),
    "norms of queries and keys": timm(PARAMS) | block_names("blocks.{}.attn.q_norm.weight"),
    "another ResNet": timm(PARAMS) | {"patch_embed.backbone.conv1.0.weight": np.ones(3, "f4")},
    "another ResNet ": hugging_face(PARAMS)
    | {"embeddings.patch_embeddings.backbone.bit.embedder.norm.weight": np.ones(3, "f4")},
}


@pytest.mark.parametrize("kind", LOOKALIKES)
def test_lookalikes_are_refused_by_what_they_are(tmp_path, kind):
    path = write_safetensors(tmp_path / "x.safetensors", LOOKALIKES[kind])
    with pytest.raises(UserError, match="the model has ") as caught:
        load_pretrained(str(path), model(), IMAGE)
    text = str(caught.value)
    assert kind.strip() in text and "`transfg weights`" in text and "\n" not in text


@pytest.mark.parametrize("kind", [kind for kind in FORMS if kind != "this project"])
def test_a_model_without_a_class_token(tmp_path, kind):
    tokens = ("cls_token", "class_token", "cls")
    arrays = {
        n: a for n, a in FORMS[kind](PARAMS).items() if re.split(r"[./]", n)[-1] not in tokens
    }
    path = write_safetensors(tmp_path / "x.safetensors", arrays)
    with pytest.raises(UserError, match="the model has no class token; this program has"):
        load_pretrained(str(path), model(), IMAGE)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"depth": 4}, ("blocks: expected 4, found 2; is model.depth right?",)),
        ({"width": 24}, ("cls_token: expected (1, 1, 24), found (1, 1, 12) and", "model.width")),
        (
            {"mlp": 21},
            ("mlp.fc1.weight: expected (21, 12), found (20, 12) and 5 more", "model.mlp"),
        ),
        ({"patch": 2}, ("patch_embed.proj.weight: expected (12, 3, 2, 2)", "model.patch")),
    ],
)
def test_a_model_of_other_sizes(tmp_path, change, parts):
    path = write_safetensors(tmp_path / "x.safetensors", timm(PARAMS))
    with pytest.raises(UserError) as caught:
        load_pretrained(str(path), model(**change), (12, 12))
    text = str(caught.value)
    assert len(text.splitlines()) <= 4
    for part in (*parts, "the file holds depth 2, width 12, mlp 20, patch 4"):
        assert part in text, text


def test_stacked_arrays_of_another_length(tmp_path):
    arrays = timm(PARAMS)
    arrays["blocks.1.attn.qkv.weight"] = arrays["blocks.1.attn.qkv.weight"][: 2 * D]
    path = write_safetensors(tmp_path / "x.safetensors", arrays)
    with pytest.raises(UserError, match=r"qkv.weight: expected \(36, 12\), found \(24, 12\)"):
        load_pretrained(str(path), model(), IMAGE)


def test_a_known_size_with_other_heads():
    """No array shows the heads, but all published models of one size have the same."""
    right = VitConfig(size="S", patch=16, placement="none", classes=9)
    sizes = {"D": 384, "M": 1536, "P": 16, "Z": 3, "T": 197, "C": 9}
    headers = {step.key: Header(step.shape(sizes), "float32") for step in TIMM.expand(right, 12)}
    assert plan_form(TIMM, headers, right, "file").steps
    wrong = right.model_copy(update={"heads": 8})
    with pytest.raises(UserError, match="heads: expected 8, but models of size S have 6"):
        plan_form(TIMM, headers, wrong, "file")


@pytest.mark.parametrize("kind", [timm, hugging_face, torchvision, vit_pytorch, google, big_vision])
def test_missing_and_further_arrays(tmp_path, kind):
    arrays = kind(PARAMS)
    for key in list(arrays):
        if key.endswith(("norm1.bias", "layernorm_before.bias", "ln_1.bias")):
            del arrays[key]
        if key.endswith(("attention_norm.bias", "LayerNorm_0/bias")):
            del arrays[key]
    prefix = "params/" if kind is big_vision else ""
    arrays[prefix + "surprise"] = np.ones(3, "f4")
    path = write_safetensors(tmp_path / "x.safetensors", arrays)
    with pytest.raises(UserError) as caught:
        load_pretrained(str(path), model(), IMAGE)
    text = str(caught.value)
    assert "bias: missing; is the file complete? and 1 more" in text
    assert "surprise: unexpected, found (3,)" in text and len(text.splitlines()) == 4


def test_a_wild_block_number_costs_nothing(tmp_path):
    arrays = timm(PARAMS) | {"blocks.99999.norm1.weight": np.ones(D, "f4")}
    path = write_safetensors(tmp_path / "x.safetensors", arrays)
    with pytest.raises(UserError, match="blocks: expected 2, found 3"):
        load_pretrained(str(path), model(), IMAGE)


def test_values_and_types(tmp_path):
    arrays = timm(PARAMS)
    arrays["blocks.0.attn.qkv.bias"] = arrays["blocks.0.attn.qkv.bias"].copy()
    arrays["blocks.0.attn.qkv.bias"][3] = np.nan
    path = write_safetensors(tmp_path / "x.safetensors", arrays)
    with pytest.raises(UserError, match=r"blocks.0.attn.qkv.bias: holds NaN or infinity"):
        load_pretrained(str(path), model(), IMAGE)
    arrays = timm(PARAMS) | {"blocks.1.norm1.bias": np.ones(D, np.int64)}
    path = write_npz(tmp_path / "x.npz", arrays)
    with pytest.raises(UserError, match="norm1.bias: expected floating-point numbers, found int64"):
        load_pretrained(str(path), model(), IMAGE)
    both = hugging_face(PARAMS, "vit.") | {"layernorm.bias": np.zeros(D, np.float32)}
    path = write_safetensors(tmp_path / "x.safetensors", both)
    with pytest.raises(UserError, match="layernorm.bias: expected each array once"):
        load_pretrained(str(path), model(), IMAGE)


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "student.backbone."])
def test_a_prefix_of_any_name_is_removed(tmp_path, prefix):
    plain, _ = load_pretrained(
        str(write_safetensors(tmp_path / "plain.safetensors", timm(PARAMS))), model(), IMAGE
    )
    inner = {f"{prefix}{name}": value for name, value in timm(PARAMS).items()}
    path = write_safetensors(tmp_path / "x.safetensors", inner)
    loaded, _ = load_pretrained(str(path), model(), IMAGE)
    assert loaded.keys() == plain.keys()
    assert all(np.array_equal(loaded[name], value) for name, value in plain.items())


def test_two_models_in_one_file_are_refused(tmp_path):
    both = {f"{who}.{key}": x for who in ("student", "teacher") for key, x in timm(PARAMS).items()}
    path = write_safetensors(tmp_path / "x.safetensors", both)
    with pytest.raises(UserError, match=r"2 class tokens \(student.cls_token, teacher.cls_token\)"):
        load_pretrained(str(path), model(), IMAGE)


def test_a_head_beside_a_body_with_a_longer_prefix(tmp_path):
    """As transformers' classifier inside another module."""
    names = {f"model.{name}": value for name, value in hugging_face(PARAMS, "vit.").items()}
    assert "model.vit.embeddings.cls_token" in names and "model.classifier.weight" in names
    inner = load_pretrained(
        str(write_safetensors(tmp_path / "a.safetensors", names)), model(), IMAGE
    )[0]
    plain = load_pretrained(
        str(write_safetensors(tmp_path / "b.safetensors", hugging_face(PARAMS, "vit."))),
        model(), IMAGE,
    )[0]  # fmt: skip
    assert inner.keys() == plain.keys()
    assert all(np.array_equal(inner[name], value) for name, value in plain.items())


OTHER_CONTENTS = {
    "an empty file": (b"", "an empty file"),
    "half a length": (b"\x10\x00", "cut or damaged"),
    "text": (b"hello, this is no checkpoint", "cut or damaged"),
    "a web page": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "a web page"),
    "a web page after a gap": (b"\xef\xbb\xbf\n  <html>Access denied</html>", "a web page"),
    "an index": (b'{"metadata": {}, "weight_map": {"a": "model-00001.safetensors"}}', "several fi"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(40), "an HDF5 file"),
    "one array": (b"\x93NUMPY\x01\x00" + bytes(40), "a single NumPy array"),
    "gzip": (b"\x1f\x8b\x08\x00" + bytes(40), "unpack it first"),
    "a broken zip": (b"PK\x03\x04" + bytes(100), "cut or damaged"),
}


@pytest.mark.parametrize("kind", OTHER_CONTENTS)
@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".bin"])
def test_files_that_hold_no_weights(tmp_path, kind, suffix):
    content, expected = OTHER_CONTENTS[kind]
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=expected) as caught:
        load_pretrained(str(path), model(), IMAGE)
    assert str(caught.value).startswith(f"{path}: expected ")


def test_a_zip_of_other_things(tmp_path):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(UserError, match=r"found a zip archive with 'readme.txt'"):
        load_pretrained(str(path), model(), IMAGE)


def test_places_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, expected in (
        ("absent", "no such file; check the path"),
        ("", "found a directory; name the file in it, such as .*model.safetensors"),
        ("pipe", "found a pipe or a device"),
        ("zero\0byte", "cannot be read"),
    ):
        with pytest.raises(UserError, match=expected):
            load_pretrained(os.path.join(tmp_path, name), model(), IMAGE)


@pytest.mark.parametrize("container", WRITERS)
def test_every_cut_is_noticed(tmp_path, container):
    path = WRITERS[container](tmp_path / "x", timm(PARAMS))
    whole = path.read_bytes()
    for length in [*range(0, 200, 7), *range(200, len(whole), len(whole) // 40), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(UserError):
            load_pretrained(str(path), model(), IMAGE)


def test_a_header_that_lies(tmp_path):
    """Offsets outside the file, a shape that does not fit them, and no JSON at all."""
    path = write_safetensors(tmp_path / "x", timm(PARAMS))
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    for change in (
        {"data_offsets": [0, 10**12]},
        {"shape": [10**9, 10**9]},
        {"shape": [-1]},
        {"dtype": "F99"},
        {"shape": "12"},
    ):
        text = json.dumps(header | {"cls_token": header["cls_token"] | change}).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + length :])
        with pytest.raises(UserError):
            load_pretrained(str(path), model(), IMAGE)
