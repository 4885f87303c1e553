"""Lists in messages: the first items, and how many more there are."""

from collections.abc import Collection


def some(items: Collection[object], most: int = 5, between: str = ", ") -> str:
    """`a, b, c and 4 more`, with `most` items; after `; ` it is `; and 4 more`."""
    first = [str(item) for item in [*items][:most]]
    left = len(items) - len(first)
    comma = ";" if between == "; " else ""
    return between.join(first) + (f"{comma} and {left} more" if left else "")
