"""A font for every character of a label, in pictures and in curves.

Names come from folders, so they may be in any script. Pillow's own font has Latin letters, and
matplotlib's DejaVu Sans also Greek, Cyrillic and Arabic ones. The bundled Droid Sans Fallback
(NOTICE.txt) has Chinese and Japanese characters, with the rare ones in names of birds. For other
scripts fontconfig finds a font of this machine. A character that no font has is written as its
number, as Python does (\\u0e19), so that different names never look alike.
"""

import functools
import importlib.util
import subprocess
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from PIL import ImageFont

PILLOW = ""  # stands for the path of Pillow's own font
BUNDLED = Path(__file__).with_name("DroidSansFallbackFull.ttf")
ABSENT = "\uffff"  # no font has this noncharacter: its picture is that of a missing one
PROBE_SIZE = 20  # pixels
ELLIPSIS = "…"

Font = ImageFont.FreeTypeFont
Pieces = list[tuple[str, Font]]


def readable(text: str) -> str:
    """The text with a number in place of each character that cannot be drawn."""
    return "".join(char if font_of(char) is not None else escape(char) for char in text)


def escape(char: str) -> str:
    """The character's number, such as \\n, \\u0e19 or \\U0001f426."""
    return char.encode("unicode_escape").decode()


def shorten(text: str, size: int, width: float) -> Pieces:
    """The pieces of the longest beginning of the text that fits, with an ellipsis if it is cut.

    Args:
        size, width: pixels.
    """
    drawn = pieces(text, size)
    while text and width_of(drawn) > width:
        text = text[:-1]
        drawn = pieces(text + ELLIPSIS, size) if text else []
    return drawn


def pieces(text: str, size: int) -> Pieces:
    """The text in pieces of one font each, to be drawn from left to right.

    If one font has all characters, it draws the whole text. An accent stays with its letter.
    """
    text = readable(text)
    for path in own_fonts():
        if all(has_glyph(path, char) for char in text):
            return [(text, load(path, size))] if text else []
    drawn: list[tuple[str, str]] = []
    for char in text:
        path = font_of(char) or PILLOW
        if drawn and (drawn[-1][1] == path or unicodedata.combining(char)):
            drawn[-1] = drawn[-1][0] + char, drawn[-1][1]
        else:
            drawn.append((char, path))
    return [(piece, load(path, size)) for piece, path in drawn]


def width_of(text: Pieces) -> float:
    """Width of the drawn text, in pixels."""
    return sum(font.getlength(piece) for piece, font in text)


def families(texts: Iterable[str]) -> list[str]:
    """Names of the fonts with which matplotlib can draw these readable texts, the first choice
    first."""
    files = {font_of(char) for text in texts for char in text}
    others = sorted(path for path in files if path and path not in own_fonts())
    return ["DejaVu Sans", *(register(path) for path in [str(BUNDLED), *others])]


@functools.cache
def register(path: str) -> str:
    """Make a font known to matplotlib; return its name."""
    from matplotlib import font_manager

    font_manager.fontManager.addfont(path)
    return str(font_manager.get_font(path).family_name)


@functools.cache
def font_of(char: str) -> str | None:
    """The file of the first font that has the character; None if the character cannot be drawn."""
    if not char.isprintable():
        return None
    for path in own_fonts():
        if has_glyph(path, char):
            return path
    return system_font(char)


@functools.cache
def own_fonts() -> tuple[str, ...]:
    """Pillow's own font, matplotlib's if it is installed, and the bundled one."""
    matplotlib = importlib.util.find_spec("matplotlib")
    folders = matplotlib.submodule_search_locations if matplotlib else None
    found = [Path(folder, "mpl-data/fonts/ttf/DejaVuSans.ttf") for folder in folders or []]
    return (PILLOW, *(str(path) for path in [*found, BUNDLED] if path.is_file()))


def system_font(char: str) -> str | None:
    """The font that fontconfig chooses for the character, if that font has it."""
    query = f"sans-serif:charset={ord(char):x}"
    try:
        done = subprocess.run(
            ["fc-match", "--format=%{file}", query], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.stdout and has_glyph(done.stdout, char) else None


@functools.cache
def load(path: str, size: int) -> Font:
    """A font in this size, in pixels.

    Raises:
        OSError: FreeType cannot read it, or has no glyphs of this size.
    """
    if path == PILLOW:
        font = ImageFont.load_default(size)
        assert isinstance(font, Font), "Pillow is built without FreeType"
        return font
    return ImageFont.truetype(path, size)


@functools.cache
def has_glyph(path: str, char: str) -> bool:
    """Whether the font has the character: else it draws it as it draws a missing one."""
    try:
        font = load(path, PROBE_SIZE)
        return bytes(font.getmask(char)) != bytes(font.getmask(ABSENT))
    except OSError:
        return False
