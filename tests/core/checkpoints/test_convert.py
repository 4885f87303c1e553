"""Conversion there and back, against arrays that are written by hand."""

import numpy as np
import pytest
import safetensors.numpy
from foreign_forms import (
    FORMS,
    IMAGE,
    MODEL,
    canonical,
    google,
    model,
    timm,
    write_npz,
    write_safetensors,
)

from transfg_core.checkpoints import file as checkpoint
from transfg_core.checkpoints.export import convert
from transfg_core.checkpoints.pretrained import load_pretrained
from transfg_core.config.loading import build_config
from transfg_core.errors import RunFailed, UserError

PARAMS = canonical()


def write_run(path, **changes):
    """The checkpoint of a run with these parameters."""
    config = build_config({"data": {"crop": list(IMAGE)}, "model": MODEL | changes}, "run")
    arrays = {f"param/{name}": array for name, array in PARAMS.items()}
    arrays |= {f"momentum/{name}": array for name, array in PARAMS.items()}
    checkpoint.save(path, arrays, {"config": config.model_dump(mode="json")})
    return path


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("suffix", [".safetensors", ".SafeTensors"])
def test_a_run_under_timms_names(tmp_path, suffix):
    source, target = write_run(tmp_path / "run"), tmp_path / f"timm{suffix}"
    assert f"{len(PARAMS)} parameters under the names of timm" in convert(str(source), target)
    assert_equal(safetensors.numpy.load_file(target), timm(PARAMS))
    with safetensors.safe_open(target, framework="numpy") as opened:
        assert opened.metadata() == {"format": "pt"}
    assert_equal(load_pretrained(str(target), model(), IMAGE)[0], PARAMS)


@pytest.mark.parametrize("suffix", [".npz", ".NPZ"])
def test_a_run_under_googles_names(tmp_path, suffix):
    source, target = write_run(tmp_path / "run"), tmp_path / f"google{suffix}"
    convert(str(source), target)
    with np.load(target) as opened:
        assert_equal(dict(opened), google(PARAMS))


@pytest.mark.parametrize("kind", ["timm", "Hugging Face", "torchvision", "ViT-pytorch"])
def test_heads_that_no_array_shows(tmp_path, kind):
    """Google's arrays need them; these sizes are of no published model."""
    source = write_safetensors(tmp_path / "x", FORMS[kind](PARAMS))
    with pytest.raises(UserError, match="the number of heads is not in the file"):
        convert(str(source), tmp_path / "x.npz")


def test_big_vision_to_google(tmp_path):
    """Its arrays show the heads. The class token has no position there, and none in the result."""
    source = write_npz(tmp_path / "x", FORMS["big_vision"](PARAMS))
    convert(str(source), tmp_path / "x.npz")
    expected = PARAMS | {"pos_embed": PARAMS["pos_embed"].copy()}
    expected["pos_embed"][:, 0] = 0
    with np.load(tmp_path / "x.npz") as opened:
        assert_equal(dict(opened), google(expected))


def test_to_google_reports_what_was_read(tmp_path):
    """As every conversion does: what is left out, and what the user should know."""
    arrays = FORMS["big_vision"](PARAMS)
    arrays["params/head/kernel"] = np.zeros_like(arrays["params/head/kernel"])
    source, target = write_npz(tmp_path / "x", arrays), tmp_path / "x.npz"
    first, *_, note, last = convert(str(source), target).splitlines()
    assert first == f"{source}: {len(PARAMS)} arrays loaded"
    assert "head: all weights are zero" in note and last.startswith(f"{source} -> {target}: ")


def test_heads_that_do_not_divide_the_width(tmp_path):
    arrays = FORMS["big_vision"](PARAMS)
    name = "params/Transformer/encoderblock_0/MultiHeadDotProductAttention_0/query/kernel"
    arrays[name] = np.zeros((12, 5, 4), "f4")
    source = write_npz(tmp_path / "x", arrays)
    with pytest.raises(UserError, match="expected a width for 5 heads, found 12"):
        convert(str(source), tmp_path / "x.npz")


def test_a_known_size_to_google(tmp_path):
    """The heads of a known size are known; a file without a head gives one without a head."""
    wide = model(width=192, heads=3, depth=12, mlp=768)
    rng = np.random.default_rng(0)
    arrays = {}
    for name, array in timm(PARAMS).items():
        for i in range(12) if name.startswith("blocks.0.") else (0,):
            swap = {12: 192, 36: 576, 20: 768}
            shape = [swap.get(n, n) for n in array.shape]
            arrays[name.replace("blocks.0.", f"blocks.{i}.")] = rng.normal(size=shape).astype("f4")
    arrays = {name: array for name, array in arrays.items() if not name.startswith("head.")}
    source = write_safetensors(tmp_path / "x", arrays)
    convert(str(source), tmp_path / "x.npz")
    found, report = load_pretrained(str(tmp_path / "x.npz"), wide, IMAGE)
    assert report.missing == ("head.weight", "head.bias")
    assert_equal(found, load_pretrained(str(source), wide, IMAGE)[0])


@pytest.mark.parametrize("kind", [kind for kind in FORMS if kind != "this project"])
def test_what_needs_no_conversion(tmp_path, kind):
    source = write_safetensors(tmp_path / "x", FORMS[kind](PARAMS))
    with pytest.raises(UserError, match=f"need no conversion; set model.pretrained={source}"):
        convert(str(source), tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_what_cannot_be_converted(tmp_path):
    target = tmp_path / "out.safetensors"
    for changes in ({"stride": 2}, {"placement": "transfg"}):
        source = write_run(tmp_path / "run", **changes)
        with pytest.raises(UserError, match=r"without overlap|expected model\.placement none"):
            convert(str(source), target)
    bare = write_safetensors(tmp_path / "bare", PARAMS)
    with pytest.raises(UserError, match="weights without a configuration.*model.pretrained takes"):
        convert(str(bare), target)
    half = {name: array for name, array in google(PARAMS).items() if "Dense_1" not in name}
    source = write_npz(tmp_path / "half", {f"opt/target/{k}": a for k, a in half.items()})
    with pytest.raises(UserError, match="need no conversion"):
        convert(str(source), target)
    assert not target.exists()
    with pytest.raises(RunFailed, match="check the folder"):
        convert(str(write_run(tmp_path / "run")), tmp_path / "absent" / "x.npz")
