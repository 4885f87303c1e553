"""An exported folder of somebody else: what is wrong with it is a message, before any work."""

import hashlib
import json
import os

import numpy as np
import pytest
from models_of_export import model_of
from safetensors.numpy import load_file, save_file

from transfg_core.errors import UserError
from transfg_core.export.folder import export
from transfg_core.inference.source import read_model


@pytest.fixture
def folder(tmp_path):
    export(model_of("vit"), tmp_path / "out", onnx=False, overwrite=False)
    return tmp_path / "out"


def edit(folder, *keys, value):
    """Set a value in config.json by its keys."""
    path = folder / "config.json"
    tree = json.loads(path.read_text(encoding="utf-8"))
    inner = tree
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    path.write_text(json.dumps(tree), encoding="utf-8")


def rewrite(folder, change):
    """Change the arrays, and the SHA-256 with them."""
    path = folder / "model.safetensors"
    arrays = change(load_file(path))
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    edit(folder, "transfg", "sha256", value=digest)


@pytest.mark.parametrize(
    ("keys", "value", "expected"),
    [
        (("transfg", "sha256"), "0" * 64, "expected SHA-256 000000000000... as config.json says"),
        (("transfg", "sha256"), "no hash", "sha256: String should match pattern"),
        (("transfg", "format"), 2, "a newer version of this program wrote it"),
        (("transfg", "format"), "1", "format: Input should be a valid integer"),
        (("transfg", "format"), -3, "format: Input should be greater than or equal to 1"),
        (("transfg", "facts", "commits"), [1], "commits.0: Input should be a valid string"),
        (("transfg", "facts", "commits"), 5, "commits: Input should be a valid list"),
        (("transfg", "facts", "data"), {}, "data.name: Field required"),
        (("transfg", "facts", "accuracy", "top1"), 10**400, "accuracy.top1: Input should be"),
        (("transfg", "facts", "accuracy", "top1"), 1.5, "accuracy.top1: Input should be less"),
        (("transfg", "facts", "backend"), "torch\n# <img>", "backend: String should match pattern"),
        (("transfg", "facts", "run"), "\ud800", "run: Input should be a valid string"),
        (("transfg", "\x1b[31m"), 1, r"x1b\[31m': Extra inputs are not permitted"),
        (("transfg", "names"), "torchvision", "names: Input should be 'timm' or 'transfg'"),
        (("transfg", "more"), 1, "more: Extra inputs are not permitted"),
        (("transfg", "config", "model", "classes"), 6, "label_names: expected 6 class names"),
        (("transfg", "config", "model", "classes"), None, "expected None class names"),
        (("transfg", "config", "model", "widht"), 24, "widht"),
        (("transfg", "config", "model", "placement"), "transfg", "expected a model that timm can"),
        (("transfg", "config", "model", "depth"), 10**9, "model.depth"),
        (("transfg", "config", "model", "width"), 24 * 10**9, "cls_token: expected"),
        (("transfg", "config", "data", "crop"), [64, 64], "pos_embed: expected"),
        (("transfg", "config"), [], "config: Input should be a valid dictionary"),
        (("transfg", "facts", "accuracy"), {"top1": "0.9"}, "accuracy.top1"),
        (("transfg", "facts", "chosen_on"), "luck", "chosen_on"),
        (("transfg", "facts"), {}, "run: Field required"),
        (("transfg", "position", "update"), -1, "position.update"),
        (("transfg",), None, "a config.json without the section 'transfg'"),
        (("label_names",), ["a", "b"], "label_names: expected 5 class names .* found 2"),
        (("label_names",), "abcde", "label_names: expected a list of class names"),
        (("label_names",), [1, 2, 3, 4, 5], "label_names: expected a list of class names"),
        (("label_names",), ["a", "b", "c", "d", "e\u001b[31m"], "without control characters"),
    ],
)
def test_a_wrong_value(folder, keys, value, expected):
    edit(folder, *keys, value=value)
    with pytest.raises(UserError, match=expected):
        read_model(folder)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected JSON, found a cut or damaged file"),
        ('{"transfg": {', "expected JSON, found a cut or damaged file"),
        ("[]", "expected a JSON object"),
        ('{"label_names": NaN}', "NaN is no JSON"),
        ('{"transfg": ' + "[" * 50 + "]" * 50 + "}", "expected a JSON object of sane depth"),
        ("[" * 100_000, "expected JSON, found a cut or damaged file"),
        ('{"model_type": "bert"}', "it is of another program"),
        ("\ud800".encode("utf-16", "surrogatepass"), "expected JSON"),
    ],
)
def test_another_text(folder, text, expected):
    data = text if isinstance(text, bytes) else text.encode()
    (folder / "config.json").write_bytes(data)
    with pytest.raises(UserError, match=expected):
        read_model(folder)


def test_a_config_that_is_too_large(folder):
    with open(folder / "config.json", "a", encoding="utf-8") as file:
        file.write(" " * 2**24)
    with pytest.raises(UserError, match="expected at most 16777216 bytes"):
        read_model(folder)


def test_a_pipe_in_place_of_a_file(folder):
    for name in ("model.safetensors", "config.json"):
        (folder / name).unlink()
        os.mkfifo(folder / name)
        with pytest.raises(UserError, match="found a pipe or a device"):
            read_model(folder)


def test_weights_that_are_absent_or_cut(folder):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(UserError, match="the file is cut, changed or of another export"):
        read_model(folder)
    path.write_bytes(data[:-1])
    edit(folder, "transfg", "sha256", value=hashlib.sha256(data[:-1]).hexdigest())
    with pytest.raises(UserError, match="found a cut or damaged file"):
        read_model(folder)
    path.unlink()
    with pytest.raises(UserError, match="model.safetensors: no such file"):
        read_model(folder)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda a: a | {"more": a["head.bias"]}, "more: unexpected, the model has no such array"),
        (lambda a: {n: v for n, v in a.items() if n != "head.bias"}, r"head.bias: missing"),
        (lambda a: a | {"head.bias": a["head.bias"][:4]}, r"head.bias: expected \(5,\), found"),
        (lambda a: a | {"head.bias": np.zeros(5, np.int32)}, "expected floating-point numbers"),
        (lambda a: a | {"head.bias": np.full(5, np.nan, np.float32)}, "NaN or infinity"),
        (lambda a: a | {"blocks.0.attn.qkv.bias": np.zeros(71, np.float32)}, r"expected \(72,\)"),
    ],
)
def test_other_arrays(folder, change, expected):
    rewrite(folder, change)
    with pytest.raises(UserError, match=expected):
        read_model(folder)
