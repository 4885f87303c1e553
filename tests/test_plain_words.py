"""Prose stays in the project's vocabulary: words that readers stumbled over do not come back.

CONTRIBUTING.md has the rule with examples, and CHANGELOG.md old names: these two may quote them.
"""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SUFFIXES = (".py", ".md", ".yaml", ".j2", ".cuh", ".h", ".cpp", ".cfg", ".toml")
QUOTING = ("CHANGELOG.md", "CONTRIBUTING.md", "tests/test_plain_words.py")
LONGEST = 120  # characters of a line in a page

# A word to avoid -> the word that says it.
WORDS = {
    r"rungs?": "stage",
    r"ladders?": "suite",
    r"anew": "again",
    r"likewise": "also, in the same way",
    r"thereof": "its",
    r"(?:go|goes|going|went) on": "resume, continue",
    r"(?:let|lets|letting) go": "free",
    r"(?:is|are|was|were) told": "named, said",
    r"told apart": "distinguished",
    r"trajector(?:y|ies)": "loss curves",
}
PATTERN = re.compile("|".join(rf"\b{word}\b" for word in WORDS), re.IGNORECASE)


def tracked(*suffixes: str) -> list[Path]:
    """The repository's text files, those that git does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    names = listed.stdout.split("\n") if listed.returncode == 0 else []
    paths = [ROOT / name for name in names] or list(ROOT.rglob("*"))
    return [path for path in paths if path.suffix in suffixes and path.is_file()]


def avoided(text: str) -> list[str]:
    """Each word to avoid in a text, with the number of its line."""
    lines = enumerate(text.splitlines(), 1)
    return [f"line {number}: {word}" for number, line in lines for word in PATTERN.findall(line)]


def test_words_to_avoid_are_found():
    text = "It climbs the ladder.\nA rungs-like thing goes on, computed anew."
    assert avoided(text) == ["line 1: ladder", "line 2: rungs", "line 2: goes on", "line 2: anew"]
    assert avoided("a renewed bladder, and so on") == []


def test_no_word_to_avoid():
    found = {}
    for path in tracked(*SUFFIXES):
        name = path.relative_to(ROOT).as_posix()
        words = avoided(path.read_text(encoding="utf-8"))
        if words and name not in QUOTING:
            found[name] = words
    assert not found, "\n".join(f"{name}: {'; '.join(words)}" for name, words in found.items())


PAGES = tracked(".md")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_lines_of_a_page_fit(page):
    """But for tables, commands in fences, and addresses that cannot be broken."""
    fenced = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fenced ^= line.lstrip().startswith("```")
        free = fenced or line.lstrip().startswith(("|", "![", "<!--")) or " " not in line.strip()
        assert free or len(line) <= LONGEST, f"line {number} has {len(line)} characters"
