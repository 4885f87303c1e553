"""The words of the page: both languages, the same names in both, no unused and no absent key."""

import re
import string
from pathlib import Path

import pytest

from transfg.demo import limits, panels
from transfg.demo.text import LANGUAGES, Text, breakable, escape, table

FOLDER = Path(panels.__file__).parent


def fields(text):
    return sorted(name for _, name, _, _ in string.Formatter().parse(text) if name)


@pytest.mark.parametrize("key", table())
def test_both_languages_have_every_key_and_the_same_names(key):
    texts = table()[key]
    assert tuple(texts) == LANGUAGES and all(texts.values())
    assert len({tuple(fields(text)) for text in texts.values()}) == 1
    words = re.search(r"[a-z]{3}", re.sub(r"\{\w+\}", "", texts["en"]))
    if words and texts["zh"] != texts["en"] and not key.startswith("other_"):
        assert re.search(r"[\u4e00-\u9fff]", texts["zh"])


def test_every_key_is_used_and_every_used_key_exists():
    """Keys made of a part, such as `error_` and a code, count by their part."""
    source = "".join(path.read_text("utf-8") for path in FOLDER.glob("*.py"))
    used = set(re.findall(r'text(?:\.plain|\.has)?\(\s*["\']([a-z_]+)["\']', source))
    assert {key for key in used if not key.endswith("_")} <= table().keys()
    named = set(re.findall(r"[\"']([a-z_]+)[\"']", source))
    made = ("error_", "chosen_", "accuracy_", "place_")
    ends = ("_hint",)
    unused = {
        key
        for key in table()
        if key not in named and not key.startswith(made) and not key.endswith(ends)
    }
    assert unused <= {"torch", "jittor", "scores", "rollout", "grad_cam", "saliency"}


def test_every_code_of_an_error_has_a_message():
    source = "".join(path.read_text("utf-8") for path in FOLDER.glob("*.py"))
    codes = set(re.findall(r'(?:BadRequest|Refused|WorkerGone)\(\s*"(\w+)"', source))
    codes |= set(re.findall(r'(?:"error": |error=)"(\w+)"', source))
    assert len(codes) >= 10
    assert {f"error_{code}" for code in codes} == {
        key for key in table() if key.startswith("error_") and key != "error_title"
    }
    assert set(panels.FROM_THE_PICTURE) <= codes


def test_texts_are_safe_in_html_and_in_templates():
    nasty = "<b> \"x\" 'y' & ${z} {{w}} `v`"
    shown = escape(nasty)
    assert not set(shown) & set("<>\"'{}$`")
    assert escape("红嘴蓝鹊") == "红嘴蓝鹊"
    assert Text("en")("data_value", name="<i>", classes=3) == "&lt;i&gt;, 3 classes"


def test_names_break_at_their_seams():
    assert breakable("004.Dune_Pipit") == "004.<wbr>Dune_<wbr>Pipit"
    assert breakable("_<a>_b") == "_&lt;a&gt;_<wbr>b"


def test_limits_are_named_in_the_text():
    said = Text("zh").plain("limits", megabytes=limits.MEGABYTES, megapixels=limits.MEGAPIXELS)
    assert "20 MB" in said and "50" in said
