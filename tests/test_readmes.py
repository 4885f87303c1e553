"""The two READMEs say the same: commands, tables, links, pictures and headings."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENGLISH = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")


def blocks(text):
    """Fenced blocks with their language; comments are translated, so they are left out."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [(kind, [line.split("  #")[0] for line in body.splitlines()]) for kind, body in found]


def prose(text):
    """The text without fenced blocks."""
    return re.sub(r"^```.*?^```\n", "", text, flags=re.MULTILINE | re.DOTALL)


def tables(text):
    """Tables as rows of cells, each cell as its codes and numbers: words are translated."""
    groups = re.findall(r"(?:^\|.*\n)+", prose(text), re.MULTILINE)
    return [[facts(row) for row in group.splitlines()[2:]] for group in groups]


def facts(text):
    codes = re.findall(r"`[^`]+`", text)
    return sorted(codes), sorted(re.findall(r"\d[\d.,:]*\d|\d", re.sub(r"`[^`]+`", "", text)))


def links(text):
    """Targets of links and pictures, without those to the other README and inside the page."""
    targets = re.findall(r"\]\(([^)#]+)\)", prose(text))
    return [target for target in targets if not target.startswith("README")]


def codes_by_section(text):
    """Inline code of each section, without repetitions."""
    return [
        set(re.findall(r"`([^`]+)`", part)) for part in re.split(r"^## ", prose(text), flags=re.M)
    ]


def test_commands_are_the_same():
    assert blocks(ENGLISH) == blocks(CHINESE)
    assert len(blocks(ENGLISH)) > 8


def test_tables_are_the_same():
    assert tables(ENGLISH) == tables(CHINESE)
    assert len(tables(ENGLISH)) >= 3


def test_links_and_pictures_are_the_same():
    assert sorted(links(ENGLISH)) == sorted(links(CHINESE))


def test_headings_have_the_same_levels():
    levels = [re.findall(r"^#+(?= )", prose(text), re.MULTILINE) for text in (ENGLISH, CHINESE)]
    assert levels[0] == levels[1]


@pytest.mark.parametrize("section", range(len(codes_by_section(ENGLISH))))
def test_each_section_names_the_same_settings(section):
    assert codes_by_section(ENGLISH)[section] == codes_by_section(CHINESE)[section]


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_links_lead_to_files(name):
    text = ENGLISH if name == "README.md" else CHINESE
    local = [target for target in links(text) if not target.startswith("http")]
    assert local and all((ROOT / target).exists() for target in local)


def test_a_difference_is_found():
    """The comparison sees a changed command, a changed number and a lost setting."""
    assert blocks("```sh\na b\n```\n") != blocks("```sh\na c\n```\n")
    row = "| h |\n| - |\n| `x` 1.5 |\n"
    assert tables(row) != tables(row.replace("1.5", "1.6"))
    assert tables(row) != tables(row.replace("`x`", "x"))
    assert codes_by_section("## A\n`x`") != codes_by_section("## A\n")
