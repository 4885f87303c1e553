"""Pages of small pictures with lines of text, drawn with Pillow: contact sheets."""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from transfg_core import fonts

Colour = tuple[int, int, int]

INK: Colour = (34, 34, 34)
FAINT: Colour = (110, 110, 110)
PAPER: Colour = (255, 255, 255)
EMPTY: Colour = (236, 236, 236)
FRAME: Colour = (190, 190, 190)
BROKEN: Colour = (213, 94, 0)  # as warnings in reports
PAGE_WIDTH, PAGE_HEIGHT = 1400, 3000  # pixels; a page is as high as it needs to be
GAP = 16
MARGIN = 6  # between a frame and the tiles in it
HEADING, TEXT = 17, 13  # heights of letters
LINE = TEXT + 5
MOST_LINES = 3  # of a path
QUALITY = 85  # of the JPEG files


@dataclass(frozen=True)
class Tile:
    """A picture in a box, with lines of text and a path below; no picture: a crossed box."""

    picture: Image.Image | None
    lines: Sequence[str]
    path: str


def write(pen: ImageDraw.ImageDraw, place: tuple[float, float], text: fonts.Pieces,
          colour: Colour = INK) -> None:  # fmt: skip
    """Write pieces of text on one base line that begins at `place` (x, y)."""
    left, base = place
    for piece, font in text:
        pen.text((left, base), piece, fill=colour, font=font, anchor="ls")
        left += font.getlength(piece)


def fitted(picture: Image.Image, width: int, height: int) -> Image.Image:
    """The picture inside a box, its aspect ratio kept; a small one is enlarged to whole pixels."""
    scale = min(width / picture.width, height / picture.height)
    if scale >= 2:
        scale = int(scale)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    method = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.LANCZOS
    return picture.resize(size, method)


def draw_tile(tile: Tile, width: int, height: int) -> Image.Image:
    """A tile whose box has this size; the lines come below it."""
    lines = [fonts.shorten(line, TEXT, width) for line in tile.lines]
    lines += wrapped(tile.path, TEXT, width)
    drawn = Image.new("RGB", (width, height + LINE * len(lines) + 4), PAPER)
    pen = ImageDraw.Draw(drawn)
    box = (0, 0, width - 1, height - 1)
    pen.rectangle(box, fill=EMPTY, outline=FRAME)
    if tile.picture is None:
        pen.line((0, 0, width - 1, height - 1), fill=BROKEN)
        pen.line((0, height - 1, width - 1, 0), fill=BROKEN)
    else:
        small = fitted(tile.picture, width, height)
        drawn.paste(small, ((width - small.width) // 2, (height - small.height) // 2))
    for number, line in enumerate(lines):
        write(pen, (0, height + LINE * (number + 1) - 3), line, FAINT if number else INK)
    return drawn


def framed(tiles: Sequence[Tile], box: tuple[int, int]) -> Image.Image:
    """Tiles side by side in a frame."""
    row = _beside([draw_tile(tile, *box) for tile in tiles])
    size = row.width + 2 * MARGIN, row.height + 2 * MARGIN
    block = Image.new("RGB", size, PAPER)
    block.paste(row, (MARGIN, MARGIN))
    ImageDraw.Draw(block).rectangle((0, 0, size[0] - 1, size[1] - 1), outline=FRAME)
    return block


def wrapped(text: str, size: int, width: int) -> list[fonts.Pieces]:
    """A path in lines of this width, broken anywhere; of a long one, MOST_LINES with its end."""
    lines: list[fonts.Pieces] = []
    rest = fonts.readable(text)
    while rest and len(lines) < MOST_LINES:
        line = ""
        for char in reversed(rest):  # from the end, where the file's name is
            if fonts.width_of(fonts.pieces(char + line, size)) > width:
                break
            line = char + line
        line = line or rest[-1]
        rest = rest[: -len(line)]
        if rest and len(lines) == MOST_LINES - 1:
            line = fonts.ELLIPSIS + line[1:]
        lines.insert(0, fonts.pieces(line, size))
    return lines


def subheading(text: str) -> Image.Image:
    """A line of ordinary letters over the width of a page."""
    strip = Image.new("RGB", (PAGE_WIDTH - 2 * GAP, LINE + 2), PAPER)
    write(ImageDraw.Draw(strip), (0, TEXT + 4), fonts.shorten(text, TEXT + 2, strip.width))
    return strip


def heading(text: str, note: str) -> Image.Image:
    """A line of large letters over the width of a page, and a line of small ones."""
    strip = Image.new("RGB", (PAGE_WIDTH - 2 * GAP, HEADING + 8 + LINE), PAPER)
    pen = ImageDraw.Draw(strip)
    write(pen, (0, HEADING), fonts.shorten(text, HEADING, strip.width))
    write(pen, (0, HEADING + LINE + 2), fonts.shorten(note, TEXT, strip.width), FAINT)
    return strip


def rows_of(blocks: Iterable[Image.Image]) -> Iterator[Image.Image]:
    """Blocks side by side, as many to a row as fit."""
    row: list[Image.Image] = []
    for block in blocks:
        if row and sum(each.width + GAP for each in row) + block.width > PAGE_WIDTH - 2 * GAP:
            yield _beside(row)
            row = []
        row.append(block)
    if row:
        yield _beside(row)


def _beside(blocks: Sequence[Image.Image]) -> Image.Image:
    width = sum(block.width + GAP for block in blocks) - GAP
    row = Image.new("RGB", (width, max(block.height for block in blocks)), PAPER)
    left = 0
    for block in blocks:
        row.paste(block, (left, 0))
        left += block.width + GAP
    return row


def pages_of(
    strips: Iterable[Image.Image], title: Image.Image, comment: str | None = None
) -> Iterator[bytes]:
    """Strips below one another under a title, as JPEG files of about PAGE_HEIGHT at most.

    `comment` goes into the files' metadata.
    """
    page: list[Image.Image] = []
    height = title.height
    for strip in strips:
        if page and height + strip.height + GAP > PAGE_HEIGHT:
            yield _page([title, *page], comment)
            page, height = [], title.height
        page.append(strip)
        height += strip.height + GAP
    if page:
        yield _page([title, *page], comment)


def _page(strips: Sequence[Image.Image], comment: str | None) -> bytes:
    height = GAP + sum(strip.height + GAP for strip in strips)
    page, top = Image.new("RGB", (PAGE_WIDTH, height), PAPER), GAP
    for strip in strips:
        page.paste(strip, (GAP, top))
        top += strip.height + GAP
    file = io.BytesIO()
    page.save(file, format="JPEG", quality=QUALITY, optimize=True, comment=comment)
    return file.getvalue()
