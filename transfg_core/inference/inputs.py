"""Images that a command names: files, folders, globs, and standard input."""

import codecs
import glob
import io
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image

from transfg_core.data.bad_image import UNREADABLE
from transfg_core.data.decoding import FORMATS
from transfg_core.data.walk import Tally, relative_to, shown, walk
from transfg_core.errors import UserError

STDIN = "-"
STDIN_NAME = "standard input"
SPECIAL = "*?["


class Input(NamedTuple):
    """One image: its name in results, and its path or content."""

    name: str
    source: str | bytes


class Inputs(NamedTuple):
    """Images in the order of the words, and lines about files in folders that are left out."""

    images: list[Input]
    notes: list[str]


def find_inputs(words: Sequence[str], stdin: BinaryIO | None) -> Inputs:
    """The images that words name, in their order.

    A folder stands for all images below it, sorted. A word with `*`, `?` or `[` that is no file is
    a pattern; `**` also goes into folders. `-` is standard input: one image, or a list of files,
    folders and patterns, one in each line or ended by NUL characters.

    Raises:
        UserError: there is no word, a word names nothing, a folder or pattern holds no image, or
            standard input is closed, empty or given twice.
    """
    if not words:
        raise UserError("expected images, found none; name files, folders or patterns")
    if sum(word == STDIN for word in words) > 1:
        raise UserError("-: expected standard input once, found it twice; name it once")
    images: list[Input] = []
    notes: list[str] = []
    for word in words:
        found = _from_stdin(stdin) if word == STDIN else _of_word(word)
        images += found.images
        notes += found.notes
    return Inputs(images, notes)


def _of_word(word: str) -> Inputs:
    if os.path.isdir(word):
        return _of_folder(word)
    if os.path.lexists(word) or not set(SPECIAL) & set(word):
        return Inputs([Input(shown(word), word)], [])  # an absent file is named with the results
    matches = sorted(glob.glob(word, recursive=True))
    files = [path for path in matches if not os.path.isdir(path)]
    if not files:
        raise UserError(
            f"{shown(word)}: expected a pattern of image files, found no match"
            f"{relative_to(Path(word))}; check the pattern"
        )
    return Inputs([Input(shown(path), path) for path in files], [])


def _of_folder(folder: str) -> Inputs:
    tally = Tally()
    found = walk(Path(folder), tally, keep_unreadable=True)
    notes = [f"{shown(folder)}: left out: {entry}" for entry in tally.entries()]
    if not found:
        raise UserError(
            f"{shown(folder)}: expected images in this folder, found none"
            + "".join(f"\n  {note}" for note in notes)
        )
    return Inputs([Input(os.path.join(shown(folder), f.name), f.path) for f in found], notes)


def _from_stdin(stdin: BinaryIO | None) -> Inputs:
    content = stdin.read() if stdin else b""
    if not content:
        raise UserError("-: expected an image or a list of files on standard input, found nothing")
    names = None if _is_image(content) else _names(content)
    if names is None:
        return Inputs([Input(STDIN_NAME, content)], [])
    return find_inputs([name for name in names if name != STDIN], None)


def _is_image(content: bytes) -> bool:
    """Whether Pillow recognises the first bytes; the image may still be broken."""
    with suppress(*UNREADABLE), Image.open(io.BytesIO(content), formats=FORMATS):
        return True
    return False


def _names(content: bytes) -> list[str] | None:
    """The lines of a text in UTF-8, or what NUL characters end; None if it is neither."""
    content = content.removeprefix(codecs.BOM_UTF8)
    ended = content.endswith(b"\0")
    parts = content.split(b"\0" if ended else b"\n")
    try:
        content.decode()
    except UnicodeDecodeError:
        if not ended:  # `find -print0` also gives names in no encoding
            return None
    names = [os.fsdecode(part if ended else part.rstrip(b"\r")) for part in parts]
    return [name for name in names if name.strip()] or None
