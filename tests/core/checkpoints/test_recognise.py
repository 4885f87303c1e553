"""Files that only look like a model of this project are refused by what they are."""

import numpy as np
import pytest
from foreign_forms import write_safetensors
from foreign_namings import RESNETS, SWINS, canonical_resnet, canonical_swin

from transfg_core.checkpoints.pretrained import load_pretrained
from transfg_core.config.loading import build_config
from transfg_core.errors import UserError

MODEL = build_config({"model": {"name": "resnet", "classes": 5}}, "test").model
SWIN, RESNET = canonical_swin(), canonical_resnet("basic", 4)
FORMS = {key: write(SWIN) for key, write in SWINS.items()}
FORMS |= {key: write(RESNET) for key, write in RESNETS.items()}


def message(tmp_path, arrays):
    path = write_safetensors(tmp_path / "x.safetensors", arrays)
    with pytest.raises(UserError) as caught:
        load_pretrained(str(path), MODEL, (32, 32))
    return str(caught.value)


@pytest.mark.parametrize("head", [True, False])
def test_resnet_d(tmp_path, head):
    """As timm's resnet50d: three convolutions in place of `conv1`."""
    arrays = {n: a for n, a in FORMS["torchvision resnet"].items() if head or "fc." not in n}
    del arrays["conv1.weight"]
    arrays |= {f"conv1.{i}.weight": np.ones((4, 3, 3, 3), "f4") for i in (0, 3, 6)}
    assert "a stem of three convolutions (ResNet-C, -D): conv1.0" in message(tmp_path, arrays)
    counters = [name for name in arrays if name.endswith("num_batches_tracked")]
    old = {name: value for name, value in arrays.items() if name not in counters}
    assert "a stem of three convolutions" in message(tmp_path, old)


@pytest.mark.parametrize("program", ["timm", "Facebook"])
def test_convnext(tmp_path, program):
    """Its `norm`, `mlp.fc1` and `mlp.fc2` are also names of a Swin Transformer."""
    timm = program == "timm"
    leaves = ("conv_dw.weight", "conv_dw.bias") if timm else ("dwconv.weight", "dwconv.bias")
    leaves += ("gamma", "norm.weight", "norm.bias", "mlp.fc1.weight", "mlp.fc1.bias")
    leaves += ("mlp.fc2.weight", "mlp.fc2.bias")
    block = "stages.{}.blocks.{}." if timm else "stages.{}.{}."
    names = [block.format(i, j) + leaf for i in range(4) for j in range(3) for leaf in leaves]
    names += ["stem.0.weight", "stem.1.weight", "norm.weight", "head.fc.weight"]
    text = message(tmp_path, {name: np.ones(3, "f4") for name in names})
    assert "depthwise convolutions (ConvNeXt)" in text and "`transfg weights`" in text


def test_a_few_own_names_make_no_own_file(tmp_path):
    """Less than half of the names, or only together names of several architectures."""
    few = {f"stages.0.blocks.{i}.mlp.fc1.weight": np.ones((2, 2), "f4") for i in range(4)}
    few |= {f"other.{i}.weight": np.ones(2, "f4") for i in range(5)}
    mixed = {f"stages.{i}.blocks.0.norm1.weight": np.ones(2, "f4") for i in range(4)}
    mixed |= {f"layer{i}.0.conv1.weight": np.ones((2, 2, 1, 1), "f4") for i in range(1, 5)}
    mixed |= {"other.weight": np.ones(2, "f4")}
    for arrays in (few, mixed):
        assert "or this project, found" in message(tmp_path, arrays)


def test_swin_v2_of_transformers(tmp_path):
    """Its names are those of Swin, except for its positions and scales."""
    table = "relative_position_bias_table"
    arrays = {n: a for n, a in FORMS["transformers swin"].items() if not n.endswith(table)}
    place = "swinv2.encoder.layers.0.blocks.0.attention.self."
    arrays = {name.replace("swin.", "swinv2."): a for name, a in arrays.items()}
    assert place + "query.weight" in arrays
    for name in ("logit_scale", "continuous_position_bias_mlp.0.weight"):
        text = message(tmp_path, arrays | {place + name: np.ones((2, 1, 1), "f4")})
        assert f"continuous relative positions (Swin V2): {place}{name}" in text


@pytest.mark.parametrize("module", ["cpb_mlp.0.weight", "logit_scale"])
def test_swin_v2_of_microsoft_timm_and_torchvision(tmp_path, module):
    for key in ("microsoft swin", "timm swin", "torchvision swin"):
        tables = [name for name in FORMS[key] if name.endswith("relative_position_bias_table")]
        arrays = {name: a for name, a in FORMS[key].items() if name not in tables}
        arrays |= {n.rpartition(".")[0] + f".{module}": np.ones((2, 2), "f4") for n in tables}
        assert "continuous relative positions (Swin V2)" in message(tmp_path, arrays), key


def test_the_scale_of_clip_is_not_that_of_swin_v2(tmp_path):
    names = ["logit_scale", "vision_model.pre_layrnorm.weight", "text_model.embeddings.weight"]
    text = message(tmp_path, {name: np.ones(3, "f4") for name in names})
    assert "CLIP" in text and "Swin V2" not in text


@pytest.mark.parametrize("key", FORMS)
def test_two_models_in_one_file(tmp_path, key):
    """As a run's own and its averaged parameters."""
    arrays = FORMS[key]
    both = {f"{who}.{name}": a for who in ("model", "model_ema") for name, a in arrays.items()}
    text = message(tmp_path, both)
    assert "expected one model, found 2 (model" in text and "model_ema" in text
    assert "save the arrays of one model in a file of its own" in text
