"""`transfg convert` for ResNet and Swin: files of torch.save, and back to timm's names."""

import numpy as np
import pytest
import safetensors.numpy
import torch
from foreign_forms import write_safetensors
from foreign_namings import (
    CLASSES,
    DEPTHS,
    HEADS,
    SWINS,
    WIDTH,
    WINDOW,
    canonical_resnet,
    canonical_swin,
    torchvision_resnet,
)

from transfg_core.checkpoints import file as checkpoint
from transfg_core.checkpoints.export import convert
from transfg_core.checkpoints.pretrained import load_pretrained
from transfg_core.config.loading import build_config
from transfg_core.errors import UserError

IMAGE = (24, 24)
SWIN = {
    "name": "swin", "width": WIDTH, "depths": DEPTHS, "heads": HEADS, "window": WINDOW,
    "classes": CLASSES, "pretrained_head": True,
}  # fmt: skip
RESNET = {
    "name": "resnet", "blocks": DEPTHS, "width": 4, "classes": CLASSES, "pretrained_head": True,
}  # fmt: skip
NARROW = {kind: canonical_resnet(kind, 4) for kind in ("basic", "bottleneck")}
CASES = {
    "microsoft swin": (SWIN, canonical_swin(), SWINS["microsoft swin"], SWINS["timm swin"]),
    "torchvision resnet": (RESNET, NARROW["basic"], torchvision_resnet, torchvision_resnet),
    "torchvision bottlenecks": (
        RESNET | {"bottleneck": True}, NARROW["bottleneck"], torchvision_resnet, torchvision_resnet,
    ),
}  # fmt: skip
SHOWN = {
    "microsoft swin": "model.depths=[1,3,2,1] model.heads=[1,2,4,4]",
    "torchvision resnet": "model.width=4 model.blocks=[1,3,2,1] model.bottleneck=False",
    "torchvision bottlenecks": "model.bottleneck=True",
}
kinds = pytest.mark.parametrize("kind", CASES)


def config(kind):
    return build_config({"model": CASES[kind][0], "data": {"crop": IMAGE}}, kind)


def save(path, arrays, wrapped):
    tensors = {name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in arrays.items()}
    torch.save({"model": tensors, "epoch": 3} if wrapped else tensors, path)
    return str(path)


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("wrapped", [True, False])
@kinds
def test_a_file_of_torch_save(tmp_path, kind, wrapped):
    """As model.pretrained, and through `transfg convert`."""
    _, params, write, _ = CASES[kind]
    source = save(tmp_path / "x.pth", write(params), wrapped)
    found, report = load_pretrained(source, config(kind).model, IMAGE)
    assert_equal(found, params)
    assert not report.missing and not report.initialised
    target = tmp_path / "own.safetensors"
    text = convert(source, target)
    assert SHOWN[kind] in text and "arrays loaded" in text
    assert_equal(safetensors.numpy.load_file(target), params)
    assert_equal(load_pretrained(str(target), config(kind).model, IMAGE)[0], params)


@kinds
def test_a_run_under_timms_names_and_back(tmp_path, kind):
    _, params, write, write_timm = CASES[kind]
    source, target = tmp_path / "run", tmp_path / "timm.safetensors"
    arrays = {f"param/{name}": array for name, array in params.items()}
    arrays |= {f"momentum/{name}": array for name, array in params.items()}
    checkpoint.save(source, arrays, {"config": config(kind).model_dump(mode="json")})
    assert f"{len(params)} parameters under the names of timm" in convert(str(source), target)
    expected = {n: x for n, x in write_timm(params).items() if x.dtype.kind == "f"}
    assert_equal(safetensors.numpy.load_file(target), expected)
    assert_equal(load_pretrained(str(target), config(kind).model, IMAGE)[0], params)
    with pytest.raises(UserError, match="expected a name ending in .safetensors, found .npz"):
        convert(str(source), tmp_path / "x.npz")
    with pytest.raises(UserError, match="need no conversion; set model.pretrained="):
        convert(str(target), tmp_path / "again.safetensors")


@kinds
def test_a_file_without_a_head(tmp_path, kind):
    _, params, write, _ = CASES[kind]
    headless = {n: x for n, x in params.items() if not n.startswith("head.")}
    arrays = write(params)
    heads = [n for n in arrays if n in ("head.weight", "head.bias", "fc.weight", "fc.bias")]
    body = {n: x for n, x in arrays.items() if n not in heads}
    target = tmp_path / "own.safetensors"
    convert(save(tmp_path / "body.pth", body, False), target)
    assert_equal(safetensors.numpy.load_file(target), headless)


def test_a_file_without_the_blocks_of_a_stage(tmp_path):
    arrays = SWINS["microsoft swin"](canonical_swin())
    cut = {n: x for n, x in arrays.items() if not n.startswith("layers.3.")}
    with pytest.raises(UserError, match="expected all blocks of a model .* is the file complete"):
        convert(save(tmp_path / "cut.pth", cut, False), tmp_path / "own.safetensors")


@kinds
def test_a_safetensors_file_needs_no_conversion(tmp_path, kind):
    _, params, write, _ = CASES[kind]
    source = write_safetensors(tmp_path / "x", write(params))
    with pytest.raises(UserError, match="need no conversion"):
        convert(str(source), tmp_path / "out.safetensors")
