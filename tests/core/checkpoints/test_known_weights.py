"""The table of public weights: its facts fit one another, the program and the experiments."""

import math
from pathlib import Path

import pytest

from transfg_core.catalogue import Entry, catalogue
from transfg_core.checkpoints.known import HYBRIDS, find_weights, known_weights, weights_at
from transfg_core.config.loading import build_config, load_config
from transfg_core.config.stem import STEMS
from transfg_core.config.vit import SIZES, VitConfig
from transfg_core.errors import UserError
from transfg_core.models.layout import param_shapes

ROOT = Path(__file__).parents[3]
ROWS = {row.name: row for row in known_weights()}


def model_of(row):
    """The plain model that a row describes."""
    tree = dict(row.settings) | {"classes": row.head or 2}
    tree |= {"placement": "none"} if row.model == "vit" else {}
    return build_config({"model": tree, "data": {"crop": row.image}}, row.name).model


def buffer_bytes(row):
    """What a Swin's file holds beside its parameters: indices of pairs (int64) and masks."""
    if row.model != "swin":
        return 0
    model, pairs = model_of(row), row.window**4
    total = 8 * pairs * sum(model.depths)
    for stage, depth in enumerate(model.depths):
        windows = (row.image // 4 // 2**stage // row.window) ** 2
        masked = depth // 2 if windows > 1 and not row.name.startswith("torchvision") else 0
        total += 4 * pairs * windows * masked
    return total


@pytest.mark.parametrize("name", ROWS)
def test_size_of_the_file_is_that_of_the_architecture(name):
    """Four bytes for each parameter; a row with a wrong architecture, head or size fails."""
    row = ROWS[name]
    shapes = param_shapes(model_of(row), (row.image, row.image))
    kept = [shape for name, shape in shapes.items() if row.head or not name.startswith("head.")]
    if row.hub == "google/vit-base-patch16-224-in21k":
        kept += [(768, 768), (768,)]  # the pooler, which is not part of the network
    expected = 4e-6 * sum(map(math.prod, kept)) + 1e-6 * buffer_bytes(row)
    assert row.megabytes == pytest.approx(expected, rel=0.004, abs=0.5)  # a whole number


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
    assert {row.window for row in find_weights("swin-b")} == {7, 12}
    assert {row.size for row in find_weights("Swin")} == {"T", "S", "B", "L"}
    assert all(row.window == 12 for row in find_weights("Swin-B/w12"))
    assert find_weights("google/vit-base-patch16-224") == [ROWS["vit-base-patch16-224"]]
    with pytest.raises(UserError, match="no known weights .*; the nearest is vit_base_patch16"):
        find_weights("vit_base_patch16_224.orig_in22k")


def test_names_of_hybrids_are_the_same_everywhere():
    """In the weights, in `transfg models` and in the text of the configuration."""
    published = {stem for stem in STEMS if not stem.startswith("tiny")}
    assert HYBRIDS.keys() == published and {row.stem for row in ROWS.values()} <= {"", *HYBRIDS}
    models = {entry.name: entry.config().model for entry in catalogue()}
    text = " ".join((VitConfig.__doc__ or "").split())
    for stem, name in HYBRIDS.items():
        model = models[name]
        assert model.stem == stem, name
        size = name.partition("+")[2].partition("/")[0]
        assert (model.width, model.depth) == (SIZES[size][0], SIZES[size][2]), name
        assert f"{name} is {size}, {stem}" in text, name
    with_stems = {
        name for name, model in models.items() if getattr(model, "stem", "none") in HYBRIDS
    }
    assert with_stems == set(HYBRIDS.values())


def test_weights_of_a_plain_model_do_not_fit_a_hybrid():
    plain = Entry(name="B/8", model={"placement": "none", "size": "B", "patch": 8}, image=224)
    assert [row.patch for row in plain.weights()] == [8]
    hybrid = plain.model_copy(update={"model": plain.model | {"stem": "r_s4"}})
    assert hybrid.config().model.stem == "r_s4" and hybrid.weights() == []


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
            settings = {key: getattr(config.model, key) for key in row.settings if key != "name"}
            assert settings == {k: v for k, v in row.settings.items() if k != "name"}, path
            # a plain row sets no stem, but does not fit a model with one
            assert getattr(config.model, "stem", "none") == (row.stem or "none"), path
            assert f"transfg weights {row.name}" in path.read_text(encoding="utf-8"), path
            named.add(path.name)
    assert len(named) >= 4
