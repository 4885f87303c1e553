"""What was found about names and layouts, and needs nothing of the reader, in lines for people.

Layouts that are not declared, fused weights and doubts are findings (`diagnose/matched.py`).
"""

from collections.abc import Sequence

from parity.matching.confirmed import Outputs
from parity.matching.named import Found, NamePair, line_of, split

MOST = 6  # lines of one kind
SURE = 0.7  # pairs with less confidence are marked


def found_lines(found: Found, outputs: Outputs | None = None, report: str = "") -> list[str]:
    """Lines about taps with other names and declared layouts; none if there are none.

    Args:
        outputs: what the modules' outputs show; they confirm names.
        report: the file that lists all names, if one is written.
    """
    return [
        *_renamed(found.renamed, outputs or Outputs(), report),
        *_guessed(found.guesses),
        *_applied(found),
    ]


def _renamed(pairs: Sequence[NamePair], outputs: Outputs, report: str) -> list[str]:
    """A line for each renaming, the same in all blocks once."""
    if not pairs:
        return []
    groups: dict[str, list[NamePair]] = {}
    for pair in pairs:
        groups.setdefault(line_of(pair.candidate, pair.baseline), []).append(pair)
    lines = [f"names: {len(pairs)} taps have other names in the candidate and were matched:"]
    for group in list(groups.values())[:MOST]:
        first, count = group[0], f" and {len(group) - 1} more like it" if len(group) > 1 else ""
        doubtful = [pair for pair in group if pair.confidence < SURE]
        unsure = not all(outputs.confirm(split(pair.baseline)[1]) for pair in doubtful)
        note = " (not sure: by its place alone)" if unsure else ""
        lines.append(f"  {first.candidate} is {first.baseline}{count}{note}")
    if len(groups) > MOST:
        place = f", in {report}" if report else ""
        lines.append(f"  and {len(groups) - MOST} more lines like these{place}")
    return lines


def _guessed(pairs: Sequence[NamePair]) -> list[str]:
    """A line about taps that are not compared, since only their place suggests a match."""
    if not pairs:
        return []
    first, count = pairs[0], "1 pair" if len(pairs) == 1 else f"{len(pairs)} pairs"
    return [
        f"names: {count} of taps with other names and other numbers are not compared, because only "
        f"their place suggests that they belong together (first {first.candidate} of the candidate "
        f"and {first.baseline}); where they do belong together, give `names`"
    ]


def unused_lines(found: Found) -> list[str]:
    """A line for each pattern of the user that has no effect."""
    why = "it fits no tap of the candidate, or an earlier pattern fits first"
    return [f"{pattern} has no effect: {why}; mend it, or take it out" for pattern in found.unused]


def _applied(found: Found) -> list[str]:
    """A line for each declared layout."""
    counts: dict[str, int] = {}
    for name in found.declared.values():
        counts[name] = counts.get(name, 0) + 1
    return [f"layout: {name}, as declared, in {n} taps" for name, n in counts.items()]
