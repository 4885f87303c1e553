"""Headers that claim what no model or memory can hold, and a header's null."""

import json
import zipfile

import numpy as np
import pytest
from foreign_forms import IMAGE, canonical, google, model, timm, write_npz, write_safetensors

from transfg_core.checkpoints.export import convert
from transfg_core.checkpoints.npz_file import NpzFile
from transfg_core.checkpoints.pretrained import load_pretrained
from transfg_core.checkpoints.safetensors_file import SafetensorsFile
from transfg_core.errors import UserError

PARAMS = canonical()


def claim(path, arrays, name, shape):
    """An .npz in which one array is a header alone, of this shape."""
    write_npz(path, {key: array for key, array in arrays.items() if key != name})
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with zipfile.ZipFile(path, "a") as archive, archive.open(f"{name}.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, header)
    return str(path)


@pytest.mark.parametrize("shape", [(13,), (10**14,), (2**70,), (0, 2**70)])
@pytest.mark.parametrize("placement", ["none", "transfg"])
def test_shapes_are_compared_before_an_array_is_read(tmp_path, monkeypatch, shape, placement):
    path = claim(tmp_path / "x", PARAMS, "norm.weight", shape)
    monkeypatch.setattr(NpzFile, "read", lambda *_: pytest.fail("an array was read"))
    name = "norm.weight" if placement == "none" else "part_norm.weight"
    with pytest.raises(UserError) as caught:
        load_pretrained(path, model(placement=placement), IMAGE)
    assert f"1 problem\n  {name}: checkpoint {shape}, model (12,)" in str(caught.value)


def test_names_are_compared_before_an_array_is_read(tmp_path, monkeypatch):
    arrays = PARAMS | {"blocks.0.further": np.zeros(3, "f4")}
    path = write_safetensors(tmp_path / "x", {n: arrays[n] for n in arrays if n != "norm.bias"})
    monkeypatch.setattr(SafetensorsFile, "read", lambda *_: pytest.fail("an array was read"))
    with pytest.raises(UserError, match=r"norm.bias: missing.*\n.*further: unexpected"):
        load_pretrained(str(path), model(), IMAGE)


@pytest.mark.parametrize("side", [10**7, 2**36])
@pytest.mark.parametrize("form", ["this project", "Google"])
def test_positions_of_a_grid_that_no_memory_holds(tmp_path, side, form):
    """Any square grid may be resized, so only the reading shows that the numbers are missing."""
    shape = (1, side * side + 1, 12)
    if form == "Google":
        name = "Transformer/posembed_input/pos_embedding"
        path = claim(tmp_path / "x", google(PARAMS), name, shape)
    else:
        name = "pos_embed"
        path = claim(tmp_path / "x", PARAMS, name, shape)
    with pytest.raises(UserError, match=f"{name}: expected an .npz, found a cut or damaged"):
        load_pretrained(path, model(), IMAGE)


@pytest.mark.parametrize("arrays", [PARAMS, timm(PARAMS)], ids=["this project", "timm"])
def test_metadata_that_is_null(tmp_path, arrays):
    path = write_safetensors(tmp_path / "x", arrays)
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length]) | {"__metadata__": None}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + length :])
    loaded, _ = load_pretrained(str(path), model(), IMAGE)
    assert loaded.keys() == PARAMS.keys()
    assert all(np.array_equal(loaded[name], PARAMS[name]) for name in PARAMS)


def test_more_blocks_than_a_model_has(tmp_path):
    arrays = timm(PARAMS)
    arrays |= {f"blocks.{i}.norm1.bias": np.zeros(12, "f4") for i in range(1, 1001)}
    path = write_safetensors(tmp_path / "x", arrays)
    with pytest.raises(UserError, match="x: expected the sizes of .*: depth: .*1000, found 1001"):
        convert(str(path), tmp_path / "x.npz")
    assert not (tmp_path / "x.npz").exists()
