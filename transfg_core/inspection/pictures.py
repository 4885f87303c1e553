"""The contact sheets of a data set: its classes, and its suspicious images."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from transfg_core import fonts
from transfg_core.data.loader import read_ahead
from transfg_core.inspection.duplicates import Group, crosses, disagrees
from transfg_core.inspection.notices import ABSENT, Duplicates, Notice
from transfg_core.inspection.scan import AHEAD, Scan
from transfg_core.inspection.sheets import (
    GAP,
    LINE,
    PAGE_WIDTH,
    PAPER,
    TEXT,
    Tile,
    draw_tile,
    framed,
    heading,
    pages_of,
    rows_of,
    subheading,
    write,
)
from transfg_core.inspection.subject import splits_of
from transfg_core.inspection.views import ViewReader, Views, as_read, what_remains
from transfg_core.run.progress import CountProgress

MOST_CLASSES = 210  # classes on the sheets, evenly spread over all of them
MOST_TILES = 60  # broken images; sets of duplicates
MOST_OF_A_KIND = 12  # images of each unusual kind, of the smallest, of the most elongated
MOST_MEMBERS = 5  # images of a set of duplicates
SEAM = 4
BLOCKS = 3  # classes side by side
BLOCK_WIDTH = (PAGE_WIDTH - 2 * GAP - (BLOCKS - 1) * GAP) // BLOCKS
COLUMNS = 6
# width and height of a tile's picture
BOX = ((PAGE_WIDTH - 2 * GAP - (COLUMNS - 1) * GAP) // COLUMNS, 160)


class Sheet(NamedTuple):
    """Pages of one kind; `name` is the beginning of their file names, `pages` are JPEG files."""

    name: str
    title: str
    note: str
    pages: list[bytes]


def contact_sheets(
    scan: Scan, duplicates: Duplicates, notices: Sequence[Notice], seed: int, images: int
) -> list[Sheet]:
    """All sheets that have something to show; `images` of each class (0: no sheet of classes)."""
    sheets = [
        _sheet("broken", "Contact sheet: unreadable images",
               "The part that could be decoded, if any; then reason, split and class, path",
               _broken(scan)),
        _sheet("duplicates", "Contact sheet: equal and nearly equal images",
               f"Each frame is one set, at most {MOST_MEMBERS} images of it; below an image: size "
               "and difference from the first, split and class, path",
               _duplicates(scan, duplicates)),
        _sheet("unusual", "Contact sheet: unusual images",
               "As training reads them, before resizing",
               _unusual(scan, notices)),
        _sheet("smallest", "Contact sheet: smallest and most elongated images",
               "Width x height in pixels",
               _extremes(scan)),
    ]  # fmt: skip
    if images:
        sheets.append(_classes(scan, seed, images))
    return [sheet for sheet in sheets if sheet.pages]


def _sheet(name: str, title: str, note: str, strips: Iterator[Image.Image]) -> Sheet:
    return Sheet(name, title, note, list(pages_of(strips, heading(title, note))))


def _tile(scan: Scan, row: int, picture: Image.Image | None, first: str) -> Tile:
    return Tile(picture, [first, f"{scan.split_of(row)}: {scan.class_of(row)}"], scan.ids[row])


def _tiles(tiles: Iterator[Tile]) -> Iterator[Image.Image]:
    return rows_of(draw_tile(tile, *BOX) for tile in tiles)


def _broken(scan: Scan) -> Iterator[Image.Image]:
    """Some images of each reason."""
    reasons = {reason: rows for reason, rows in scan.broken_by_reason().items() if reason != ABSENT}
    share = max(1, MOST_TILES // max(len(reasons), 1))
    rows = [row for rows in reasons.values() for row in rows[:share].tolist()]
    return _tiles(
        _tile(scan, row, what_remains(scan.paths[row], scan.data), scan.reason_of(row))
        for row in rows[:MOST_TILES]
    )


def _duplicates(scan: Scan, duplicates: Duplicates) -> Iterator[Image.Image]:
    """Sets with several classes or splits first, then equal ones before near ones."""

    def order(group: Group) -> tuple[bool, bool]:
        return not disagrees(scan, group), not crosses(scan, group)

    groups = sorted([*duplicates.exact, *duplicates.near], key=order)
    return rows_of(framed(_members(scan, group), BOX) for group in groups[:MOST_TILES])


def _members(scan: Scan, group: Group) -> list[Tile]:
    """The first images of a set, one of each split and class before others."""
    places = list(range(len(group.rows)))
    seen: dict[tuple[int, int], int] = {}
    for place in places:
        row = group.rows[place]
        seen.setdefault((int(scan.split[row]), int(scan.labels[row])), place)
    chosen = [*seen.values(), *(place for place in places if place not in seen.values())]
    tiles = []
    for place in sorted(chosen[:MOST_MEMBERS]):
        row, bits = group.rows[place], group.distances[place]
        same = "equal pixels" if scan.digests[row] == scan.digests[group.rows[0]] else ""
        first = _size(scan, row) + (f", {same or f'{bits} bits'}" if place else "")
        tiles.append(_tile(scan, row, as_read(*scan.sample(row), scan.data), first))
    return tiles


def _unusual(scan: Scan, notices: Sequence[Notice]) -> Iterator[Image.Image]:
    """Some images of each notice that is about single images."""
    return _tiles(
        _tile(scan, row, as_read(*scan.sample(row), scan.data), f"{notice.level}: {notice.kind}")
        for notice in notices
        if not notice.kind.startswith(("equal", "near", "smaller"))
        for row in [row for row in notice.rows if scan.readable[row]][:COLUMNS]
    )


def _extremes(scan: Scan) -> Iterator[Image.Image]:
    rows = np.flatnonzero(scan.readable)
    sides = scan.sizes[rows]
    if not len(rows):
        return
    shorter, longer = sides.min(axis=1), sides.max(axis=1)
    for title, order in (
        ("shortest side", np.argsort(shorter, kind="stable")),
        ("most elongated", np.argsort(-(longer / shorter), kind="stable")),
    ):
        yield subheading(title)
        yield from _tiles(
            _tile(scan, row, as_read(*scan.sample(row), scan.data), _size(scan, row))
            for row in rows[order[:MOST_OF_A_KIND]]
        )


def _size(scan: Scan, row: int) -> str:
    height, width = scan.sizes[row]
    return f"{width} x {height}"


def _classes(scan: Scan, seed: int, images: int) -> Sheet:
    """A block for each class: some of its training images in both views."""
    train = scan.rows("train")
    classes = np.unique(scan.labels[train[scan.readable[train]]])
    if len(classes) > MOST_CLASSES:
        classes = classes[np.linspace(0, len(classes) - 1, MOST_CLASSES).astype(int)]
    title = f"Contact sheet: {len(classes)} of {len(scan.dataset.classes)} classes"
    note = (
        f"{images} training images of each: above as evaluation sees them, below the same images "
        "with the augmentation of the first epoch"
    )
    if scan.data.mixup or scan.data.cutmix:
        note += ", before mixup and CutMix"
    blocks = rows_of(_class_blocks(scan, seed, classes.tolist(), images))
    return Sheet("classes", title, note, list(pages_of(blocks, heading(title, note))))


def _class_blocks(
    scan: Scan, seed: int, classes: Sequence[int], images: int
) -> Iterator[Image.Image]:
    side = (BLOCK_WIDTH - (images - 1) * SEAM) // images
    train = scan.rows("train")
    readable = train[scan.readable[train]]
    labels, chosen, shares = scan.labels[readable], list[int](), list[int]()
    for label in classes:
        own = readable[labels == label]
        some = own[np.unique(np.linspace(0, len(own) - 1, images).astype(int))]
        shares.append(len(some))
        chosen += some.tolist()
    begin = int(train[0]) if len(train) else 0
    rows = tuple(row - begin for row in chosen)
    read = ViewReader(splits_of(scan.dataset)["train"], scan.data, seed, rows, side)
    with (
        CountProgress("contact sheet", len(rows)) as progress,
        closing(read_ahead(read, range(len(rows)), scan.data, AHEAD)) as views,
    ):
        for label, share in zip(classes, shares, strict=True):
            own_views = list(islice(views, share))
            for _ in own_views:
                progress.advance()
            yield _block(scan, label, own_views, side)


def _block(scan: Scan, label: int, views: Sequence[Views], side: int) -> Image.Image:
    """One class: its name and counts, the row of evaluation views, the row of training views."""
    height = round(side * scan.data.crop[0] / scan.data.crop[1])
    block = Image.new("RGB", (BLOCK_WIDTH, LINE + 2 * (height + SEAM)), PAPER)
    counts = ", ".join(
        f"{int((scan.labels[scan.rows(split)] == label).sum())} {split}" for split in scan.splits
    )
    pen = ImageDraw.Draw(block)
    drawn = fonts.pieces(counts, TEXT)
    name = fonts.shorten(scan.dataset.classes[label], TEXT, BLOCK_WIDTH - fonts.width_of(drawn) - 8)
    write(pen, (0, TEXT), name)
    write(pen, (BLOCK_WIDTH - fonts.width_of(drawn), TEXT), drawn, (110, 110, 110))
    for column, pair in enumerate(views):
        for row, view in enumerate(pair):
            place = column * (side + SEAM), LINE + row * (height + SEAM)
            if view is None:
                pen.rectangle((*place, place[0] + side, place[1] + height), outline=(213, 94, 0))
            else:
                block.paste(view, place)
    return block
