"""The model card: every number with what it was measured on, and text that stays text."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from models_of_export import FACTS, model_of
from PIL import Image

from transfg_core.data.transforms import eval_transform
from transfg_core.export.card import code, escape, model_card

FILES = ("model.safetensors", "config.json")


def card(name="transfg", files=FILES, sections=None, **facts):
    return model_card(model_of(name, **(sections or {})), FACTS | facts, files)


def front_matter(text):
    _, head, _ = text.split("---\n", 2)
    return yaml.safe_load(head)


def test_the_hub_reads_its_front_matter():
    for name, library in (("transfg", "transfg"), ("vit", "timm")):
        found = front_matter(card(name))
        assert found["library_name"] == library and "license" not in found
        assert found["pipeline_tag"] == "image-classification"
        assert ("timm" in found["tags"]) == (name == "vit")
    assert "onnx" in front_matter(card(files=(*FILES, "model.onnx")))["tags"]


def test_every_number_with_its_source():
    text = card()
    for expected in (
        "| top-1 accuracy | 87.65 % | test split of `cub`, 123 images |",
        "| top-5 accuracy | 99.00 % |", "| cross-entropy | 0.4321 |",
        "Run: `trial`, checkpoint `best.safetensors`", "Length: update 40 of 50", "seed 7",
        "Commit of the program: `0123abc` with changes that were not committed",
        "Data: `cub`, split official", f"SHA-256 `{'f' * 64}`", "Parameters: 1,234",
        "pixels as stored, resize, crop",
    ):  # fmt: skip
        assert expected in text, expected
    assert "part" not in text.partition("## Training")[0].partition("## Numbers")[2]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ("test", "the accuracy is too high by an unknown amount"),
        ("validation", "chosen on validation images, which are not in the test split"),
        (None, "No accuracy chose this step"),
    ],
)
def test_how_the_step_was_chosen(chosen, expected):
    text = card(chosen_on=chosen)
    assert expected in text
    assert ("too high" in text) == (chosen == "test")


def test_without_a_test():
    assert "No test of this step is known" in card(accuracy={}, chosen_on=None)


def test_cautions():
    text = card(sections={"data": {"box_crop": True}}, caution="12 test images are <known>")
    assert "**Caution:** 12 test images are \\<known\\>" in text
    assert "cut each image to the data set's box" in text


def test_names_stay_text():
    text = card(run="a`b\n# c", checkpoint="x")
    assert "cat \\*and\\* dog" in text and "élan" in text
    assert "# a\\`b \\# c" in text and "\n# c" not in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b", "a_b"),
        ("__a__ _b", r"\_\_a\_\_ \_b"),
        ("- x", r"\- x"),
        ("1. x", r"1\. x"),
        ("001.Alder", "001.Alder"),
        ("a\u202eb\x1b", "a\ufffdb\ufffd"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("<b>|`&", r"\<b\>\|\`\&"),
    ],
)
def test_text_that_markdown_shows_as_it_is(text, expected):
    assert escape(text) == expected


def test_code_stays_one_cell_and_is_never_empty():
    assert code("a`|\n\u202eb") == "`a'¦ \ufffdb`" and code(" ") == "`?`"


def test_how_to_load_it():
    assert "timm.create_model" in card("vit") and "timm cannot hold" not in card("vit")
    text = card("transfg")
    assert "timm.create_model" not in text
    assert "timm cannot hold this model: expected model.placement none, found transfg" in text
    onnx = card(files=(*FILES, "model.onnx"))
    assert "(batch, 32, 40, 3)" in onnx and "part_index" in onnx
    assert "part_index" not in card("vit", files=(*FILES, "model.onnx"))


@pytest.mark.parametrize("resize", [None, [50, 60], 47, 41])
@pytest.mark.parametrize("size", [(61, 83), (84, 62), (40, 70)])
def test_the_code_for_onnx_crops_as_evaluations_do(tmp_path, monkeypatch, resize, size):
    """The code in the card, with another session in place of that of ONNX Runtime."""
    sections = {"data": {"resize": resize, "interpolation": "bicubic"}}
    text = card(files=(*FILES, "model.onnx"), sections=sections)
    code = text.partition("import json")[2].partition("```")[0]
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photograph.png")
    crops = []

    class Session:
        def __init__(self, path):
            assert path.endswith("model.onnx")

        def run(self, names, inputs):
            crops.append(inputs["images"])
            return (np.eye(5)[2],)

        def get_modelmeta(self):
            return SimpleNamespace(custom_metadata_map={"classes": '["a", "b", "c"]'})

    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(InferenceSession=Session))
    place = str(tmp_path / "photograph.png")
    exec("import json" + code.replace("photograph.jpg", place), {})  # our own code
    expected = eval_transform(Image.fromarray(pixels), model_of("vit", **sections).config.data)
    assert np.array_equal(crops[0][0], expected)
