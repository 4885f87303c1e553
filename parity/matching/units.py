"""Modules with their parameters (or single outputs), aligned in order within each shape.

A *unit* is what one path holds: a module's parameters by role, or one module output. Units with the
same sizes of their largest array form a class; the two sequences of a class are aligned.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from parity.matching.alignment import align
from parity.matching.named import Array, Doubt, How, Named, axes_key, compatible
from parity.matching.similarity import likeness, split_role

CERTAIN = 0.2  # a smaller margin between the best alignment and the next one is a doubt
LIKE = 0.3  # vectors whose names are less alike, and whose roles differ, are not paired
CROSSED = 0.3  # so much more alike would two pairs be if they were exchanged: a doubt
FAR = 0.3  # a pair of unlike names whose places differ by this share of the model is a doubt


@dataclass
class Unit:
    """The arrays of one path, by role; a lone array has the role "" (or its own)."""

    path: str  # in the baseline's words, after patterns
    items: dict[str, Named] = field(default_factory=dict)
    place: float = 0.0  # 0 to 1, in the order of its side

    @property
    def main(self) -> Named:
        """The array that decides the class: the weight, else the one with most elements."""
        return self.items.get("weight") or max(
            self.items.values(), key=lambda item: int(np.prod(item.shape, dtype=np.int64))
        )

    @property
    def key(self) -> tuple[int, ...]:
        return axes_key(self.main.shape)


def units_of(items: Iterable[Named], aliases: Mapping[str, str]) -> list[Unit]:
    """The units of one side, in order."""
    units: dict[str, Unit] = {}
    for item in items:
        path, role = split_role(aliases.get(item.name, item.name))
        unit = units.setdefault(path, Unit(path))
        while role in unit.items:  # two spellings of one role in one module: keep both
            role += "'"
        unit.items[role] = item
    for number, unit in enumerate(units.values()):
        unit.place = number / max(1, len(units) - 1)
    return list(units.values())


def align_units(
    ours: Sequence[Unit], theirs: Sequence[Unit], known: Mapping[str, str]
) -> tuple[list[tuple[Unit, Unit, How, float]], list[Doubt]]:
    """Pairs of units with how and confidence, and doubts.

    `known`: pairs of names so far, baseline -> candidate. Units with a known pair of arrays belong
    together; the rest of their arrays is matched by role.
    """
    owner = {item.name: unit for unit in theirs for item in unit.items.values()}
    found: list[tuple[Unit, Unit, How, float]] = []
    taken: set[int] = set()
    rest = []
    for unit in ours:
        partners = {
            id(owner[known[i.name]]): owner[known[i.name]]
            for i in unit.items.values()
            if i.name in known
        }
        for partner in partners.values():
            found.append((unit, partner, "order", 0.9))
            taken.add(id(partner))
        if not partners:
            rest.append(unit)
    classes: dict[tuple[int, ...], tuple[list[Unit], list[Unit]]] = defaultdict(lambda: ([], []))
    for unit in rest:
        classes[unit.key][0].append(unit)
    for unit in theirs:
        if id(unit) not in taken:
            classes[unit.key][1].append(unit)
    doubts: list[Doubt] = []
    for left, right in classes.values():
        if left and right:
            pairs, open_questions = _align_class(left, right)
            found += pairs
            doubts += open_questions
    return found, doubts


def _align_class(
    ours: Sequence[Unit], theirs: Sequence[Unit]
) -> tuple[list[tuple[Unit, Unit, How, float]], list[Doubt]]:
    """Align the units of one class."""
    scores = np.array([[_score(one, other) for other in theirs] for one in ours])
    found: list[tuple[Unit, Unit, How, float]] = []
    doubts: list[Doubt] = []
    pairs = align(scores)
    crossed = _crossed(scores, [(i, j) for i, j, _ in pairs])
    for i, j, margin in pairs:
        one, other = ours[i], theirs[j]
        why = ""
        if (i, j) in crossed:
            why = "their names say one thing and their order another"
        elif margin < CERTAIN:
            why = "several have this shape, and neither order nor names tell which"
        elif scores[i, j] < LIKE and abs(one.place - other.place) > FAR:
            why = "they have one shape, but other names, and stand at different places"
        if why:
            why += "; equal weights would settle it, or a pattern in names"
            doubts.append(Doubt(_names(one), _names(other), why))
        else:
            found.append((one, other, "order", round(min(0.9, 0.5 + margin), 2)))
    return found, doubts


def _names(unit: Unit) -> tuple[str, ...]:
    return tuple(item.name for item in unit.items.values())


def _score(one: Unit, other: Unit) -> float:
    """0 to 1; -inf if the two cannot be the same module."""
    if not compatible(one.main, other.main):
        return -np.inf
    roles = len(one.items.keys() & other.items.keys()) / len(one.items.keys() | other.items.keys())
    alike = likeness(one.path, other.path)
    if len(one.key) < 2 and roles < 0.5 and alike < LIKE:
        return -np.inf  # a vector says too little
    return 0.75 * alike + 0.25 * roles


def _crossed(scores: Array, pairs: Sequence[tuple[int, int]]) -> set[tuple[int, int]]:
    """Pairs that would be far more alike if two of them were exchanged."""
    found: set[tuple[int, int]] = set()
    for a, (i, j) in enumerate(pairs):
        for k, m in pairs[a + 1 :]:
            if scores[i, m] + scores[k, j] > scores[i, j] + scores[k, m] + CROSSED:
                found |= {(i, j), (k, m)}
    return found


def pair_roles(
    one: Unit, other: Unit, taken: set[str], taken_there: set[str]
) -> Iterable[tuple[Named, Named]]:
    """Arrays of two units that belong together: of one role, or each the only one of its shape."""
    left = {role: item for role, item in one.items.items() if item.name not in taken}
    right = {role: item for role, item in other.items.items() if item.name not in taken_there}
    for role in [role for role in left if role in right]:
        if compatible(left[role], right[role]):
            yield left.pop(role), right.pop(role)
    if len(left) == 1 and len(right) == 1:
        (item,), (partner,) = left.values(), right.values()
        if compatible(item, partner):
            yield item, partner
