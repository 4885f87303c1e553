"""The list of a drawn split, split.csv, and where it fits. `drawing.py` draws.

A run writes its drawn split as split.csv. The list, not the drawing, is what later commands use:
on images added later too, but never on a data set that lacks or changed some of its images.
"""

import csv
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from transfg_core.data.walk import shown
from transfg_core.errors import UserError

COLUMNS = ("image", "split", "group", "bytes")
TRAIN, TEST, HELD_OUT = PARTS = ("train", "test", "held out")
NOT_LISTED = "images that are not in the run's split.csv"
MOST_DIGITS = 18  # of a size in bytes


@dataclass(frozen=True)
class SplitRow:
    """One image of a split: its part (one of PARTS), its group, its size in bytes (0: unknown)."""

    part: str
    group: str
    size: int = 0


@dataclass(frozen=True)
class SplitList:
    """A drawn split: image id -> row."""

    rows: dict[str, SplitRow]

    def ids(self, part: str) -> set[str]:
        """The images of one part."""
        return {name for name, row in self.rows.items() if row.part == part}

    def csv(self) -> str:
        """The list as split.csv, one row for each image."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        rows = self.rows.items()
        writer.writerows((name, row.part, row.group, row.size or "") for name, row in rows)
        return text.getvalue()


def read_split(path: Path) -> SplitList | None:
    """Read a split.csv; None if there is none.

    Raises:
        UserError: the file is not such a list; the text names the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read the split: {error}; restore the file") from error
    table = csv.reader(io.StringIO(text, newline=""))
    rows: dict[str, SplitRow] = {}
    try:
        for number, fields in enumerate(table):
            if number == 0:
                sound = tuple(fields) == COLUMNS
            else:
                sound = _is_row(fields) and fields[0] not in rows
            if not sound:
                raise _damaged(path, table.line_num, str(fields))
            if number:
                rows[fields[0]] = SplitRow(fields[1], fields[2], int(fields[3] or 0))
    except csv.Error as error:
        raise _damaged(path, table.line_num, str(error)) from error
    if not rows:
        raise _damaged(path, table.line_num, "no images")
    return SplitList(rows)


def _is_row(fields: list[str]) -> bool:
    """Whether the fields are those of an image; the size may be empty."""
    if len(fields) != len(COLUMNS) or fields[1] not in PARTS:
        return False
    size = fields[3]
    return not size or (size.isdecimal() and len(size) <= MOST_DIGITS)


def _damaged(path: Path, line: int, found: str) -> UserError:
    short = found if len(found) <= 200 else f"{found[:200]}..."
    return UserError(
        f"{path}, line {line}: expected the header {','.join(COLUMNS)}, then each image once, "
        f"found {short}; restore the file"
    )


def fitting(
    root: str,
    sizes: Mapping[str, int],
    saved: SplitList | None,
    remedy: str = "put new images under new names into a folder of their own",
) -> SplitList | None:
    """A run's list if the data set has all of its images; None if it has none of their names.

    Args:
        root: the data set's folder, for messages.
        sizes: image id -> size in bytes (0: unknown), of the data set.
        saved: the run's list, if there is one.
        remedy: what to do with other images, for messages.

    Raises:
        UserError: some images are absent, or have another size.
    """
    if saved is None:
        return None
    if saved.rows.keys().isdisjoint(sizes):
        _refuse_other_suffixes(root, saved, sizes, remedy)
        return None
    unfit = [
        name
        for name, row in saved.rows.items()
        if name not in sizes or (row.size and sizes[name] and row.size != sizes[name])
    ]
    if unfit:
        raise UserError(
            f"{shown(root)}: expected all images of the run's split.csv, or none, found "
            f"{len(saved.rows) - len(unfit)} of {len(saved.rows)}: "
            f"{_what_is_unfit(unfit[0], saved, sizes)}; restore the images, or {remedy}"
        )
    return saved


def _refuse_other_suffixes(
    root: str, saved: SplitList, sizes: Mapping[str, int], remedy: str
) -> None:
    """Refuse images whose names differ from the list in the suffix or the separator alone."""
    listed = {_bare(name): name for name in saved.rows}
    for name in sizes:
        if _bare(name) in listed:
            raise UserError(
                f"{shown(root)}: expected the images of the run's split.csv or others, found "
                f"{name} for {listed[_bare(name)]}: the same images in another form? Write their "
                f"names into split.csv, or {remedy}"
            )


def _bare(name: str) -> str:
    """A name without its suffix, with forward slashes."""
    return os.path.splitext(name.replace("\\", "/").replace("//", "/"))[0]


def _what_is_unfit(name: str, saved: SplitList, sizes: Mapping[str, int]) -> str:
    """How an image differs from the list, and what to do if it is still the same picture."""
    if name not in sizes:
        return f"{name} is absent"
    return (
        f"{name} has {sizes[name]} bytes instead of {saved.rows[name].size} (if it shows the same "
        f"picture, write {sizes[name]} into split.csv)"
    )


def no_list(root: str, remedy: str) -> UserError:
    """The error where only a run's list tells which images the run trained with."""
    return UserError(
        f"{shown(root)}: expected the split.csv of the checkpoint's run, to tell its test images "
        f"from its training images, found none; copy it beside the checkpoint{remedy}"
    )
