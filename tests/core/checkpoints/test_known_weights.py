"""The table of public weights: its facts fit one another, the program and the experiments."""

import math
from pathlib import Path

import pytest

from transfg_core.checkpoints.known import find_weights, known_weights, weights_at
from transfg_core.config.loading import load_config
from transfg_core.config.vit import VitConfig
from transfg_core.errors import UserError
from transfg_core.models.layout import param_shapes

ROOT = Path(__file__).parents[3]
ROWS = {row.name: row for row in known_weights()}


@pytest.mark.parametrize("name", ROWS)
def test_size_of_the_file_is_that_of_the_architecture(name):
    """Four bytes for each parameter; a row with a wrong architecture, head or size fails."""
    row = ROWS[name]
    model = VitConfig(size=row.size, patch=row.patch, placement="none", classes=row.head or 2)
    shapes = param_shapes(model, (row.image, row.image))
    kept = [shape for name, shape in shapes.items() if row.head or not name.startswith("head.")]
    if row.hub == "google/vit-base-patch16-224-in21k":
        kept += [(768, 768), (768,)]  # the pooler, which is not part of the network
    assert row.megabytes == pytest.approx(4e-6 * sum(map(math.prod, kept)), rel=0.004)


@pytest.mark.parametrize("name", ROWS)
def test_commands_put_the_file_where_it_is_expected(name):
    row = ROWS[name]
    assert (row.hub is None) != (row.address is None) and row.url.startswith("https://")
    assert weights_at(row.path) is row and find_weights(name) == [row]
    commands = [command for _, command in row.commands()]
    folder = str(Path(row.path).parent)
    assert all(row.path in c or f"--local-dir {folder}" in c for c in commands)
    assert all(row.file in command for command in commands)
    mirrored = [command for command in commands if "https://hf-mirror.com" in command]
    assert len(mirrored) == (2 if row.hub else 0)


def test_rows_by_architecture():
    assert {row.name for row in find_weights("b/8")} == {"vit_base_patch8_224.augreg_in21k"}
    assert {row.size for row in find_weights("ViT-L/16")} == {"L"}
    assert len(find_weights("B")) > 5
    assert find_weights("google/vit-base-patch16-224") == [ROWS["vit-base-patch16-224"]]
    with pytest.raises(UserError, match="no known weights .*; the nearest is vit_base_patch16"):
        find_weights("vit_base_patch16_224.orig_in22k")


def test_rows_by_place():
    row = ROWS["vit_base_patch16_224.dino"]
    assert weights_at(f"/else/where/{row.name}/model.safetensors") is row
    assert weights_at("data/weights/model.safetensors") is None
    assert weights_at("anywhere/vit_b_16-c867db91.pth") is ROWS["torchvision.vit_b_16"]


def test_experiments_name_weights_that_can_be_had():
    named = set()
    for path in sorted((ROOT / "configs").glob("*/*.yaml")):
        config = load_config(path)
        # the second is made here, by configs/tiny_imagenet/vit.yaml
        if config.model.pretrained not in (None, "data/weights/ViT-tiny_imagenet.npz"):
            row = weights_at(config.model.pretrained)
            assert row and row.path == config.model.pretrained, path
            assert (row.size, row.patch) == (config.model.size, config.model.patch), path
            assert f"transfg weights {row.name}" in path.read_text(encoding="utf-8"), path
            named.add(path.name)
    assert len(named) >= 4
