"""Tables as text: aligned columns."""

from collections.abc import Collection, Sequence

GAP = "  "
LEAST = 12  # characters of a shortened text


def text_lines(
    rows: Sequence[Sequence[str]], right: Collection[int], cut: int = 0, width: int | None = None
) -> list[str]:
    """Rows as aligned lines.

    Args:
        right: columns to align to the right.
        cut: the column whose texts are shortened to fit.
        width: that the lines may have; None: nothing is shortened.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if width is not None:
        over = sum(widths) + len(GAP) * (len(widths) - 1) - width
        widths[cut] = max(widths[cut] - max(over, 0), LEAST)
    lines = []
    for row in rows:
        cells = [
            _short(text, size).rjust(size) if i in right else _short(text, size).ljust(size)
            for i, (text, size) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(GAP.join(cells))
    return lines


def _short(text: str, size: int) -> str:
    """The text, or its end behind dots: the end of a tap's name says more than its beginning."""
    return text if len(text) <= size else f"…{text[-(size - 1) :]}"
