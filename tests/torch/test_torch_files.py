"""Files of torch.save, read without PyTorch: equal to PyTorch's reading; code is refused."""

import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import foreign_forms
import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transfg_core.checkpoints.authors import to_canonical
from transfg_core.checkpoints.export import convert
from transfg_core.checkpoints.pretrained import build_params, load_pretrained
from transfg_core.checkpoints.recognise import open_weights
from transfg_core.checkpoints.torch_file import TorchFile
from transfg_core.config.loading import build_config
from transfg_core.config.vit import VitConfig
from transfg_core.errors import UserError

GOLDEN = Path(__file__).parents[2] / "parity" / "cases" / "golden"
CHECKPOINT = GOLDEN / "overlap_checkpoint.bin"
MODEL = {"width": 24, "heads": 2, "depth": 4, "mlp": 40, "patch": 8, "stride": 6, "classes": 7}
TYPES = [
    torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.int32,
    torch.int16, torch.int8, torch.uint8, torch.bool,
]  # fmt: skip
zipped = pytest.mark.parametrize("zipped", [True, False])


def state_dict() -> dict[str, torch.Tensor]:
    return torch.load(CHECKPOINT, weights_only=True)["model"]


def read(path):
    with open_weights(str(path)) as file:
        return {key: file.read(key) for key in file.headers()}


def save(tree, path, zipped=True):
    torch.save(tree, path, _use_new_zipfile_serialization=zipped)
    return path


