"""What is matched, and the result of a match."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations, pairwise
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from parity.errors import ParityError

Array = NDArray[Any]
# what stands before the path in a tap: its stage, and a word such as `d/`, `step/` or `input:`
TAP = re.compile(r"([^/]+/(?:d/|step/|ema/|input:)?)(.+)")
How = Literal["pattern", "equal", "similar", "order", "values"]


def split(name: str) -> tuple[str, str]:
    """What stands before the path of a tap, and the path: `backward/d/`, `conv1`."""
    parts = TAP.fullmatch(name)
    return (parts.group(1), parts.group(2)) if parts else ("", name)


@dataclass(frozen=True)
class Named:
    """One parameter, module output or choice: its name and what is known about it.

    Leave `value` and `digest` out where the numbers say nothing, such as initial weights that are
    going to be replaced. If both are `fixed`, items with other names are paired only if their axes
    have one order.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = ""
    value: Array | None = None
    digest: str = ""
    operation: str = ""  # a canonical operation, such as `convolution`; empty: unknown
    fixed: bool = False  # the order of the axes is known


@dataclass(frozen=True)
class NamePair:
    """A name of the baseline and the candidate's name for the same array.

    How it was found: `pattern` (the user's), `equal` (the same name), `similar` (the same name but
    for spelling), `values` (the same numbers), `order` (place in the sequence, shape and likeness).
    """

    baseline: str
    candidate: str
    how: How
    confidence: float = 1.0  # 0 to 1


@dataclass(frozen=True)
class Doubt:
    """Names that may belong together, but nothing shows which; they are not paired."""

    baseline: tuple[str, ...]
    candidate: tuple[str, ...]
    why: str  # why they are in doubt, and what would settle it


@dataclass(frozen=True)
class Fused:
    """One array of a side that the other side has in parts: query, key and value."""

    side: Literal["baseline", "candidate"]  # which has them in one
    name: str
    parts: tuple[str, ...]  # of the other side: query, key, value

    def lines(self) -> list[str]:
        """Lines for `names` that declare it, in the usual order: query, key, value."""
        count = len(self.parts)
        if self.side == "candidate":
            return [line_of(self.name, " + ".join(self.parts))]
        return [line_of(part, f"{self.name}[{n}/{count}]") for n, part in enumerate(self.parts)]

    def sentence(self, entry: Callable[[str], str] = str) -> str:
        """What was found, and what to declare; `entry` makes a line's form."""
        other = "candidate" if self.side == "baseline" else "baseline"
        lines = "`, `".join(map(entry, self.lines()))
        return (
            f"{self.name} of the {self.side} is {', '.join(self.parts)} of the {other}, as the "
            f"sizes and names show; if the order is query, key, value, add to names: `{lines}`"
        )


@dataclass(frozen=True)
class Match:
    """Pairs in the baseline's order, and the names that have no partner, each in its own order.

    Every name is in `pairs`, in `fused`, in `only_baseline` or `only_candidate`, or in `doubts`.
    """

    pairs: tuple[NamePair, ...]
    only_baseline: tuple[str, ...]
    only_candidate: tuple[str, ...]
    doubts: tuple[Doubt, ...] = ()
    fused: tuple[Fused, ...] = ()
    unused: tuple[str, ...] = ()  # patterns of the user that fit no name

    def mapping(self) -> dict[str, str]:
        """The candidate's name -> the baseline's."""
        return {pair.candidate: pair.baseline for pair in self.pairs}

    def renamed(self) -> tuple[NamePair, ...]:
        """The pairs whose two names differ."""
        return tuple(pair for pair in self.pairs if pair.baseline != pair.candidate)


