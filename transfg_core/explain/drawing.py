"""Drawings of selected patches, part scores and true parts, with Pillow alone.

Letters: B images of H x W pixels, K heads (one chosen patch each), N = gh * gw patches.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from transfg_core import fonts
from transfg_core.metrics import patch_boxes
from transfg_core.models.rows import PartGrid

Colour = tuple[int, int, int]

CHOSEN: Colour = (255, 138, 0)  # orange and blue differ under every common colour blindness
TRUE: Colour = (20, 120, 255)
HALO: Colour = (255, 255, 255)
INK: Colour = (34, 34, 34)
PAPER: Colour = (255, 255, 255)

SHORT_SIDE = 256  # pixels; small images are enlarged to about this size
GAP = 16  # between images
SEAM = 4  # between two views of one image
FONT_SIZE = 15
SHEET_WIDTH = 1400
THICKEST = 6  # largest width of a frame, in pixels
DARKEST = 0.15  # brightness of the heat map at score 0


def part_picture(
    images: NDArray[np.uint8],
    part_index: NDArray[Any] | None,
    part_scores: NDArray[Any] | None,
    grid: PartGrid,
    true_boxes: Sequence[ArrayLike] | None = None,
    titles: Sequence[str] | None = None,
) -> Image.Image:
    """A sheet of images with the chosen patches in orange and the true parts in blue.

    A patch that several heads chose has one frame; its width grows with their number. With scores,
    each image has a second view on its right: the image dimmed by the root of the mean score over
    heads, scaled to the maximum of that image.

    Args:
        images: (B, H, W, 3).
        part_index: (B, K) token indices from 1 (0 is the class token); None without part
            selection.
        part_scores: (B, K, N), not negative.
        grid: the patches that the parts are chosen from.
        true_boxes: per image (n, 4) left, top, right, bottom in pixels.
        titles: one line per image, cut to the image's width.
    """
    assert images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] == 3, images.shape
    if part_index is not None:
        assert part_index.min() >= 1 and part_index.max() <= grid.rows * grid.columns
    scale = max(1, round(SHORT_SIDE / min(images.shape[1:3])))
    patches = patch_boxes(grid) * scale
    cells = []
    for b, pixels in enumerate(images):
        picture = _enlarge(pixels, scale)
        views = [picture]
        if part_scores is not None:
            heat = np.asarray(part_scores[b], np.float64).mean(axis=0)
            heat = heat.reshape(grid.rows, grid.columns)
            views.append(_dim(picture, heat, grid.patch * scale, grid.stride * scale))
        if true_boxes is not None:
            _frame_true(picture, true_boxes[b], scale)
        if part_index is not None:
            _frame_chosen(picture, part_index[b], patches)
        cells.append(_cell(views, None if titles is None else titles[b]))
    return _sheet(cells)


def _frame_true(picture: Image.Image, boxes: ArrayLike, scale: int) -> None:
    pen = ImageDraw.Draw(picture)
    for box in np.asarray(boxes, np.float64).reshape(-1, 4) * scale:
        outline(pen, box, TRUE, 1)


def _frame_chosen(picture: Image.Image, index: NDArray[Any], patches: NDArray[np.float64]) -> None:
    pen = ImageDraw.Draw(picture)
    for token, heads in sorted(Counter(index.tolist()).items()):
        outline(pen, patches[token - 1], CHOSEN, min(1 + heads, THICKEST))


def _enlarge(pixels: NDArray[np.uint8], scale: int) -> Image.Image:
    height, width = pixels.shape[:2]
    return Image.fromarray(pixels).resize((width * scale, height * scale), Image.Resampling.LANCZOS)


def _dim(picture: Image.Image, heat: NDArray[np.float64], patch: int, stride: int) -> Image.Image:
    """Multiply the picture by the root of the heat map (gh, gw), brightest at its maximum.

    The root makes low scores visible, because a few patches hold most of the score. Each score is
    placed at the centre of its patch, so that the map also fits an overlapping grid.
    """
    bright = np.sqrt(heat / heat.max()) if heat.max() > 0 else heat
    grey = Image.fromarray((255 * bright).round().astype(np.uint8))
    size = (stride * heat.shape[1], stride * heat.shape[0])
    smooth = np.asarray(grey.resize(size, Image.Resampling.BICUBIC), np.float64)
    before = (patch - stride) // 2
    after = (picture.height - size[1] - before, picture.width - size[0] - before)
    spread = np.pad(smooth, [(before, max(0, side)) for side in after], mode="edge")
    weight = DARKEST + (1 - DARKEST) * spread[: picture.height, : picture.width, None] / 255
    return Image.fromarray((np.asarray(picture) * weight).round().astype(np.uint8))


def outline(pen: ImageDraw.ImageDraw, box: NDArray[np.float64], colour: Colour, width: int) -> None:
    """Draw a frame around the box, between two thin light lines for contrast."""
    left, top, right, bottom = (round(side) for side in box)
    for reach, thickness, ink in ((width, width + 2, HALO), (width - 1, width, colour)):
        edges = (left - reach, top - reach, right - 1 + reach, bottom - 1 + reach)
        pen.rectangle(edges, outline=ink, width=thickness)


def _cell(views: Sequence[Image.Image], title: str | None) -> Image.Image:
    """Place views side by side under their title."""
    top = 0 if title is None else FONT_SIZE + 7
    width = sum(view.width for view in views) + SEAM * (len(views) - 1)
    cell = Image.new("RGB", (width, top + views[0].height), PAPER)
    if title is not None:
        _write(ImageDraw.Draw(cell), fonts.shorten(title, FONT_SIZE, width))
    left = 0
    for view in views:
        cell.paste(view, (left, top))
        left += view.width + SEAM
    return cell


def _write(pen: ImageDraw.ImageDraw, title: fonts.Pieces) -> None:
    """Write a title at the upper left, its pieces on one base line."""
    left = 0.0
    for text, font in title:
        pen.text((left, FONT_SIZE), text, fill=INK, font=font, anchor="ls")
        left += font.getlength(text)


def _sheet(cells: Sequence[Image.Image]) -> Image.Image:
    """Arrange cells of equal size in rows on white paper."""
    width, height = cells[0].size
    columns = min(len(cells), max(1, (SHEET_WIDTH - GAP) // (width + GAP)))
    rows = -(-len(cells) // columns)
    size = (GAP + columns * (width + GAP), GAP + rows * (height + GAP))
    sheet = Image.new("RGB", size, PAPER)
    for number, cell in enumerate(cells):
        row, column = divmod(number, columns)
        sheet.paste(cell, (GAP + column * (width + GAP), GAP + row * (height + GAP)))
    return sheet
