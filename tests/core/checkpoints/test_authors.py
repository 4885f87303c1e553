"""The published program's names against golden files."""

from pathlib import Path

import numpy as np
import pytest

from transfg_core.checkpoints.authors import AUTHORS, to_canonical
from transfg_core.checkpoints.pretrained import load_pretrained
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
    shapes = {to_canonical(name): array.shape for name, array in arrays.items()}
    assert shapes == dict(param_shapes(MODEL, (38, 38))) and len(shapes) == len(arrays)


def test_table_covers_the_model():
    two = VitConfig(depth=2, classes=2)  # one block in front, one part layer
    assert len(AUTHORS.rows) == len(param_shapes(two, (8, 8)))


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


def test_a_checkpoint_is_loaded_whole():
    """Part layer, part norm and head included, whatever the settings for plain weights say."""
    arrays, report = load_pretrained(str(GOLDEN / "overlap_checkpoint.bin"), MODEL, (38, 38))
    expected = {to_canonical(name): array for name, array in trained().items()}
    assert arrays.keys() == expected.keys() and not report.initialised and not report.ignored
    assert all(arrays[name].shape == expected[name].shape for name in expected)
    assert report.origin.form == "TransFG's published program"
    plain = MODEL.model_copy(update={"placement": "none"})
    with pytest.raises(UserError, match="found one with part selection; set model.placement="):
        load_pretrained(str(GOLDEN / "overlap_checkpoint.bin"), plain, (38, 38))
