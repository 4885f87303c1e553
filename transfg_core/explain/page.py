"""Pages of titled pictures, with Pillow alone: header, panels in rows, footer."""

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

from transfg_core import fonts
from transfg_core.inspection import sheets
from transfg_core.inspection.sheets import FAINT, INK, PAPER, Colour

MARGIN = 36
GAP = 28  # between panels
TITLE, CAPTION = 24, 17  # sizes of letters, in pixels
LINE = 1.35  # height of a line, in sizes of its letters


class Panel(NamedTuple):
    """A picture with its title and a sentence about it."""

    title: str
    caption: str
    picture: Image.Image


def text_height(size: int, lines: int = 1) -> int:
    """Height of lines of text, in pixels."""
    return round(LINE * size * lines)


def write(
    pen: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    size: int,
    width: float,
    colour: Colour = INK,
) -> None:
    """Write one line whose upper left corner is `place`; it is cut to `width`."""
    left, top = place
    sheets.write(pen, (left, top + size), fonts.shorten(text, size, width), colour)


def wrap(text: str, size: int, width: float) -> list[str]:
    """The text in lines that fit; a single word that does not fit has a line of its own."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and fonts.width_of(fonts.pieces(longer, size)) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def panel_picture(panel: Panel, lines: int) -> Image.Image:
    """A panel: title, picture, and room for so many lines of its caption."""
    above = text_height(TITLE) + 4
    width, height = panel.picture.size
    cell = Image.new("RGB", (width, above + height + 6 + text_height(CAPTION, lines)), PAPER)
    pen = ImageDraw.Draw(cell)
    write(pen, (0, 0), panel.title, TITLE, width)
    cell.paste(panel.picture, (0, above))
    for number, line in enumerate(wrap(panel.caption, CAPTION, width)):
        top = above + height + 6 + text_height(CAPTION, number)
        write(pen, (0, top), line, CAPTION, width, FAINT)
    return cell


def page(
    header: Image.Image, panels: Sequence[Panel], columns: int, footer: Image.Image
) -> Image.Image:
    """A page: header, panels of equal size in rows, footer. Headers have the page's inner width."""
    lines = max(len(wrap(p.caption, CAPTION, p.picture.width)) for p in panels)
    cells = [panel_picture(panel, lines) for panel in panels]
    width, height = cells[0].size
    columns = min(columns, len(cells))
    rows = -(-len(cells) // columns)
    inner = inner_width(width, columns)
    tall = header.height + GAP + rows * (height + GAP) + footer.height
    sheet = Image.new("RGB", (2 * MARGIN + inner, 2 * MARGIN + tall), PAPER)
    sheet.paste(header, (MARGIN, MARGIN))
    top = MARGIN + header.height + GAP
    for number, cell in enumerate(cells):
        row, column = divmod(number, columns)
        sheet.paste(cell, (MARGIN + column * (width + GAP), top + row * (height + GAP)))
    sheet.paste(footer, (MARGIN, top + rows * (height + GAP)))
    return sheet


def inner_width(width: int, columns: int) -> int:
    """Width of a page without its margins, in pixels; `width` is that of a panel."""
    return columns * width + (columns - 1) * GAP


def strip(width: int, height: int = 1) -> Image.Image:
    """White paper, also for a page without header or footer."""
    return Image.new("RGB", (width, height), PAPER)
