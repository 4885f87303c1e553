"""The published program's checkpoints: golden files, refused code, damaged files, conversion."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transfg_core.checkpoints.authors import to_canonical
from transfg_core.checkpoints.pretrained import build_params
from transfg_core.config.loading import build_config
from transfg_core.errors import UserError
from transfg_torch.foreign.authors import convert, read_published

GOLDEN = Path(__file__).parents[2] / "parity" / "cases" / "golden"
CHECKPOINT = GOLDEN / "overlap_checkpoint.bin"
MODEL = {"width": 24, "heads": 2, "depth": 4, "mlp": 40, "patch": 8, "stride": 6, "classes": 7}


def state_dict() -> dict[str, torch.Tensor]:
    return torch.load(CHECKPOINT, weights_only=True)["model"]


class Code:
    """An object whose unpickling calls a function, which creates a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("kind", ["nonoverlap", "overlap", "smooth"])
def test_golden_checkpoints(kind):
    arrays = read_published(GOLDEN / f"{kind}_checkpoint.bin")
    with np.load(GOLDEN / f"{kind}_trace.npz") as trace:
        after = {name[6:]: trace[name].shape for name in trace.files if name[:6] == "after/"}
    assert {name: array.shape for name, array in arrays.items()} == after
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("wrap", [True, False])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("zipped", [True, False])
def test_forms_of_a_checkpoint(tmp_path, wrap, prefix, dtype, zipped):
    path = tmp_path / "x.bin"
    tensors = {prefix + name: tensor.to(dtype) for name, tensor in state_dict().items()}
    tree = {"model": tensors} if wrap else tensors
    torch.save(tree, path, _use_new_zipfile_serialization=zipped)
    arrays, expected = read_published(path), read_published(CHECKPOINT)
    assert list(arrays) == list(expected)
    tolerance = 0.01 if dtype == torch.bfloat16 else 0
    assert all(np.allclose(arrays[n], expected[n], tolerance, 0) for n in expected)


def test_convert_and_load(tmp_path):
    target = tmp_path / "converted.safetensors"
    report = convert(CHECKPOINT, target)
    assert "width 24, depth 4, mlp 40, patch 8, classes 7, heads: not in the file" in report
    assert "36 patches, 6 x 6 if square" in report and "part_layer" in report
    arrays = safetensors.numpy.load_file(target)
    for name, tensor in state_dict().items():
        assert np.array_equal(arrays[to_canonical(name)], tensor.numpy())
    tree = {"data": {"crop": [38, 38]}, "model": MODEL | {"pretrained": str(target)}}
    values, load_report = build_params(build_config(tree, "test"))
    assert load_report is not None and not load_report.initialised and not load_report.ignored
    assert all(np.array_equal(values[name], arrays[name]) for name in arrays)
    assert [path.name for path in tmp_path.iterdir()] == ["converted.safetensors"]


def test_code_is_refused_and_not_run(tmp_path):
    trap = tmp_path / "it_ran"
    for number, tree in enumerate([Code(trap), {"model": state_dict() | {"x": Code(trap)}}]):
        for zipped in (True, False):
            path = tmp_path / f"{number}{zipped}.bin"
            torch.save(tree, path, _use_new_zipfile_serialization=zipped)
            with pytest.raises(UserError, match=r"could run code: refused.*mkdir"):
                read_published(path)
        path.write_bytes(pickle.dumps(tree if number == 0 else {"x": Code(trap)}))
        with pytest.raises(UserError, match="could run code: refused"):
            read_published(path)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ([1, 2], "expected named tensors, found list"),
        ({}, "expected named tensors"),
        ({"model": {}}, "expected named tensors"),
        ({"model": 3}, "model: expected a tensor of real numbers, found int"),
        ({"a": torch.zeros(2, dtype=torch.int64)}, "a: expected a tensor.*torch.int64"),
        ({"a": torch.eye(2).to_sparse()}, "a: expected a plain tensor"),
        ({"a": torch.zeros(1), "module.a": torch.zeros(1)}, "module.a: .*named once"),
    ],
)
def test_other_contents(tmp_path, tree, expected):
    torch.save(tree, tmp_path / "x.bin")
    with pytest.raises(UserError, match=expected):
        read_published(tmp_path / "x.bin")


def test_other_files(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_published(tmp_path / "none.bin")
    with pytest.raises(UserError, match="cut or damaged"):
        read_published(tmp_path)
    for file in ("tiny_vit.npz", "README.md"):
        with pytest.raises(UserError):
            read_published(GOLDEN / file)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_is_always_a_user_error(tmp_path_factory, data):
    content = bytearray(CHECKPOINT.read_bytes())
    if data.draw(st.booleans(), "cut"):
        del content[data.draw(st.integers(0, len(content) - 1), "length") :]
    else:
        start = data.draw(st.sampled_from([0, len(content) - 9000]))
        for _ in range(data.draw(st.integers(1, 5))):
            place = data.draw(st.integers(start, start + 8999))
            content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "x.bin"
    path.write_bytes(content)
    try:
        arrays = read_published(path)
    except UserError as error:
        assert str(path) in str(error)
    else:
        assert arrays


def test_convert_refuses_half_a_model(tmp_path):
    target = tmp_path / "out.safetensors"
    tensors = state_dict()
    removed = tensors.pop("transformer.encoder.layer.1.ffn.fc2.bias")
    torch.save(tensors, tmp_path / "x.bin")
    with pytest.raises(UserError, match="blocks.1.mlp.fc2.bias: missing"):
        convert(tmp_path / "x.bin", target)
    name = "transformer.encoder.layer.1.ffn.fc2.bais"
    torch.save(tensors | {name: removed}, tmp_path / "x.bin")
    with pytest.raises(UserError, match=f"{name}: unknown.*fc2.bias"):
        convert(tmp_path / "x.bin", target)
    with pytest.raises(UserError, match=r"ending in \.safetensors"):
        convert(CHECKPOINT, tmp_path / "out.npz")
    assert not target.exists()
