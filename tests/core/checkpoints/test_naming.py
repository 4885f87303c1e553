"""Names of ResNet and Swin in other programs: those that the programs themselves have."""

import json
from pathlib import Path

import pytest
from foreign_namings import (
    RESNETS,
    SWINS,
    canonical_resnet,
    canonical_swin,
)

from transfg_core.checkpoints.naming import NAMINGS, Place

GOLDEN = json.loads((Path(__file__).parent / "golden/names.json").read_text(encoding="utf-8"))
RESNET = {kind: canonical_resnet(kind) for kind in ("basic", "bottleneck")}
SWIN = canonical_swin()
# the golden file's key -> the same model as that program stores it
STORED = {f"{key} {kind}": write(RESNET[kind]) for key, write in RESNETS.items() for kind in RESNET}
STORED |= {key: write(SWIN) for key, write in SWINS.items()}
OURS = {key: RESNET[key.split()[-1]] if "resnet" in key else SWIN for key in STORED}
TITLES = {
    "torchvision resnet": "timm and torchvision (ResNet)",
    "transformers resnet": "Hugging Face transformers (ResNet)",
    "microsoft swin": "microsoft/Swin-Transformer",
    "timm swin": "timm (Swin)",
    "torchvision swin": "torchvision (Swin)",
    "transformers swin": "Hugging Face transformers (Swin)",
}


def naming_of(keys):
    """The first that fits, as the loader takes it."""
    return next(naming for naming in NAMINGS if naming.bare_names(keys))


@pytest.mark.parametrize("key", [key for key in GOLDEN if key != "versions"])
def test_names_written_by_hand_are_the_programs_own(key):
    """Names and shapes, but for buffers that a program computes."""
    computed = ("num_batches_tracked", "relative_position_index")
    golden = {n: tuple(s) for n, s in GOLDEN[key].items() if not n.endswith(computed)}
    stored = {n: a.shape for n, a in STORED[key].items() if not n.endswith(computed)}
    assert stored == golden


@pytest.mark.parametrize("key", STORED)
def test_every_name_has_a_place_and_every_array_a_reason(key):
    naming = naming_of(STORED[key])
    assert naming.title == TITLES[key.removesuffix(" basic").removesuffix(" bottleneck")]
    bare = naming.bare_names(STORED[key])
    places = naming.places(OURS[key])
    assert places.keys() == OURS[key].keys()
    used = {place.key for place in places.values()}
    assert used <= bare.keys()
    assert all(naming.reason_to_ignore(name) for name in bare.keys() - used)
    if key in GOLDEN:
        names = naming.bare_names(GOLDEN[key])
        assert used <= names.keys()
        assert all(naming.reason_to_ignore(name) for name in names.keys() - used)


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "student.backbone."])
@pytest.mark.parametrize("key", STORED)
def test_a_prefix_of_any_name_is_removed(key, prefix):
    plain = naming_of(STORED[key])
    names = {prefix + name: value for name, value in STORED[key].items()}
    assert naming_of(names) is plain
    assert plain.bare_names(names).keys() == plain.bare_names(STORED[key]).keys()


def test_two_models_in_one_file_are_none():
    for key, arrays in STORED.items():
        both = {f"{who}.{name}": x for who in ("student", "teacher") for name, x in arrays.items()}
        assert not any(naming.bare_names(both) for naming in NAMINGS), key


def test_places():
    by_title = {naming.title: naming for naming in NAMINGS}
    timm = by_title["timm (Swin)"]
    assert timm.place("stages.1.blocks.0.attn.value.bias") == Place(
        "layers.1.blocks.0.attn.qkv.bias", 2, 3
    )
    assert timm.place("stages.1.merging.norm.bias") == Place("layers.2.downsample.norm.bias")
    assert timm.place("eaca.0.ea.weight") is None and timm.place("stages.x.merging.norm") is None
    face = by_title["Hugging Face transformers (ResNet)"]
    assert face.place("layer3.0.conv2.weight") == Place(
        "encoder.stages.2.layers.0.layer.1.convolution.weight"
    )
    torchvision = by_title["torchvision (Swin)"]
    assert torchvision.place("stages.2.blocks.5.mlp.fc2.bias") == Place("features.5.5.mlp.3.bias")
    assert torchvision.place("stages.2.merging.reduction.weight") == Place(
        "features.6.reduction.weight"
    )
