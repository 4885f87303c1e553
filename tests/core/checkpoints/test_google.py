"""Google's .npz: golden files, every real file's names, asymmetric kernels, damaged files."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfg_core.checkpoints.authors import to_canonical
from transfg_core.checkpoints.export import save_as
from transfg_core.checkpoints.google import GOOGLE
from transfg_core.checkpoints.plan import plan_form
from transfg_core.checkpoints.pretrained import load_pretrained
from transfg_core.checkpoints.recognise import recognise
from transfg_core.checkpoints.weight_file import Header, WeightFile
from transfg_core.config.vit import VitConfig
from transfg_core.errors import UserError
from transfg_core.models.layout import param_shapes
from transfg_core.models.rows import resolve
from transfg_core.models.vit import param_specs, sizes
from transfg_core.params.initial import initial_params
from transfg_core.params.positions import resize_pos_embed, square_side

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "parity" / "cases" / "golden"
TINY = GOLDEN / "tiny_vit.npz"
REAL = ROOT.parent / "shared" / "data" / "vit_names" / "google_vit_npz_names_shapes.json"
MODEL = VitConfig(width=24, heads=2, depth=4, mlp=40, patch=8, classes=7)
BLOCK0 = "Transformer/encoderblock_0/"
ATTENTION0 = BLOCK0 + "MultiHeadDotProductAttention_1/"


def tiny() -> dict[str, np.ndarray]:
    with np.load(TINY) as file:
        return dict(file)


def changed(path: Path, **changes: object) -> Path:
    """A copy of the tiny file with arrays replaced, or left out where None."""
    arrays = tiny() | changes
    np.savez(path, **{key: array for key, array in arrays.items() if array is not None})
    return path


@pytest.mark.parametrize(
    ("file", "size", "stride"),
    [("non-overlap_32", 32, 8), ("non-overlap_72", 72, 8), ("overlap_62", 62, 12)],
)
def test_golden(file, size, stride):
    model = MODEL.model_copy(update={"stride": stride})  # 12 over patch 8 is the golden file's
    arrays, report = load_pretrained(str(TINY), model, (size, size))
    with np.load(GOLDEN / f"loaded_{file}.npz") as golden:
        expected = {to_canonical(name): golden[name] for name in golden.files}
    assert arrays.keys() == expected.keys() == set(report.loaded)
    for name, array in arrays.items():
        assert array.dtype == np.float32 and array.flags.c_contiguous
        assert array.shape == expected[name].shape
        assert np.abs(array - expected[name]).max() <= 1e-6, name
    assert len(report.resized) == (size != 32)
    left = {name for name in param_shapes(model, (size, size)) if name not in arrays}
    assert set(report.initialised) == left
    assert {name.partition(".")[0] for name in left} == {"part_layer", "head"}
    assert len(report.ignored) == 16 + 2 + 2 and not report.missing
    assert "pre_logits/kernel and 1 more: not part of the network" in report.summary()


def test_last_block_uses_every_row():
    model = MODEL.model_copy(update={"part_layer_init": "last_block"})
    arrays, report = load_pretrained(str(TINY), model, (32, 32))
    assert report.initialised == ("head.weight", "head.bias")
    kernel = tiny()["Transformer/encoderblock_3/MlpBlock_3/Dense_1/kernel"]
    assert np.array_equal(arrays["part_layer.mlp.fc2.weight"], kernel.T)


def test_kernels_element_by_element(tmp_path):
    """Each transposition against its definition, on arrays whose every element is different."""
    rng = np.random.default_rng(5)
    shapes = {key: array.shape for key, array in tiny().items()}
    google = {key: rng.normal(size=shape).astype("f4") for key, shape in shapes.items()}
    model = MODEL.model_copy(update={"placement": "none", "pretrained_head": True, "classes": 21})
    path = tmp_path / "google.npz"
    np.savez(path, **google)

    def at(key, *index):
        return google[key][index]

    arrays, report = load_pretrained(str(path), model, (32, 32))
    assert not report.initialised
    k, d = 1, 7  # head, element within the head: row 1 * 12 + 7 of the matrix
    for part in ("query", "key", "value"):
        weight, bias = (arrays[f"blocks.0.attn.{part}.{leaf}"] for leaf in ("weight", "bias"))
        assert weight[19, 5] == at(f"{ATTENTION0}{part}/kernel", 5, k, d)
        assert bias[19] == at(f"{ATTENTION0}{part}/bias", k, d)
    assert arrays["blocks.0.attn.out.weight"][5, 19] == at(f"{ATTENTION0}out/kernel", k, d, 5)
    assert arrays["blocks.0.mlp.fc1.weight"][33, 5] == at(
        f"{BLOCK0}MlpBlock_3/Dense_0/kernel", 5, 33
    )
    assert arrays["patch_embed.weight"][9, 2, 3, 6] == at("embedding/kernel", 3, 6, 2, 9)
    assert arrays["head.weight"][20, 3] == at("head/kernel", 3, 20)
    assert np.array_equal(arrays["norm.weight"], google["Transformer/encoder_norm/scale"])
    assert np.array_equal(arrays["blocks.0.norm2.bias"], google[f"{BLOCK0}LayerNorm_2/bias"])


def headers_of(shapes):
    return {key: Header(shape, "float32") for key, shape in shapes.items()}


def plan(shapes, model):
    return plan_form(GOOGLE, headers_of(shapes), model, "file")


@settings(max_examples=15, deadline=None)
@given(
    heads=st.integers(1, 3),
    per_head=st.integers(1, 3),
    depth=st.integers(2, 3),
    mlp=st.integers(1, 5),
    patch=st.integers(1, 3),
    classes=st.integers(2, 4),
    side=st.integers(1, 3),
)
def test_round_trip(tmp_path_factory, heads, per_head, depth, mlp, patch, classes, side):
    model = VitConfig(
        placement="none", width=heads * per_head, heads=heads, depth=depth, mlp=mlp, patch=patch,
        classes=classes, pretrained_head=True,
    )  # fmt: skip
    size = (patch * side, patch * side)
    rng = np.random.default_rng(0)
    arrays = {n: rng.normal(size=s).astype("f4") for n, s in param_shapes(model, size).items()}
    path = tmp_path_factory.mktemp("npz") / "model.npz"
    save_as(GOOGLE, path, arrays, model)
    loaded, report = load_pretrained(str(path), model, size)
    assert loaded.keys() == arrays.keys() and not report.initialised and not report.ignored
    assert all(np.array_equal(loaded[name], arrays[name]) for name in arrays)


def test_save_restores_the_golden_file(tmp_path):
    model = VitConfig(
        **MODEL.model_dump(include={"width", "heads", "depth", "mlp", "patch"}),
        placement="none", classes=21, pretrained_head=True,
    )  # fmt: skip
    arrays, _ = load_pretrained(str(TINY), model, (32, 32))
    save_as(GOOGLE, tmp_path / "again.npz", arrays, model)
    with np.load(tmp_path / "again.npz") as again:
        expected = {key: a for key, a in tiny().items() if not key.startswith("pre_logits")}
        assert set(again.files) == set(expected)
        assert all(np.array_equal(again[key], expected[key]) for key in expected)


def test_save_refuses_what_the_format_cannot_hold(tmp_path):
    path = tmp_path / "x.npz"
    with pytest.raises(UserError, match="expected model.placement none, found transfg"):
        save_as(GOOGLE, path, {}, MODEL)
    plain = MODEL.model_copy(update={"placement": "none"})
    with pytest.raises(UserError, match="expected a square grid, found 6 positions"):
        save_as(GOOGLE, path, initial_params(plain, (16, 24), 0), plain)
    with pytest.raises(UserError, match="cls_token: missing"):
        save_as(GOOGLE, path, {}, plain)
    assert not path.exists()


def real_files() -> dict[str, dict[str, tuple[int, ...]]]:
    if not REAL.exists():
        return {}
    files = json.loads(REAL.read_text())
    return {n: {k: tuple(s) for k, s in f["arrays"].items()} for n, f in files.items()}


@pytest.mark.skipif(not REAL.exists(), reason=f"no {REAL.name}: the names of the real files")
def test_names_of_the_real_files():
    files = real_files()
    assert len(files) == 15
    for file, shapes in files.items():
        size, _, patch = file.rpartition("/")[2].partition("-i21k")[0].rpartition("_")
        size, patch = size.removeprefix("ViT-"), patch.removesuffix("-224")
        hybrid = size.startswith("R50+")
        for placement in ("none", "transfg"):
            model = VitConfig(
                size=size.removeprefix("R50+ViT-"), patch=1 if hybrid else int(patch),
                stem="r50_s16" if hybrid else "none", placement=placement,
                part_layer_init="last_block", pretrained_head=True, classes=shapes["head/bias"][0],
            )  # fmt: skip
            assert recognise(WeightFile(file), headers_of(shapes)) is GOOGLE
            check_plan(plan(shapes, model), shapes, model)


def check_plan(plan, shapes, model):
    """All arrays but pre_logits go into the model, each into its own place and of its size."""
    used = [step.key for step in plan.steps] + [item.partition(": ")[0] for item in plan.ignored]
    assert sorted(used) == sorted(shapes) and not plan.missing
    assert all(item.startswith("pre_logits/") for item in plan.ignored)
    specs = param_specs(model)
    assert [*sorted(name for step in plan.steps for name in step.names)] == sorted(specs)
    for key, row, (name,) in plan.steps:
        tokens = shapes["Transformer/posembed_input/pos_embedding"][1]
        target = resolve(specs[name].dims, sizes(model) | {"T": tokens})
        moved = np.broadcast_to(np.float32(0), shapes[key])
        moved = moved.transpose(row.axes).shape if row.axes else shapes[key][-1:]
        assert math.prod(moved) == math.prod(target)
        assert moved == target or ("K" in row.dims and target[0] == model.width)


def test_prefix_and_optimiser_state(tmp_path):
    path = tmp_path / "augreg.npz"
    arrays = {f"opt/target/{key}": array for key, array in tiny().items()}
    np.savez(path, **arrays, **{"opt/state/step": np.int64(3)})
    loaded, report = load_pretrained(str(path), MODEL, (32, 32))
    expected, _ = load_pretrained(str(TINY), MODEL, (32, 32))
    assert all(np.array_equal(loaded[name], expected[name]) for name in expected)
    assert "opt/state/step: optimiser state" in report.ignored


@pytest.mark.parametrize(
    ("wanted", "classes", "loaded", "reason"),
    [
        (False, 21, False, "model.pretrained_head is false"),
        (True, 7, False, "21 classes, model.classes 7"),
        (True, 21, True, None),
    ],
)
def test_head(wanted, classes, loaded, reason):
    model = MODEL.model_copy(update={"pretrained_head": wanted, "classes": classes})
    arrays, report = load_pretrained(str(TINY), model, (32, 32))
    assert ("head.weight" in arrays) == ("head.bias" in arrays) == loaded
    assert reason is None or f"head/bias: {reason}" in report.ignored


def test_head_missing_or_zero(tmp_path):
    model = MODEL.model_copy(update={"pretrained_head": True, "classes": 21})
    none = {"head/kernel": None, "head/bias": None}
    _, report = load_pretrained(str(changed(tmp_path / "a.npz", **none)), model, (32, 32))
    assert report.missing == ("head.weight", "head.bias")
    assert {"head.weight", "head.bias"} <= set(report.initialised)
    zeros = {"head/kernel": np.zeros((24, 21), "f4"), "head/bias": np.zeros(21, "f4")}
    arrays, _ = load_pretrained(str(changed(tmp_path / "b.npz", **zeros)), model, (32, 32))
    assert not arrays["head.weight"].any()
    half = changed(tmp_path / "c.npz", **{"head/bias": None})
    with pytest.raises(UserError, match="head/bias: missing"):
        load_pretrained(str(half), model, (32, 32))


def test_other_float_types_become_float32(tmp_path):
    path = tmp_path / "half.npz"
    np.savez(path, **{key: array.astype(np.float16) for key, array in tiny().items()})
    arrays, _ = load_pretrained(str(path), MODEL, (32, 32))
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("update", "expected"),
    [
        ({"depth": 3}, "blocks: expected 3, found 4; is model.depth right?"),
        ({"depth": 5}, "blocks: expected 5, found 4; is model.depth right?"),
        ({"width": 32}, r"cls: expected \(1, 1, 32\), found \(1, 1, 24\).*model.width right?"),
        (
            {"heads": 3},
            r"query/kernel: expected \(24, 3, 8\), found \(24, 2, 12\) and.*model.heads",
        ),
        ({"patch": 4}, r"embedding/kernel: expected \(4, 4, 3, 24\), found \(8, 8, 3, 24\).*patch"),
        ({"mlp": 41}, r"Dense_0/kernel: expected \(24, 41\), found \(24, 40\).*model.mlp right?"),
    ],
)
def test_wrong_architecture(update, expected):
    with pytest.raises(UserError, match=expected) as caught:
        load_pretrained(str(TINY), MODEL.model_copy(update=update), (32, 32))
    text = str(caught.value)
    assert text.startswith(f"{TINY}: ") and len(text.splitlines()) <= 6
    assert "the file holds depth 4, width 24, heads 2, mlp 40, patch 8" in text


def test_size_of_the_file_is_named():
    files = real_files()
    if not files:
        pytest.skip(f"no {REAL.name}: the names of the real files")
    with pytest.raises(UserError, match="the file holds model.size L: depth 24, width 1024"):
        plan(files["imagenet21k/ViT-L_16"], VitConfig(size="B", patch=16))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"cls": None}, "cls: missing"),
        ({ATTENTION0 + "out/bias": None}, "out/bias: missing"),
        ({"cls": np.full((1, 1, 24), np.nan, "f4")}, "cls: holds NaN or infinity"),
        ({"embedding/bias": np.full(24, np.inf, "f4")}, "embedding/bias: holds NaN"),
        ({"embedding/bias": np.full(24, 1e300)}, "embedding/bias: holds NaN"),
        ({"surprise": np.zeros(3, "f4")}, r"surprise: unexpected, found \(3,\)"),
        ({"cls": np.zeros((1, 24), "f4")}, r"cls: expected \(1, 1, 24\), found \(1, 24\)"),
        ({"cls": np.zeros((1, 1, 24), int)}, "cls: expected floating-point numbers, found int64"),
        ({"cls": np.array([{}])}, "cls: expected numbers, found pickled Python objects"),
        ({"embedding/kernel": None}, "embedding/kernel: missing"),
        (
            {"Transformer/posembed_input/pos_embedding": np.zeros((1, 16, 24), "f4")},
            r"pos_embedding: expected 1 \+ a square number of tokens, found 16",
        ),
    ],
)
def test_wrong_arrays(tmp_path, changes, expected):
    path = changed(tmp_path / "changed.npz", **changes)
    with pytest.raises(UserError, match=expected) as caught:
        load_pretrained(str(path), MODEL, (32, 32))
    assert str(path) in str(caught.value)


def test_files_of_other_kinds(tmp_path):
    path = tmp_path / "x.npz"
    contents = {
        b"": "cut or damaged",
        b"hello, this is text": "cut or damaged",
    }
    for content, expected in contents.items():
        path.write_bytes(content)
        with pytest.raises(UserError, match=expected):
            load_pretrained(str(path), MODEL, (32, 32))
    np.savez(path)
    with pytest.raises(UserError, match="found no arrays"):
        load_pretrained(str(path), MODEL, (32, 32))
    for missing, expected in ((tmp_path / "none.npz", "no such file"), (tmp_path, "directory")):
        with pytest.raises(UserError, match=expected):
            load_pretrained(str(missing), MODEL, (32, 32))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_is_always_a_user_error(tmp_path_factory, data):
    """Cut anywhere, or with bytes overwritten: either refused, or read to the same numbers."""
    content = bytearray(TINY.read_bytes())
    if data.draw(st.booleans(), "cut"):
        del content[data.draw(st.integers(0, len(content) - 1), "length") :]
    else:
        starts = [0, content.find(b"PK\x01\x02"), len(content) - 30]
        for _ in range(data.draw(st.integers(1, 4))):
            start = data.draw(st.sampled_from(starts))
            place = data.draw(st.integers(start, min(start + 500, len(content) - 1)))
            content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "x.npz"
    path.write_bytes(content)
    try:
        arrays, _ = load_pretrained(str(path), MODEL, (32, 32))
    except UserError:
        return
    expected, _ = load_pretrained(str(TINY), MODEL, (32, 32))
    assert all(np.array_equal(arrays[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("side", "grid"), [(4, (7, 7)), (4, (3, 9)), (14, (28, 28)), (24, (37, 18)), (3, (1, 1))]
)
def test_resize_against_interpolation_by_hand(side, grid):
    embedding = np.random.default_rng(1).normal(size=(1, side * side + 1, 5)).astype("f4")
    result = resize_pos_embed(embedding, grid)
    assert result.dtype == np.float32 and np.array_equal(result[:, 0], embedding[:, 0])
    weights = []
    for size in grid:
        at = np.linspace(0, side - 1, size) if size > 1 else np.zeros(1)
        weights.append(np.maximum(0, 1 - np.abs(at[:, None] - np.arange(side))))
    square = embedding[0, 1:].reshape(side, side, 5).astype(float)
    expected = np.einsum("ar,bc,rcd->abd", *weights, square).reshape(-1, 5)
    assert np.abs(result[0, 1:] - expected).max() < 1e-5


def test_resize_keeps_the_border():
    """24 -> 22 and 16 -> 30 are sizes where scipy's default border makes the last row zero."""
    for side in (8, 16, 24, 28):
        ones = np.ones((1, side * side + 1, 2), np.float32)
        for size in range(1, 61):
            assert np.allclose(resize_pos_embed(ones, (size, size)), 1), (side, size)


def test_square_side():
    assert [square_side(n) for n in (197, 577, 2, 1, 0, 198)] == [14, 24, 1, None, None, None]


def test_table_has_each_parameter_once():
    names = [row.name for row in GOOGLE.rows if row.name]
    assert (
        len(set(names))
        == len(names)
        == len(param_shapes(VitConfig(depth=2, classes=2), (8, 8))) - 16
    )
