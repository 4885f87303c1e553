"""Lists in text files: lines, and rows `id value`."""

from pathlib import Path
from typing import NamedTuple

from transfg_core.errors import UserError


class Row(NamedTuple):
    """The value of one `id value` row, and its line number."""

    value: str
    line: int


Rows = dict[str, Row]


def read_rows(path: Path) -> Rows:
    """Read the `id value` rows of a text file in file order; the last newline is optional.

    Raises:
        UserError: the file is missing, unreadable or empty, a row has no value, or an id repeats.
    """
    rows: Rows = {}
    for line, text in lines_of(path):
        fields = text.split(maxsplit=1)
        if len(fields) != 2:
            raise UserError(f"{path}:{line}: expected `id value`, found {text!r}")
        key, value = fields[0], fields[1].strip()
        if key in rows:
            raise UserError(
                f"{path}:{line}: expected each id once, found id {key} also on line "
                f"{rows[key].line}; remove one of the lines"
            )
        rows[key] = Row(value, line)
    if not rows:
        raise UserError(f"{path}: expected rows `id value`, found an empty file")
    return rows


def lines_of(path: Path) -> list[tuple[int, str]]:
    """Line number (from 1) and text of every line that is not blank.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read the list: {error}; is the copy complete?") from error
    return [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