@dataclass(frozen=True)
class Found:
    """How the names and layouts of two traces fit together."""

    renamed: tuple[NamePair, ...] = ()  # found by `match`; not those that the user gave
    guesses: tuple[NamePair, ...] = ()  # not compared: alike in place alone, with other numbers
    doubts: tuple[Doubt, ...] = ()
    fused: tuple[Fused, ...] = ()
    layouts: Mapping[str, str] = field(default_factory=dict)  # tap -> layout; not applied
    declared: Mapping[str, str] = field(default_factory=dict)  # tap -> layout; applied
    patterns: Mapping[str, str] = field(default_factory=dict)  # tap of `layouts` -> a pattern
    unused: tuple[str, ...] = ()  # patterns of the user that fit no tap of any recording
    of_pair: bool = False  # a pair file declares names and layouts, not a names file

    def __add__(self, other: "Found") -> "Found":
        """What two comparisons of one pair found, everything once."""
        return Found(
            tuple(dict.fromkeys(self.renamed + other.renamed)),
            tuple(dict.fromkeys(self.guesses + other.guesses)),
            tuple(dict.fromkeys(self.doubts + other.doubts)),
            tuple(dict.fromkeys(self.fused + other.fused)),
            {**self.layouts, **other.layouts},
            {**self.declared, **other.declared},
            {**self.patterns, **other.patterns},
            tuple(dict.fromkeys(self.unused + other.unused)),
            self.of_pair or other.of_pair,
        )

    def layout_lines(self) -> dict[str, list[str]]:
        """Line for `layouts` -> the taps that it is for."""
        lines: dict[str, list[str]] = {}
        for tap, name in self.layouts.items():
            pattern = self.patterns.get(tap) or pattern_of(split(tap)[1])
            lines.setdefault(self.entry(f"{pattern}: {name}"), []).append(tap)
        return lines

    def entry(self, line: str) -> str:
        """A line of a names file, or the same as an entry of a pair file."""
        pattern, _, value = line.partition(": ")
        raw = "r" * ("\\" in value)
        return f'r"{pattern}": {raw}"{value}"' if self.of_pair else line


def by_name(items: Sequence[Named], side: str) -> dict[str, Named]:
    """The items by name.

    Raises:
        ParityError: two items have one name.
    """
    found: dict[str, Named] = {}
    for item in items:
        if item.name in found:
            raise ParityError(
                f"{side}: expected every name once, found {item.name} twice; give each a name"
            )
        found[item.name] = item
    return found


def compatible(one: Named, other: Named) -> bool:
    """Whether two items may be the same array: equal sizes of axes, in any order, or axes that were
    split; axes of size 1 do not count. Two known operations must be equal."""
    operations = {one.operation, other.operation} - {""}
    return len(operations) < 2 and same_axes(one.shape, other.shape)


def in_one_order(one: Named, other: Named) -> bool:
    """Whether two items have equal shapes, if the order of both their axes is known."""
    if not (one.fixed and other.fixed) or max(len(one.shape), len(other.shape)) < 2:
        return True
    return one.shape == other.shape


@lru_cache(maxsize=65536)
def same_axes(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two shapes may hold one array: `(8, 12)` and `(12, 8)`, or `(8, 3, 4)`, 12 split."""
    ours, theirs = axes_key(one), axes_key(other)
    if ours == theirs:
        return True
    if len(ours) == len(theirs) or max(len(ours), len(theirs)) > 5:
        return False
    short, long = sorted((one, other), key=lambda shape: len(axes_key(shape)))
    return axes_key(short) in {tuple(sorted(axes)) for axes in merged(long, len(axes_key(short)))}


def merged(shape: tuple[int, ...], rank: int) -> Iterator[tuple[int, ...]]:
    """The shape with neighbouring axes merged until `rank` axes are left, in all ways."""
    sizes = tuple(size for size in shape if size != 1)
    for cuts in combinations(range(1, len(sizes)), rank - 1):
        ends = (0, *cuts, len(sizes))
        yield tuple(prod(sizes[a:b]) for a, b in pairwise(ends))


def axes_key(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes above 1 in ascending order: equal for all orders of the axes of one array."""
    return tuple(sorted(size for size in shape if size != 1))


def pattern_of(name: str) -> str:
    """A regular expression for this name with any numbers: `layer\\d+\\.weight`."""
    return r"\d+".join(re.escape(text) for text in re.split(r"\d+", name))


def line_of(candidate: str, baseline: str) -> str:
    """A line for `names` that renames this name, and its like in other blocks.

    A number of the candidate's name that the baseline's name has as well stands for any number.
    """
    texts, found = re.split(r"\d+", candidate), re.findall(r"\d+", candidate)
    wanted = re.findall(r"\d+", re.sub(r"\[\d/\d\]", "", baseline))
    pattern = re.escape(texts[0])
    groups: dict[str, int] = {}
    for number, text in zip(found, texts[1:], strict=True):
        any_number = number in wanted and number not in groups
        if any_number:
            groups[number] = len(groups) + 1
        pattern += (r"(\d+)" if any_number else number) + re.escape(text)
    replacement = re.sub(
        r"(?<!\d)(\d+)(?![\d/\]])",
        lambda match: f"\\g<{groups[match[1]]}>" if match[1] in groups else match[1],
        baseline,
    )
    return f"{pattern}: {replacement}"


def as_named(arrays: Mapping[str, Array], known: bool = True) -> list[Named]:
    """Items of a table of arrays; `known`: the numbers of the arrays may be compared."""
    return [
        Named(name, np.shape(value), np.asarray(value).dtype.str, value if known else None)
        for name, value in arrays.items()
    ]
