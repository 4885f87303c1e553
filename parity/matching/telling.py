"""What was found about names and layouts, in lines for people."""

from collections.abc import Sequence

from parity.matching.named import Found, NamePair, line_of

MOST = 6  # lines of one kind
SURE = 0.7  # pairs with less confidence are marked


def found_lines(found: Found) -> list[str]:
    """Lines about renamed taps, doubts, fused modules and layouts; none if all names are equal."""
    return [*_renamed(found.renamed), *_doubts(found), *_structure(found)]


def _renamed(pairs: Sequence[NamePair]) -> list[str]:
    """A line for each renaming, the same in all blocks once."""
    if not pairs:
        return []
    groups: dict[str, list[NamePair]] = {}
    for pair in pairs:
        groups.setdefault(line_of(pair.candidate, pair.baseline), []).append(pair)
    lines = [f"names: {len(pairs)} taps have other names in the candidate and were matched:"]
    for group in list(groups.values())[:MOST]:
        first, count = group[0], f" and {len(group) - 1} more like it" if len(group) > 1 else ""
        unsure = min(pair.confidence for pair in group) < SURE
        note = " (not sure: by its place alone)" if unsure else ""
        lines.append(f"  {first.candidate} is {first.baseline}{count}{note}")
    if len(groups) > MOST:
        lines.append(f"  and {len(groups) - MOST} more kinds of names")
    return lines


def _doubts(found: Found) -> list[str]:
    lines = [
        f"names: {_some(doubt.baseline)} of the baseline and {_some(doubt.candidate)} of the "
        f"candidate: {doubt.why}"
        for doubt in found.doubts
    ]
    return _first(lines, "doubts about names")


def _structure(found: Found) -> list[str]:
    lines = [
        f"layout: {_some(taps)} {'has' if len(taps) == 1 else 'have'} the baseline's numbers in "
        f"another layout; to declare it, add to layouts: `{line}`"
        for line, taps in found.layout_lines().items()
    ]
    fused = {str(each.lines()): f"names: {each.sentence()}" for each in found.fused}
    counts: dict[str, int] = {}
    for name in found.declared.values():
        counts[name] = counts.get(name, 0) + 1
    applied = [f"layout: {name}, as declared, in {n} taps" for name, n in counts.items()]
    return _first([*fused.values()], "fused modules") + _first(lines, "layouts") + applied


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _first(lines: list[str], what: str) -> list[str]:
    more = [f"and {len(lines) - MOST} more {what}"] if len(lines) > MOST else []
    return lines[:MOST] + more
