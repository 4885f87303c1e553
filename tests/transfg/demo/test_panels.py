"""The outcome as HTML, from answers that no model gave."""

import io
import re
from pathlib import Path

import pytest
from magenta import make_predictor
from PIL import Image

from transfg.demo import panels
from transfg.demo.answer import answer, describe
from transfg.demo.card import mapped, panel_card, patches_in_words, place
from transfg.demo.panels import agreement_line, decimal
from transfg.demo.service import Panel, compare
from transfg.demo.text import Text

EN, ZH = Text("en"), Text("zh")


def answer_with(shares, label="a"):
    return {"label": label, "probabilities": shares, "patches": [[1, 2]]}


def agreement(left, right):
    pair = (Panel("m_1", name, answer_with(s)) for name, s in (("torch", left), ("jittor", right)))
    return compare(*pair)


def test_frameworks_with_other_probabilities_do_not_agree():
    """The class and the patches are the same."""
    said = agreement_line(EN, agreement([0.95, 0.05], [0.51, 0.49]))
    assert "do not agree" in said and "tf-bad" in said
    assert "same class; different probabilities; same patches" in said
    said = agreement_line(EN, agreement([0.95, 0.05], [0.950002, 0.049998]))
    assert "PyTorch and Jittor agree: same class; same probabilities; same patches" in said
    assert "tf-good" in said


@pytest.mark.parametrize("shares", [[0.95, 0.05], [0.5, 0.5]])
def test_chinese_has_no_space_after_its_colon(shares):
    said = re.sub("<[^>]*>", "", agreement_line(ZH, agreement([0.95, 0.05], shares)))
    assert said.count("：") == 3 and "： " not in said and ": " not in said


def test_small_numbers_stay_in_one_line():
    assert decimal(3e-7) == "<\N{NO-BREAK SPACE}0.000001"
    assert (decimal(0), decimal(2.34e-6), decimal(0.44)) == ("0", "0.000002", "0.4")


def test_selected_patches_are_said_in_words():
    boxes = [[0.0, 0.0, 0.1, 0.1], [0.0, 0.0, 0.1, 0.1], [0.8, 0.4, 0.9, 0.5], [0.4, 0.9, 0.5, 1.0]]
    said = patches_in_words(EN, boxes)
    assert "3 selected patches" in said and "at the top left and on the right" in said
    assert place(1.0, 1.0) == "place_22" and place(0.9, 0.1) == "place_02"


def photographed(maps, **more):
    answer = {"size": [10, 20], "photo": "p", "maps": dict.fromkeys(maps, "m"), "boxes": None}
    answer |= {"peaks": dict.fromkeys(maps, [0.1, 0.9]), "crop": [0, 0, 1, 1], "label": "a_b"}
    answer |= {"top": [["a_b", 0.9]], "seen_turned": False, "model": "m_1"}
    return answer | {"seconds": dict.fromkeys(("decode", "classify", "explain"), 0.1)} | more


def test_a_model_without_the_chosen_map_says_which_one_it_shows():
    said = mapped(EN, photographed(["rollout"]), ["scores", "rollout"])
    note = re.search(r'<p class="tf-small" data-wanted="scores" hidden>(.*?)</p>', said)
    assert note and note[1] == "This model has no map “Selection”. Its map “Attention” is shown."
    assert "data-wanted" not in mapped(EN, photographed(["scores", "rollout"]), ["scores"])
    assert 'alt="Attention: a map over the photograph, strongest at the bottom left."' in said


@pytest.mark.parametrize("exif", ["ignore", "apply"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_picture_that_the_model_sees_turned_has_a_note(monkeypatch, exif, orientation):
    """From the file to the page."""
    monkeypatch.setattr("magenta.magenta", lambda pixels: pixels.mean(-1) + 1.0)
    predictor = make_predictor(
        "data.resize=72", "data.crop=64", "model.patch=8", f"data.exif={exif}"
    )
    tags = Image.Exif()
    tags[0x0112] = orientation
    file = io.BytesIO()
    Image.new("RGB", (80, 70), (90, 120, 60)).save(file, "JPEG", exif=tags)
    found = answer(predictor, file.getvalue(), pictures=True)
    card = panel_card(
        EN, Panel("m", "torch", found), describe(predictor), "p0", list(found["maps"])
    )
    turned = exif == "ignore" and orientation == 6
    assert (EN("turned") in card) is turned


def luminance(colour):
    """WCAG 2.2, "relative luminance"."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    """WCAG 2.2, "contrast ratio"."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [":root", ".dark"])
def test_borders_and_bars_can_be_seen(scheme):
    """WCAG 2.2, 1.4.11: 3 to 1."""
    style = (Path(panels.__file__).parent / "style.css").read_text("utf-8")
    block = re.search(re.escape(scheme) + r" \{(.*?)\}", style, re.S)[1]
    colour = dict(re.findall(r"--tf-(\w+): (#\w{6});", block))
    pairs = [("edge", "card"), ("edge", "paper"), ("bar", "rest"), ("accent", "card")]
    for pair in pairs:
        assert contrast(*(colour[name] for name in pair)) >= 3, pair
