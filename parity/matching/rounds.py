"""Pairs of modules, found in rounds: what is sure first, then what follows from it.

A *group* is what is open in two containers that belong together, of one shape. In a group, modules
with the same words in their names are one *template*; templates are paired by their words, and the
modules of two templates by their numbers. Each round's pairs show more containers
(`containers.py`). At last, the order of the whole model decides where nothing else does
(`alignment.py`).
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from parity.matching.alignment import align
from parity.matching.assignment import clear_pairs
from parity.matching.containers import home, match_containers
from parity.matching.fused import Whole, find_fused
from parity.matching.named import Array, Doubt, axes_key
from parity.matching.similarity import likeness, word_likeness, words
from parity.matching.units import Unit, in_number_order, may_pair, same_roles, sorted_by_name

LIKE = 0.3  # less alike, names say nothing
SAME = 0.85  # the score of templates with the same words and roles
BY_SHAPE = 0.75  # confidence, if nothing else has this shape
CERTAIN = 0.2  # a smaller margin between the best alignment and the next one is a doubt
CROSSED = 0.2  # so much more alike would two pairs be if they were exchanged: a doubt
WRONG_SHAPE = 0.3  # exchanged axes, where all other pairs have equal shapes, or the reverse
ROUNDS = 6
SETTLE = "equal weights on both sides would settle it, or a pattern in names"
SEVERAL = f"of one shape, and neither names nor order tell which is which; {SETTLE}"

Paired = tuple[Unit, Unit, float]


@dataclass
class Rounds:
    """The modules that are open on each side, and the pairs so far."""

    ours: list[Unit]
    theirs: list[Unit]
    pairs: list[Paired] = field(default_factory=list)  # with the confidence
    fused: list[Whole] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sorted = sorted_by_name(self.ours), sorted_by_name(self.theirs)

    def open(self) -> tuple[list[Unit], list[Unit]]:
        """The modules without a partner."""
        used = {id(unit) for one, other, _ in self.pairs for unit in (one, other)}
        used |= {id(unit) for whole, parts in self.fused for unit in (whole, *parts)}
        return (
            [unit for unit in self.ours if id(unit) not in used],
            [unit for unit in self.theirs if id(unit) not in used],
        )

    def run(self) -> list[Doubt]:
        """Find all pairs; returns the doubts."""
        self.until_settled()
        self.fused = find_fused(self.open(), self.containers())
        self.until_settled()
        for container, ours, theirs in self.groups({"": ""}):  # across containers
            self.pairs += self.resolve(container, ours, theirs)
        if not any(self.sorted):
            self.pairs += self.by_order()
        return [
            Doubt(_names(ours), _names(theirs), SEVERAL)
            for _, *group in self.groups(self.containers())
            for ours, theirs in _that_may_pair(*group)
        ]

    def until_settled(self) -> None:
        """Rounds until no pair is found any more."""
        for _ in range(ROUNDS):
            before = len(self.pairs)
            for container, ours, theirs in self.groups(self.containers()):
                self.pairs += self.resolve(container, ours, theirs)
            if len(self.pairs) == before:
                break

    def containers(self) -> dict[str, str]:
        """The containers that belong together, as the pairs show."""
        return match_containers((one, other) for one, other, _ in self.pairs)

    def groups(
        self, containers: dict[str, str]
    ) -> list[tuple[tuple[str, str], list[Unit], list[Unit]]]:
        """What is open in two containers that belong together, of one size."""
        back = {b: a for a, b in containers.items()}
        found: dict[tuple[str, int], tuple[list[Unit], list[Unit]]] = defaultdict(lambda: ([], []))
        ours, theirs = self.open()
        for unit in ours:
            found[home(unit, containers), unit.size][0].append(unit)
        for unit in theirs:
            found[back[home(unit, back)], unit.size][1].append(unit)
        return [((a, containers[a]), *group) for (a, _), group in found.items() if all(group)]

    def resolve(
        self, container: tuple[str, str], ours: Sequence[Unit], theirs: Sequence[Unit]
    ) -> Iterable[Paired]:
        """The sure pairs of one group."""
        left, right = (
            _templates(units, path) for units, path in zip((ours, theirs), container, strict=True)
        )
        same = self.same_shapes()
        scores = np.array([[_template_score(a, b, left, right, same) for b in right] for a in left])
        for i, j, confidence in clear_pairs(scores):
            one, other = list(left.values())[i], list(right.values())[j]
            alone = len(left) == len(right) == 1 and len(one) == len(other) == 1
            if container == ("", "") and scores[i, j] < LIKE and not (alone and _telling(one[0])):
                continue
            if (
                len(one) > 1
                and len(ours) != len(theirs)
                and not (container[0] and scores[i, j] >= SAME)
            ):
                continue  # which of them is missing? their count says nothing
            ordered = in_number_order(one, self.sorted[0]), in_number_order(other, self.sorted[1])
            if len(one) == len(other) and all(ordered):
                alike = round(0.6 + 0.35 * float(scores[i, j]), 2)  # unlike names: less sure
                for a, b in zip(*ordered, strict=True):
                    sure = BY_SHAPE if alone and self.has_own_shape(a) else 0.0
                    yield a, b, max(sure, min(confidence, alike))

    def has_own_shape(self, one: Unit) -> bool:
        """Whether no other module of either side has weights of this size."""
        sizes = ([unit.size for unit in units] for units in (self.ours, self.theirs))
        return _telling(one) and all(side.count(one.size) == 1 for side in sizes)

    def same_shapes(self) -> bool | None:
        """Whether kernels have the same shapes on both sides, as the pairs show: True with equal
        shapes, False with exchanged axes, None if nothing shows it."""
        equal = {
            one.main.shape == other.main.shape
            for one, other, _ in self.pairs
            if "weight" in one.items
            and len(axes_key(one.main.shape)) > 1
            and one.main.shape != one.main.shape[::-1]
            and len(one.main.shape) == len(other.main.shape)
        }
        return equal.pop() if len(equal) == 1 else None

    def by_order(self) -> Iterable[Paired]:
        """Pairs that the order of the whole model shows, with low confidence."""
        place = {id(one): id(other) for one, other, _ in self.pairs}
        taken = set(place.values())
        scores = np.full((len(self.ours), len(self.theirs)), -np.inf)
        for i, one in enumerate(self.ours):
            for j, other in enumerate(self.theirs):
                if id(one) in place or id(other) in taken:
                    scores[i, j] = 1.0 if place.get(id(one)) == id(other) else -np.inf
                elif may_pair(one, other):
                    scores[i, j] = 0.25 + 0.75 * likeness(one.path, other.path)
        pairs = align(scores)
        crossed = _crossed(scores, [(i, j) for i, j, _ in pairs])
        for i, j, margin in pairs:
            if id(self.ours[i]) not in place and margin >= CERTAIN and (i, j) not in crossed:
                yield self.ours[i], self.theirs[j], 0.6


def _that_may_pair(
    ours: Sequence[Unit], theirs: Sequence[Unit]
) -> Iterable[tuple[list[Unit], list[Unit]]]:
    """Parts of a group that may be paired inside and not with one another, in order."""
    left = list(ours)
    while left:
        mine, yours = [left.pop(0)], list[Unit]()
        while True:
            yours_now = [u for u in theirs if any(may_pair(one, u) for one in mine)]
            more = [one for one in left if any(may_pair(one, u) for u in yours_now)]
            if not more and len(yours_now) == len(yours):
                break
            mine, yours = [one for one in ours if one in [*mine, *more]], yours_now
            left = [one for one in left if one not in more]
        if yours:
            yield mine, yours


def _names(units: Iterable[Unit]) -> tuple[str, ...]:
    return tuple(name for unit in units for name in unit.names)


def _templates(units: Sequence[Unit], container: str) -> dict[tuple[str, ...], list[Unit]]:
    """The units by their words within the container and their operation and shape, in order."""
    found: dict[tuple[str, ...], list[Unit]] = defaultdict(list)
    for unit in units:
        facts = f"{unit.main.operation} {unit.main.shape}"
        key = (*words(unit.inside(container)), facts)
        found[key].append(unit)
    return found


def _template_score(
    a: tuple[str, ...],
    b: tuple[str, ...],
    left: dict[tuple[str, ...], list[Unit]],
    right: dict[tuple[str, ...], list[Unit]],
    same_shapes: bool | None,
) -> float:
    """How alike two templates are, up to 1; -inf if they cannot belong together."""
    one, other = left[a][0], right[b][0]
    if not may_pair(one, other):
        return -np.inf
    alike = 0.7 * word_likeness(a[:-1], b[:-1]) + 0.2 * same_roles(one, other)
    if one.main.operation and one.main.operation == other.main.operation:
        alike += 0.1
    shapes = one.main.shape, other.main.shape
    if (
        same_shapes is not None
        and "weight" in one.items
        and len(shapes[0]) > 1
        and (shapes[0] == shapes[1]) != same_shapes
    ):
        if shapes[0] != shapes[0][::-1]:
            alike -= WRONG_SHAPE
    return alike


def _telling(unit: Unit) -> bool:
    """Whether a shape that occurs once on each side shows by itself what a module is."""
    return len(axes_key(unit.main.shape)) > 1 and "" not in unit.items


def _crossed(scores: Array, pairs: Sequence[tuple[int, int]]) -> set[tuple[int, int]]:
    """Pairs that would be far more alike if two of them were exchanged."""
    found: set[tuple[int, int]] = set()
    for a, (i, j) in enumerate(pairs):
        for k, m in pairs[a + 1 :]:
            if scores[i, m] + scores[k, j] > scores[i, j] + scores[k, m] + CROSSED:
                found |= {(i, j), (k, m)}
    return found
