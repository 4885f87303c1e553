"""Findings about names and layouts: the same numbers in another order, or under another name.

`Found` is what matching found out. Nothing of it is applied in silence, so each finding holds the
line that declares it.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from parity.comparison.verdict import Row
from parity.diagnose.faults import owners
from parity.diagnose.finding import Finding
from parity.diagnose.reach import Pass
from parity.diagnose.stages import module_of, place_of
from parity.listing import some
from parity.matching.named import TAP, Found, Fused

MOST = 3  # names in a sentence
OF_PARAMETERS = ("state", "gradients", "update", "statistics")


def true_layouts(found: Found, rows: Sequence[Row], graph: Pass) -> Found:
    """`found` without the parameters that are really in a wrong order.

    Where a parameter lies otherwise and its module gives right numbers, it is another layout. Where
    the numbers of its module differ as well, the parameter is wrong: that is another state.
    """
    verdicts: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        verdicts.setdefault((row.stage, row.tap), []).append(row.verdict)

    def is_layout(name: str) -> bool:
        place = place_of(*name.split("/", 1))
        if place.kind not in OF_PARAMETERS:
            return True
        taps = [tap for tap in owners(place.name, graph) if f"forward/{tap}" not in found.layouts]
        alone = [("isolated forward", tap) for tap in taps]
        known = [key for key in alone if key in verdicts] or [("forward", tap) for tap in taps]
        return not any("different" in verdicts.get(key, ()) for key in known)

    return replace(found, layouts={n: text for n, text in found.layouts.items() if is_layout(n)})


@dataclass(frozen=True)
class Told:
    """One thing that matching found: its code, sentence, taps, and names for `places`."""

    code: str
    text: str
    taps: tuple[str, ...]  # `stage/tap`, of either side


def told(found: Found) -> Iterator[Told]:
    """Everything that matching found, but for taps that only have another name."""
    for line, taps in found.layout_lines().items():
        have = "has" if len(taps) == 1 else "have"
        text = f"{some(taps, MOST)} {have} the baseline's numbers in another layout"
        yield Told("layout", f"{text}; to declare it, add to layouts: `{line}`", tuple(taps))
    groups: dict[str, list[Fused]] = {}
    for each in found.fused:
        inner = replace(each, name=path_of(each.name), parts=tuple(map(path_of, each.parts)))
        groups.setdefault(str(inner.lines()), []).append(inner)
    for same in groups.values():
        others = len({each.name for each in same}) - 1
        text = same[0].sentence(found.entry) + (
            f" (this holds for {others} more like it)" if others else ""
        )
        paths = {name for each in same for name in (each.name, *each.parts)}
        taps = [n for e in found.fused for n in (e.name, *e.parts) if path_of(n) in paths]
        yield Told("fused", text, tuple(dict.fromkeys(taps)))
    doubts: dict[str, list[str]] = {}
    for doubt in found.doubts:
        ours, theirs = ([path_of(n) for n in names] for names in (doubt.baseline, doubt.candidate))
        text = (
            f"{some(ours, MOST)} of the baseline and {some(theirs, MOST)} of the candidate may "
            f"belong together: {doubt.why}"
        )
        doubts.setdefault(text, []).extend([*doubt.baseline, *doubt.candidate])
    for text, names in doubts.items():
        yield Told("name in doubt", text, tuple(dict.fromkeys(names)))


def path_of(name: str) -> str:
    """The name of a tap without its stage."""
    parts = TAP.fullmatch(name)
    return parts.group(2) if parts else name


def matched_findings(found: Found, rows: Sequence[Row]) -> Iterator[Finding]:
    """The findings about names and layouts of one comparison."""
    first = next(iter(rows), None)
    for each in told(found) if first else ():
        assert first
        stage, _, tap = each.taps[0].partition("/")
        places = dict.fromkeys(module_of(place_of(*name.split("/", 1)).name) for name in each.taps)
        yield Finding(
            first.case,
            first.pair,
            first.precision,
            stage,
            tap,
            "data",
            ((each.code, each.text),),
            each.text,
            "other structure",
            tuple(places),
            each.taps,
            "",
            "numbers" if each.code == "layout" else "settings",
        )


def not_matched(found: Found) -> Collection[str]:
    """Names of either side that a finding about names tells of."""
    names: Mapping[str, None] = dict.fromkeys(
        name for each in told(found) if each.code != "layout" for name in each.taps
    )
    return names.keys()
