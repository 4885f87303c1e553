"""Differences between two manifests, and what only one side has: no numbers are needed."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from parity.comparison.judge import row_without_numbers
from parity.comparison.verdict import Evidence, OneSided, Row
from parity.diagnose.causes.facts import Operation, operations_of
from parity.diagnose.faults import UNUSED
from parity.diagnose.finding import Finding, Kind
from parity.diagnose.local import COUNTER
from parity.diagnose.stages import module_of, place_of

SETTINGS = "settings"  # stage of the rows of settings that differ
INPUT = "input:"  # begins the name of a gradient by an input
MASKS, RATE = "dropout", "p"  # the operation, and its setting
# kind of a tap that only the baseline has, or only the candidate -> code, class, sentence
ONE_SIDED: dict[tuple[str, str], tuple[str, Kind, str]] = {
    ("gradients", "baseline"): (
        "frozen",
        "other state",
        "no gradient reaches {count} (first {first}): frozen or detached in the candidate",
    ),
    ("state", "baseline"): (
        "one-sided",
        "other structure",
        "the candidate lacks {count} (first {first})",
    ),
    ("state", "candidate"): (
        "one-sided",
        "other structure",
        "the candidate has {count} that the baseline lacks (first {first})",
    ),
}


@dataclass(frozen=True)
class Difference:
    """Settings of one module that differ, as a sentence, and the candidate's file and line."""

    text: str
    source: str
    same_operation: bool = True  # else two functions, whose numbers are compared


def setting_differences(pair: Evidence) -> dict[str, Difference]:
    """Module -> settings that both sides state, and that differ."""
    baseline, candidate = (operations_of(t.manifest) for t in (pair.baseline, pair.candidate))
    result: dict[str, Difference] = {}
    for name, mine in baseline.items():
        other = candidate.get(name)
        if other is None or not mine.operation or not other.operation:
            continue
        text = setting_difference(mine, other)
        if text:
            result.setdefault(
                module_of(name.partition("/")[2]),
                Difference(text, other.source, mine.operation == other.operation),
            )
    return result


def setting_rows(pair: Evidence) -> list[Row]:
    """A row, `undecided`, for each module of a whole pass whose settings differ: what they change
    may show in no tap, as a rate of dropout does."""
    if pair.baseline.manifest.get("kind") != "pass":
        return []
    return [
        replace(
            row_without_numbers(SETTINGS, module, pair),
            verdict="undecided",
            reason=difference.text,
        )
        for module, difference in setting_differences(pair).items()
        if difference.same_operation
    ]


def setting_difference(mine: Operation, other: Operation) -> str:
    """The settings that differ, in words; the baseline's come last. Empty if none differs."""
    if mine.operation != other.operation:
        return f"{other.operation} instead of {mine.operation}"
    keys = [key for key in mine.settings if key in other.settings and key != "training"]
    keys = [key for key in keys if key != RATE or mine.operation == MASKS]
    differ = [key for key in keys if not same(mine.settings[key], other.settings[key])]
    if set(differ) == {"dilation", "groups"}:
        sides = [
            (numbers(m.settings["dilation"]), numbers(m.settings["groups"])) for m in (mine, other)
        ]
        if sides[0][0][:1] == sides[1][1][:1] and sides[0][1][:1] == sides[1][0][:1]:
            return "dilation and groups are exchanged"
    words = [f"{key} {other.settings[key]} instead of {mine.settings[key]}" for key in differ]
    return f"{mine.operation} with {', '.join(words)}" if words else ""


def same(first: Any, second: Any) -> bool:
    """Whether two settings are equal; a list of equal numbers equals the number."""
    if first is None or second is None:  # not given: the framework's default, which is not known
        return True
    return bool(first == second or numbers(first) == numbers(second) != [])


def numbers(value: Any) -> list[float]:
    """The numbers of a setting; of a list of equal ones, one."""
    items = value if isinstance(value, (list, tuple)) else [value]
    if not all(isinstance(item, (int, float)) for item in items):
        return []
    return [float(items[0])] if items and len(set(items)) == 1 else [float(item) for item in items]


def left_out(parameter: str, findings: Sequence[Finding]) -> bool:
    """Whether a finding says already that a module leaves its parameter out."""
    owner = parameter.rpartition(".")[0]
    return any(found.code in UNUSED and owner in found.places for found in findings)


def with_one_sided(finding: Finding, one_sided: OneSided) -> Finding:
    """The finding with the baseline's taps that the candidate lacks because of it.

    A frozen parameter may have no gradient at all, and so has one that a function leaves out.
    """
    missing = []
    for name in one_sided.baseline:
        place = place_of(*name.split("/", 1))
        parameter = module_of(place.name)
        owner = parameter.rpartition(".")[0]
        frozen = finding.code == "frozen" and parameter in finding.places
        unused = finding.code in UNUSED and owner in finding.places
        if place.kind in ("gradients", "state", "update") and (frozen or unused):
            missing.append(name)
    explained = tuple(dict.fromkeys([*finding.explained, *missing]))
    return replace(finding, explained=explained)


def one_sided_findings(
    rows: Sequence[Row], one_sided: OneSided, findings: Sequence[Finding]
) -> Iterator[Finding]:
    """Gradients that the candidate lacks, and parameters and buffers that one side lacks."""
    if not rows:
        return
    first = rows[0]
    sides: Mapping[str, Sequence[str]] = {
        "baseline": one_sided.baseline,
        "candidate": one_sided.candidate,
    }
    kinds = {place_of(row.stage, row.tap).kind for row in rows}
    for (kind, side), (code, group, text) in ONE_SIDED.items():
        if code == "frozen" and kind not in kinds:  # the candidate records no gradients at all
            continue
        absent = set(names_of("state", sides[side]))  # no gradient is missing of these
        names = names_of(kind, sides[side])
        unique = [name for name in names if kind == "state" or name not in absent]
        unique = [name for name in unique if not left_out(name, findings)]
        if not unique or any(
            found.code == code and unique[0] in found.places for found in findings
        ):
            continue
        count = in_nouns(unique, sides[side])
        sentence = text.format(count=count, first=unique[0])
        related = [n for n in sides[side] if place_of(*n.split("/", 1)).name in unique]
        stage, tap = names[unique[0]].split("/", 1)
        yield Finding(
            first.case,
            first.pair,
            first.precision,
            stage,
            tap,
            "backward" if kind == "gradients" else "data",
            ((code, sentence),),
            sentence,
            group,
            tuple(unique),
            tuple(related),
            "",
            "state" if code == "frozen" else "settings",
        )


def in_nouns(names: Sequence[str], taps: Sequence[str]) -> str:
    """How many inputs, parameters and buffers some names are, as far as all taps of a side show."""
    learned = {*names_of("gradients", taps), *names_of("update", taps)}
    counted = names_of("statistics", taps)
    nouns = Counter(
        "input"
        if name.startswith(INPUT)
        else "parameter"
        if name in learned
        else "buffer"
        if name in counted
        else "weight"
        for name in names
    )
    return " and ".join(f"{n} {noun}{'s' * (n > 1)}" for noun, n in nouns.items())


def names_of(kind: str, taps: Sequence[str]) -> dict[str, str]:
    """Parameter -> its first tap of a kind, among taps of one side; counters are left out."""
    result: dict[str, str] = {}
    for tap in taps:
        place = place_of(*tap.split("/", 1))
        if place.kind == kind and not place.isolated and not tap.endswith(COUNTER):
            result.setdefault(place.name, tap)
    return result