class Code:
    """An object whose unpickling calls a function, which creates a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("kind", ["nonoverlap", "overlap", "smooth"])
def test_golden_checkpoints(kind):
    arrays = read(GOLDEN / f"{kind}_checkpoint.bin")
    expected = torch.load(GOLDEN / f"{kind}_checkpoint.bin", weights_only=True)["model"]
    assert list(arrays) == list(expected)
    assert all(np.array_equal(arrays[name], expected[name].numpy()) for name in expected)


@zipped
@pytest.mark.parametrize("wrap", [None, "model", "state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_forms_of_a_checkpoint(tmp_path, wrap, prefix, zipped):
    tensors = {prefix + name: tensor for name, tensor in state_dict().items()}
    path = save({wrap: tensors, "epoch": 3} if wrap else tensors, tmp_path / "x.bin", zipped)
    arrays, expected = read(path), state_dict()
    assert list(arrays) == list(expected)
    assert all(np.array_equal(arrays[n], expected[n].numpy()) for n in expected)


@zipped
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_types_are_exact(tmp_path, dtype, zipped):
    numbers = torch.tensor([[-1.5, 0.0, 3.25], [1e-6, 7.0, 100.0]]).to(dtype)
    found = read(save({"a": numbers}, tmp_path / "x.bin", zipped))["a"]
    expected = numbers.float() if dtype == torch.bfloat16 else numbers
    assert found.dtype == expected.numpy().dtype and np.array_equal(found, expected.numpy())


@zipped
def test_views_and_parameters(tmp_path, zipped):
    base = torch.arange(24.0).reshape(4, 6)
    tree = {
        "transposed": base.t(),
        "part": base[1:3, ::2],
        "shared": base,
        "parameter": torch.nn.Parameter(base[2]),
        "scalar": torch.tensor(3.0),
        "empty": torch.zeros(0, 4),
    }
    path = save(tree, tmp_path / "x.bin", zipped)
    arrays = read(path)
    assert all(np.array_equal(arrays[n], tree[n].detach().numpy()) for n in tree)
    module = torch.nn.Linear(3, 2)  # an OrderedDict with the attribute _metadata
    arrays = read(save(module.state_dict(), path, zipped))
    assert np.array_equal(arrays["weight"], module.weight.detach().numpy())
    expanded = {"a": torch.zeros(1).expand(10**6)}
    with pytest.raises(UserError, match="larger than its numbers"):
        read(save(expanded, path, zipped))


@zipped
@pytest.mark.parametrize("kind", foreign_forms.FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_form_gives_the_same_parameters_from_torch_save(tmp_path, kind, zipped, dtype):
    params = {
        name: torch.from_numpy(array).to(dtype).float().numpy()
        for name, array in foreign_forms.canonical().items()
    }
    tensors = {
        name: torch.from_numpy(np.ascontiguousarray(array)).to(dtype)
        for name, array in foreign_forms.FORMS[kind](params).items()
    }
    path = save(tensors, tmp_path / "pytorch_model.bin", zipped)
    arrays, _ = load_pretrained(str(path), foreign_forms.model(), foreign_forms.IMAGE)
    if "big_vision" in kind:
        params["pos_embed"][:, 0] = 0
    assert arrays.keys() == params.keys()
    assert all(arrays[name].tobytes() == params[name].tobytes() for name in params)


def test_convert_and_load(tmp_path):
    """A converted checkpoint and the checkpoint itself give the same parameters."""
    target = tmp_path / "converted.safetensors"
    report = convert(str(CHECKPOINT), target)
    assert "placement transfg, depth 4, width 24, mlp 40, patch 8, classes 7" in report
    assert "heads: not in the file" in report
    assert "6 x 6 patches" in report and "part_layer" in report
    arrays = safetensors.numpy.load_file(target)
    for name, tensor in state_dict().items():
        assert np.array_equal(arrays[to_canonical(name)], tensor.numpy())
    for path in (target, CHECKPOINT):
        tree = {"data": {"crop": [38, 38]}, "model": MODEL | {"pretrained": str(path)}}
        values, load_report = build_params(build_config(tree, "test"))
        assert load_report is not None and not load_report.initialised and not load_report.ignored
        assert all(np.array_equal(values[name], arrays[name]) for name in arrays)
    assert [path.name for path in tmp_path.iterdir()] == ["converted.safetensors"]


def test_conversion_of_dinov2(tmp_path):
    """LayerScale is folded, though the arrays of such a file cannot be written to."""
    params, width = foreign_forms.canonical(), foreign_forms.D
    names = [f"blocks.{i}.ls{n}.gamma" for i in range(foreign_forms.DEPTH) for n in (1, 2)]
    factors = dict.fromkeys(names, np.linspace(1, 2, width, dtype="f4"))
    arrays = foreign_forms.timm(params) | factors | {"mask_token": np.zeros((1, width), "f4")}
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    source, target = tmp_path / "dinov2.pth", tmp_path / "own.safetensors"
    torch.save(tensors, source)
    assert "LayerScale: multiplied into 4 layers" in convert(str(source), target)
    loaded, _ = load_pretrained(str(target), foreign_forms.model(), foreign_forms.IMAGE)
    scaled = params["blocks.1.mlp.fc2.weight"] * factors["blocks.1.ls2.gamma"][:, None]
    assert np.array_equal(loaded["blocks.1.mlp.fc2.weight"], scaled)
    torch.save(tensors | {"register_tokens": torch.zeros(1, 4, width)}, source)
    with pytest.raises(UserError, match="the model has register tokens"):
        convert(str(source), target)


def test_a_fine_tuned_checkpoint_into_other_models():
    other = VitConfig(**MODEL | {"classes": 9})
    arrays, report = load_pretrained(str(CHECKPOINT), other, (38, 38))
    assert report.initialised == ("head.weight", "head.bias")
    assert "7 classes, model.classes 9" in report.summary()
    plain = VitConfig(**MODEL, placement="none")
    with pytest.raises(UserError, match="found one with part selection; set model.placement="):
        load_pretrained(str(CHECKPOINT), plain, (38, 38))


def test_code_is_refused_and_not_run(tmp_path):
    trap = tmp_path / "it_ran"
    for number, tree in enumerate([Code(trap), {"model": state_dict() | {"x": Code(trap)}}]):
        for zipped in (True, False):
            path = save(tree, tmp_path / f"{number}{zipped}.bin", zipped)
            with pytest.raises(UserError, match=r"could run code: refused.*mkdir|mkdir.*refused"):
                read(path)
        path.write_bytes(pickle.dumps(tree if number == 0 else {"x": Code(trap)}))
        with pytest.raises(UserError, match="could run code: refused"):
            read(path)
    assert not trap.exists()


@zipped
@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ([1, 2], "expected named tensors .*, found a list"),
        ({}, "expected named tensors .*, found nothing"),
        ({"model": {}}, "expected named tensors .*, found nothing"),
        ({"model": 3}, "model: expected a tensor, found a int"),
        ({"a": torch.eye(2).to_sparse()}, "_rebuild_sparse_tensor, which could run code"),
        (
            {"student": {"a": torch.zeros(1)}, "teacher": {"a": torch.zeros(1)}, "epoch": 3},
            r"found dictionaries 'student', 'teacher'; .*\[NAME\]",
        ),
        (
            {"model": {"student": {"a": torch.zeros(1)}, "teacher": {"a": torch.zeros(1)}}},
            r"\['model'\]\[NAME\]",
        ),
        ({"a": torch.zeros(1), "module.a": torch.zeros(1)}, "module.a: .*found two"),
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear, which could run code"),
        (
            {"a": {3: OrderedDict(b=1)}, "b": torch.zeros(1)},
            "a: expected a tensor, found a dict",
        ),
    ],
)
def test_other_contents(tmp_path, tree, expected, zipped):
    with pytest.raises(UserError, match=expected):
        read(save(tree, tmp_path / "x.bin", zipped))


def test_averaged_weights_beside_the_model_are_named(tmp_path):
    """The published weights are often the averaged ones."""
    both = {"model": {"a": torch.zeros(1)}, "model_ema": {"a": torch.ones(1)}, "args": {"lr": 1}}
    with TorchFile(str(save(both, tmp_path / "x.pth", True))) as file:
        assert file.read("a").tolist() == [0]
        assert file.note == "note: the arrays of 'model' are taken, not those of 'model_ema'"
    with TorchFile(str(save({"model": both["model"]}, tmp_path / "y.pth", True))) as file:
        assert file.note == ""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripts_are_refused(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "x.pt")
    with pytest.raises(UserError, match="a TorchScript program, which could run code"):
        read(tmp_path / "x.pt")


@pytest.fixture(scope="module")
def old_format(tmp_path_factory):
    """A file of the old format, saved once: its keys are addresses, so no two files are equal."""
    folder = tmp_path_factory.mktemp("old_format")
    return save({"model": state_dict()}, folder / "x.bin", zipped=False).read_bytes()


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_damage_is_always_a_user_error(tmp_path_factory, old_format, data):
    path = tmp_path_factory.mktemp("damaged") / "x.bin"
    if data.draw(st.booleans(), "old format"):
        content = bytearray(old_format)
        regions = [0, 1000, 5000]
    else:
        content = bytearray(CHECKPOINT.read_bytes())
        regions = [0, len(content) - 9000]
    if data.draw(st.booleans(), "cut"):
        del content[data.draw(st.integers(0, len(content) - 1), "length") :]
    else:
        start = data.draw(st.sampled_from(regions))
        for _ in range(data.draw(st.integers(1, 5))):
            place = data.draw(st.integers(start, start + 8999))
            content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        arrays = read(path)
    except UserError as error:
        assert str(path) in str(error)
    else:
        assert arrays


def test_a_compressed_member_is_refused(tmp_path):
    """torch.save compresses nothing; a small member could become larger than the memory."""
    with zipfile.ZipFile(CHECKPOINT) as old, zipfile.ZipFile(tmp_path / "x.bin", "w") as new:
        for name in old.namelist():
            kind = zipfile.ZIP_DEFLATED if name.endswith("data/3") else zipfile.ZIP_STORED
            new.writestr(name, old.read(name), kind)
    with open_weights(str(tmp_path / "x.bin")) as file:
        assert isinstance(file, TorchFile)
        with pytest.raises(UserError, match="is compressed"):
            [file.read(key) for key in file.headers()]


def test_convert_refuses_half_a_model(tmp_path):
    target = tmp_path / "out.safetensors"
    tensors = state_dict()
    removed = tensors.pop("transformer.encoder.layer.1.ffn.fc2.bias")
    torch.save(tensors, tmp_path / "x.bin")
    with pytest.raises(UserError, match="layer.1.ffn.fc2.bias: missing"):
        convert(str(tmp_path / "x.bin"), target)
    name = "transformer.encoder.layer.1.ffn.fc2.bais"
    torch.save(tensors | {name: removed}, tmp_path / "x.bin")
    with pytest.raises(UserError, match=f"{name}: unexpected"):
        convert(str(tmp_path / "x.bin"), target)
    with pytest.raises(UserError, match="which Google's names cannot hold"):
        convert(str(CHECKPOINT), tmp_path / "out.npz")
    with pytest.raises(UserError, match=r"ending in \.safetensors or \.npz"):
        convert(str(CHECKPOINT), tmp_path / "out.bin")
    assert not target.exists()
