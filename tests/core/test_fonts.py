"""Names in any script: every character has a glyph, or its number stands in its place."""

import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from transfg_core import fonts
from transfg_core.explain.drawing import part_picture
from transfg_core.models.rows import PartGrid

CHINESE = ("麻雀", "喜鹊", "䴙䴘", "白鹡鸰", "紅嘴藍鵲")  # also rare and traditional characters
OTHERS = ("すずめ", "スズメ", "Pájaro", "House_Sparrow")
MATPLOTLIBS = ("Воробей", "Σπουργίτι", "عصفور", "Vrabec domácí")


@pytest.fixture
def no_system_fonts(monkeypatch, tmp_path):
    """A machine without fontconfig."""
    monkeypatch.setenv("PATH", str(tmp_path))
    fonts.font_of.cache_clear()
    yield
    fonts.font_of.cache_clear()


def is_drawn(pieces):
    """Whether every character has a glyph: FreeType's picture differs from that of a missing one,
    and from that of the other characters."""
    for text, font in pieces:
        missing = bytes(font.getmask("\uffff"))
        masks = {char: bytes(font.getmask(char)) for char in text}
        if missing in masks.values() or len(set(masks.values())) < len(masks):
            return False
    return True


@pytest.mark.parametrize("name", [*CHINESE, *OTHERS, "麻雀 (taken for 喜鹊)"])
def test_without_system_fonts_the_bundled_one_draws_chinese(no_system_fonts, name):
    pieces = fonts.pieces(name, 15)
    assert "".join(text for text, _ in pieces) == name
    assert is_drawn(pieces)


@pytest.mark.parametrize("name", MATPLOTLIBS)
def test_matplotlibs_font_draws_more(no_system_fonts, name):
    pytest.importorskip("matplotlib", reason="the report extra is not installed")
    pieces = fonts.pieces(name, 15)
    assert [text for text, _ in pieces] == [name]  # in one font, not letter by letter
    assert is_drawn(pieces)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("นก", "\\u0e19\\u0e01"),
        ("bird 🐦", "bird \\U0001f426"),
        ("a\nb\x1b", "a\\nb\\x1b"),
        ("\udcff", "\\udcff"),  # a byte of a file name that is no UTF-8
        ("", ""),
    ],
)
def test_what_no_font_has_is_written_as_a_number(no_system_fonts, name, shown):
    assert fonts.readable(name) == shown
    pieces = fonts.pieces(name, 15)
    assert "".join(text for text, _ in pieces) == shown and is_drawn(pieces)


def test_a_font_of_the_system_draws_what_the_others_lack(monkeypatch, tmp_path):
    """fontconfig's answer is used if that font has the character, and only then."""
    given = tmp_path / "fc-match"
    given.write_text(f'#!/bin/sh\ncase "$*" in *charset=ac00*) printf %s {fonts.BUNDLED};; esac\n')
    given.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(fonts, "own_fonts", lambda: (fonts.PILLOW,))
    monkeypatch.setattr(fonts, "has_glyph", lambda path, char: path == str(fonts.BUNDLED))
    fonts.font_of.cache_clear()
    assert fonts.font_of("가") == str(fonts.BUNDLED)
    assert fonts.font_of("각") is None
    fonts.font_of.cache_clear()


def test_a_broken_system_font_is_passed_over(monkeypatch, tmp_path):
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"\0" * 100)
    assert not fonts.has_glyph(str(broken), "a")


def test_an_accent_stays_with_its_letter():
    pieces = fonts.pieces("雀e\u0301", 15)
    assert [text for text, _ in pieces] == ["雀", "e\u0301"]


def test_a_long_title_is_cut_to_the_width():
    whole = fonts.pieces("喜鹊" * 3, 15)
    assert fonts.shorten("喜鹊" * 3, 15, fonts.width_of(whole)) == whole
    cut = fonts.shorten("喜鹊" * 40, 15, 100)
    text = "".join(piece for piece, _ in cut)
    assert text.endswith("喜…") or text.endswith("鹊…")
    assert 80 < fonts.width_of(cut) <= 100
    assert fonts.shorten("喜鹊", 15, 3) == []


def test_pictures_of_two_names_differ_and_have_no_boxes():
    """The title in the picture is that of the bundled font, pixel by pixel."""
    grey = np.full((1, 64, 64, 3), 200, np.uint8)
    strips = []
    for name in CHINESE:
        picture = part_picture(
            grey, np.ones((1, 1), int), None, PartGrid(8, 8, 8, 8), titles=[name]
        )
        strips.append(np.asarray(picture)[16:38, 16:-16])
        expected = Image.new("RGB", (256, 22), "white")
        font = ImageFont.truetype(fonts.BUNDLED, 15)
        ImageDraw.Draw(expected).text((0, 15), name, fill=(34, 34, 34), font=font, anchor="ls")
        assert (strips[-1] == np.asarray(expected)).all()
        assert (strips[-1] < 128).sum() > 100
    assert len({strip.tobytes() for strip in strips}) == len(CHINESE)


def test_the_licence_lies_next_to_the_font():
    folder = fonts.BUNDLED.parent
    assert "Apache License, Version 2.0" in (folder / "NOTICE.txt").read_text()
    assert "Version 2.0, January 2004" in (folder / "LICENSE.txt").read_text()


def test_fonts_do_not_import_matplotlib():
    """Pictures of parts need Pillow alone."""
    import subprocess

    code = "import sys; from transfg_core import fonts; fonts.pieces('雀', 15); "
    code += "sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
