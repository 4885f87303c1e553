"""The published program's names against golden files, and what shapes tell."""

from pathlib import Path

import numpy as np
import pytest

from transfg_core.checkpoints.authors import (
    NAMES,
    convert_arrays,
    infer_architecture,
    to_canonical,
)
from transfg_core.config.vit import VitConfig
from transfg_core.errors import UserError
from transfg_core.models.layout import param_shapes

GOLDEN = Path(__file__).parents[3] / "parity" / "cases" / "golden"
MODEL = VitConfig(width=24, heads=2, depth=4, mlp=40, patch=8, stride=6, classes=7)


def trained() -> dict[str, np.ndarray]:
    """The published program's parameters after six updates, by its own names."""
    with np.load(GOLDEN / "overlap_trace.npz") as trace:
        return {
            name.removeprefix("after/"): trace[name]
            for name in trace.files
            if name.startswith("after/")
        }


def test_golden_names_map_one_to_one():
    arrays = trained()
    converted = convert_arrays(arrays)
    assert {name: array.shape for name, array in converted.items()} == dict(
        param_shapes(MODEL, (38, 38))
    )
    assert [to_canonical(name) for name in arrays] == list(converted)
    for old, new in zip(arrays, converted, strict=True):
        assert np.array_equal(arrays[old], converted[new])


def test_table_covers_the_model():
    two = VitConfig(depth=2, classes=2)  # one block in front, one part layer
    assert len(NAMES) == len(param_shapes(two, (8, 8)))


@pytest.mark.parametrize(
    ("published", "canonical"),
    [
        ("transformer.encoder.layer.11.ffn.fc1.bias", "blocks.11.mlp.fc1.bias"),
        ("transformer.encoder.layer.0.ffn_norm.weight", "blocks.0.norm2.weight"),
        ("transformer.encoder.layer.3.attention_norm.bias", "blocks.3.norm1.bias"),
        ("transformer.encoder.part_layer.attn.out.weight", "part_layer.attn.out.weight"),
        ("transformer.encoder.part_norm.bias", "part_norm.bias"),
        ("part_head.weight", "head.weight"),
        ("transformer.embeddings.position_embeddings", "pos_embed"),
    ],
)
def test_names(published, canonical):
    assert to_canonical(published) == canonical


@pytest.mark.parametrize(
    "name",
    [
        "transformer.encoder.layer.03.ffn.fc1.bias",
        "transformer.encoder.layer.{i}.ffn.fc1.bias",
        "transformer.encoder.layer.ffn.fc1.bias",
        "part_head.weight.3.bias",
        "head.weight",
        "",
    ],
)
def test_unknown_names(name):
    with pytest.raises(UserError, match="unknown to the published program; the nearest name is"):
        to_canonical(name)


def test_nearest_name_keeps_the_block():
    with pytest.raises(UserError, match=r"is transformer\.encoder\.layer\.7\.attn\.query\.bias$"):
        to_canonical("transformer.encoder.layer.7.attn.qeury.bias")


def test_unknown_names_are_all_listed():
    with pytest.raises(UserError, match=r"(?s)2 problems.*foo.*bar"):
        convert_arrays({"foo": np.zeros(1), "bar": np.zeros(1)})


def test_architecture():
    found = infer_architecture({n: a.shape for n, a in convert_arrays(trained()).items()})
    assert found == (24, 4, 40, 8, 7, 37)
    assert "heads: not in the file" in found.describe()
    assert "36 patches, 6 x 6 if square" in found.describe()
    base = VitConfig(size="B", patch=16, stride=12, classes=200)
    assert "heads 12 (size B)" in infer_architecture(param_shapes(base, (448, 448))).describe()


def test_architecture_of_half_a_model():
    with pytest.raises(UserError, match=r"(?s)head.weight.*no such array.*pos_embed.*\(3,\)"):
        shapes = dict(param_shapes(MODEL, (38, 38))) | {"pos_embed": (3,)}
        shapes.pop("head.weight")
        infer_architecture(shapes)
