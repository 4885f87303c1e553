"""Each value of an export's config.json replaced by hostile ones: a message, or plain text.

The card is read by a Markdown parser, the page of `transfg demo` by an HTML parser.
"""

import json
import random
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt
from models_of_export import model_of

from transfg.demo.facts import rows_of
from transfg.demo.text import Text
from transfg_core.errors import UserError
from transfg_core.export.card import model_card
from transfg_core.export.config_json import config_json, published_facts
from transfg_core.export.folder import export
from transfg_core.inference.facts import facts_of
from transfg_core.inference.source import read_model

BLOCK = "torch\n\n# injected\n<img src=x>\n- injected\n"
LINE = "| a | <b> [a](b) ![a](b) <https://a.b> *a* __a__ `a` ~~a~~ &lt; $a$ {value} <!-- "
BIDI = "a\u202e\u2066\u200fb"
VALUES = [json.dumps(value) for value in (
    None, True, False, 0, 1, -1, -3, 5, 0.5, -0.5, 1e308, 2**31, 2**53, 2**53 + 1, 2**64, 10**400,
    -(10**400), "", " ", "x" * 5000, BLOCK, LINE, LINE * 200, BIDI, "\x1b[31m", "\0", "\x85",
    "\ud800", "`", "a``b", "says", "input_value", "a\n", "0" * 64, "- x", "+ x", "1. x", "---",
    "-dirty", "===", "> x", "    x", [], [1], [None], [BLOCK], ["\ud800"], [[]], {}, {"name": 1},
    {BLOCK: BLOCK}, {"\x1b[31m": 1}, {"\ud800": 1}, {"file": BLOCK}, {"top1": 10**400},
    {"top1": None},
)] + ["NaN", "-Infinity", "1e999", "-1e999", "[" * 13 + "]" * 13, "[" * 10**5]  # fmt: skip
ALL_VALUES = ("facts", "label_names", "format", "program", "names", "sha256", "backend", "position")
SAMPLED = 4  # of the values, at every other place
HEADINGS = ["Numbers", "Training", "Use", "Limits", "Classes"]


def places(tree, keys=()):
    """The keys of every value, a table or list among them."""
    if keys:
        yield keys
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from places(value, (*keys, key))


def with_value(text, keys, value):
    """The JSON text with the value at `keys` replaced by another JSON text."""
    tree = json.loads(text)
    inner = tree
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = "@VALUE@"
    return json.dumps(tree).replace('"@VALUE@"', value)


class Tags(HTMLParser):
    """The tags of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags = set()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)


def check_card(card, name):
    """The card has its own headings, tables and lists, and nothing else that is not text."""
    assert all(c.isprintable() or c in "\n\u200c\u200d" for c in card), name
    parsed = MarkdownIt("commonmark").enable("table").parse(card.split("---\n", 2)[2])
    kinds = [token.type for token in parsed]
    assert not {"html_block", "hr", "blockquote_open", "code_block"} & set(kinds), name
    assert kinds.count("bullet_list_open") == 2 and "ordered_list_open" not in kinds, name
    found = [parsed[k + 1].content for k, kind in enumerate(kinds) if kind == "heading_open"]
    assert found[1:] == HEADINGS, name
    inline = {child.type for token in parsed for child in token.children or ()}
    assert inline <= {"text", "code_inline", "strong_open", "strong_close", "text_special"}, inline
    rows = [line.count(" | ") for line in card.split("\n") if line.startswith("| ")]
    assert set(rows) <= {2}, name


def check_page(model):
    """The rows of the page have only the page's own tags."""
    seen = model.config.data.model_dump(mode="json", include={"crop", "resize"})
    described = {"facts": facts_of(model), "cautions": model.cautions(), "input": seen}
    for language in ("en", "zh"):
        page = "".join(value for _, value in rows_of(Text(language), described, "a"))
        assert Tags(page).tags <= {"br", "button", "span", "b"}


def outcome(folder):
    """`refused` by a message, or `read`: then the card and the page are checked."""
    try:
        model = read_model(folder)
    except UserError as error:
        assert "\x1b" not in str(error) and "\0" not in str(error)
        str(error).encode()
        return "refused"
    facts = published_facts(facts_of(model))
    card = model_card(model, facts, ["model.safetensors", "config.json", "model.onnx"])
    card.encode()
    check_card(card, folder)
    config_json(model, facts, "0" * 64)
    check_page(model)
    return "read"


@pytest.mark.parametrize("name", ["vit", "transfg"])
def test_hostile_values(tmp_path, name):
    export(model_of(name), tmp_path / "out", onnx=False, overwrite=False)
    path = tmp_path / "out" / "config.json"
    text = path.read_text(encoding="utf-8")
    assert outcome(tmp_path / "out") == "read"
    rng = random.Random(20)
    outcomes = {"read": 0, "refused": 0}
    failed = []
    for keys in places(json.loads(text)):
        is_ours = keys[0] == "label_names" or (len(keys) > 1 and keys[1] in ALL_VALUES)
        every = is_ours and name == "vit"
        for value in VALUES if every else rng.sample(VALUES, SAMPLED):
            path.write_text(with_value(text, keys, value), encoding="utf-8")
            try:
                outcomes[outcome(tmp_path / "out")] += 1
            except Exception as error:  # all of them are shown together
                failed.append(f"{'.'.join(map(str, keys))} = {value[:60]}: {error!r:.200}")
    assert not failed, f"{len(failed)} failed:\n" + "\n".join(failed[:40])
    assert outcomes["read"] > 100 and outcomes["refused"] > 300, outcomes
