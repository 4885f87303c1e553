"""The tables of a calibration, in Markdown."""

from collections.abc import Callable, Sequence
from typing import Any

from tools.calibration.judging import OURS
from tools.calibration.rules import RULES

Facts = dict[str, Any]
CONDITIONS = ("kind", "activation", "depth", "width")


def tables(found: Sequence[Facts]) -> str:
    """All tables."""
    right, faulty = split(found)
    parts = [
        ("By rule", by_rule(right, faulty)),
        ("By rule and network: false alarms, misses", by_network(right, faulty)),
        ("By condition (parity)", by_condition(right, faulty)),
        ("Right candidates (parity)", by_change(right)),
        ("Faults", by_fault(faulty)),
        ("Rules", sources()),
    ]
    return "\n".join(f"## {title}\n\n{text}" for title, text in parts)


def split(found: Sequence[Facts]) -> tuple[list[Facts], list[Facts]]:
    """Right pairs, and faulty ones."""
    right = [facts for facts in found if facts["case"]["right"]]
    return right, [facts for facts in found if not facts["case"]["right"]]


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], side: str = "---:") -> str:
    """A table; `side`: how the columns behind the first are set, to the right as numbers are."""
    lines = [head, ["---"] + [side] * (len(head) - 1), *rows]
    return "".join("| " + " | ".join(str(cell) for cell in line) + " |\n" for line in lines)


def flagged(facts: Facts, rule: str) -> bool:
    """Whether a rule flags any tap of a pair."""
    return bool(facts["rules"][rule]["flagged"])


def by_rule(right: Sequence[Facts], faulty: Sequence[Facts]) -> str:
    """False alarms and misses of each rule."""
    rows = []
    for rule in (right or faulty)[0]["rules"]:
        alarms = sum(flagged(facts, rule) for facts in right)
        taps = sum(facts["rules"][rule]["taps"] for facts in right)
        share = sum(facts["rules"][rule]["flagged"] for facts in right) / max(taps, 1)
        misses = sum(not flagged(facts, rule) for facts in faulty)
        placed = sum(facts["rules"][rule]["placed"] for facts in faulty)
        rows.append([rule, alarms, f"{100 * share:.2g} %", misses, placed])
    head = [
        "rule",
        f"false alarms of {len(right)}",
        "taps flagged in right pairs",
        f"misses of {len(faulty)}",
        "first flagged tap at the fault",
    ]
    return table(head, rows)


def by_network(right: Sequence[Facts], faulty: Sequence[Facts]) -> str:
    """False alarms and misses of each rule, for kinds, depths and widths of networks."""
    names = ("kind", "depth", "width")
    values = [(n, v) for n in names for v in values_of(right, n)]
    rows = []
    for rule in (right or faulty)[0]["rules"]:
        cells = []
        for name, value in values:
            alarms = sum(flagged(f, rule) for f in right if f["case"][name] == value)
            misses = sum(not flagged(f, rule) for f in faulty if f["case"][name] == value)
            cells.append(f"{alarms}, {misses}")
        rows.append([rule, *cells])
    sizes = [sum(f["case"][n] == v for f in right) for n, v in values]
    head = [f"{n} {v} ({size})" for (n, v), size in zip(values, sizes, strict=True)]
    return table(["rule", *head], rows)


def by_condition(right: Sequence[Facts], faulty: Sequence[Facts]) -> str:
    """What parity says, by each property of the network."""
    rows = []
    for name in CONDITIONS:
        for value in values_of([*right, *faulty], name):
            own = [f for f in right if f["case"][name] == value]
            bad = [f for f in faulty if f["case"][name] == value]
            rows.append([f"{name} {value}", *counts(own, bad)])
    rows.append(["all", *counts(right, faulty)])
    head = ["network", "right", "false alarms", "undecided taps", "faulty", "misses", "placed"]
    return table(head, rows)


def values_of(found: Sequence[Facts], name: str) -> list[Any]:
    """The values of a property of the network, in order."""
    return sorted({facts["case"][name] for facts in found})


def counts(right: Sequence[Facts], faulty: Sequence[Facts]) -> list[str]:
    """Pairs, false alarms and undecided taps; pairs, misses and right places."""
    undecided = sum(verdicts(facts).get("undecided", 0) for facts in right)
    taps = sum(facts["rules"][OURS]["taps"] for facts in right)
    return [
        str(len(right)),
        str(sum(flagged(facts, OURS) for facts in right)),
        f"{undecided} of {taps}",
        str(len(faulty)),
        str(sum(not flagged(facts, OURS) for facts in faulty)),
        str(sum(is_placed(facts) for facts in faulty)),
    ]


def verdicts(facts: Facts) -> dict[str, int]:
    """Taps of a pair by parity's verdict."""
    found: dict[str, int] = facts["rules"][OURS]["verdicts"]
    return found


def is_placed(facts: Facts) -> bool:
    """Whether parity's first finding begins at the fault."""
    return bool(facts["placed"])


def grouped(found: Sequence[Facts], key: Callable[[Facts], str]) -> dict[str, list[Facts]]:
    """Pairs by a key, in the order of its first pair."""
    groups: dict[str, list[Facts]] = {}
    for facts in found:
        groups.setdefault(key(facts), []).append(facts)
    return groups


def by_change(right: Sequence[Facts]) -> str:
    """Taps by verdict, for each way to compute the same function."""
    rows = []
    for change, own in grouped(right, lambda facts: str(facts["case"]["change"])).items():
        sums = [
            sum(verdicts(facts).get(verdict, 0) for facts in own)
            for verdict in ("equivalent", "vacuous", "less precise", "undecided", "different")
        ]
        rows.append([change, len(own), *sums])
    head = ["candidate", "pairs", "equivalent", "vacuous", "less precise", "undecided", "different"]
    return table(head, rows)


def by_fault(faulty: Sequence[Facts]) -> str:
    """For each fault: how many pairs each rule catches, and what parity says."""
    rows = []
    names = [OURS, *(rule.name for rule in RULES)]
    for change, own in grouped(faulty, lambda facts: str(facts["case"]["change"])).items():
        caught = [sum(flagged(facts, name) for facts in own) for name in names]
        placed = sum(is_placed(facts) for facts in own)
        rows.append([change, len(own), caught[0], placed, *caught[1:]])
    head = ["fault", "pairs", OURS, "placed", *names[1:]]
    return table(head, rows)


def sources() -> str:
    """What each rule says, and where its source says so."""
    return table(
        ["rule", "two arrays agree if", "source"],
        [[rule.name, rule.text, rule.source] for rule in RULES],
        "---",
    )
