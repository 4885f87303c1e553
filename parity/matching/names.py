"""Which name of the candidate is which name of the baseline.

    found = match(as_named(baseline_state), as_named(candidate_state, known=False), names)
    for pair in found.pairs: ...

Used for parameters, for module outputs and for choices. The steps, each on what is left:

1. the user's patterns;  2. equal names;  3. names that are equal but for spelling;
4. equal numbers that occur once (only where numbers are known);
5. modules by shape, words, containers and order (`rounds.py`);
6. parameters inside a pair of modules, by their roles.

A wrong pair is worse than none. Where the names contradict the order, where another alignment is
nearly as good, or where known numbers differ, the names are listed as a doubt and not paired.
"""

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Literal, TypeVar

import numpy as np

from parity.errors import ParityError
from parity.matching.declared import Declared
from parity.matching.named import Doubt, Fused, How, Match, Named, NamePair, by_name, compatible
from parity.matching.rounds import Rounds
from parity.matching.similarity import canonical, numbers
from parity.matching.units import have_roles, pair_roles, units_of

__all__ = ["Doubt", "Match", "NamePair", "Named", "match"]


Key = TypeVar("Key", bound=Hashable)


class _Matcher:
    """The state of one match: what is left on each side, and the pairs so far."""

    def __init__(self, baseline: Sequence[Named], candidate: Sequence[Named]) -> None:
        self.baseline = by_name(baseline, "baseline")
        self.candidate = by_name(candidate, "candidate")
        self.aliases = {name: name for name in self.candidate}  # the candidate's, after patterns
        self.pairs: dict[str, NamePair] = {}  # by the baseline's name
        self.taken: set[str] = set()  # names of the candidate that have a pair
        self.doubts: list[Doubt] = []
        self.fused: list[Fused] = []

    def add(self, baseline: str, candidate: str, how: How, confidence: float = 1.0) -> None:
        self.pairs[baseline] = NamePair(baseline, candidate, how, confidence)
        self.taken.add(candidate)

    def left(self) -> tuple[list[Named], list[Named]]:
        """The items that have no partner yet."""
        return (
            [item for name, item in self.baseline.items() if name not in self.pairs],
            [item for name, item in self.candidate.items() if name not in self.taken],
        )

    def by_patterns(self, names: Mapping[str, str]) -> tuple[str, ...]:
        """Step 1; returns the patterns that fit no name."""
        used, declared = set(), Declared(names)
        for name in self.candidate:
            fitting = declared.alias(name)
            if fitting is None:
                continue
            pattern, new = fitting
            used.add(pattern)
            self.aliases[name] = new
            if new in self.pairs:
                raise ParityError(
                    f"names: {pattern}: two of the candidate's names, {name} and "
                    f"{self.pairs[new].candidate}, become {new}; expected one; mend the pattern"
                )
            if new in self.baseline:
                self.add(new, name, "pattern")
        return tuple(pattern for pattern in names if pattern not in used)

    def by_equal_names(self) -> None:
        """Step 2. Names that are counted otherwise wait; equal names of other shapes as well."""
        _, left = self.left()
        shifted = self.shifted()
        for item in left:
            one = self.baseline.get(self.aliases[item.name])
            if one and one.name not in self.pairs and compatible(one, item):
                if template(one.name) not in shifted:
                    self.add(one.name, item.name, "equal")

    def by_spelling(self) -> None:
        """Step 3. Both sides must count alike: `bn1` is not `batch_normalization_1` of twenty."""
        ours, theirs = self.left()
        counted = self.counted()
        one_side = unique({item.name: canonical(item.name) for item in ours})
        other_side = unique({item.name: canonical(self.aliases[item.name]) for item in theirs})
        for key in one_side.keys() & other_side.keys():
            one, other = self.baseline[one_side[key]], self.candidate[other_side[key]]
            sure = compatible(one, other) and not refuted(one, other)
            kind = template(one.name)
            if sure and counted[0].get(kind) == counted[1].get(kind):
                self.add(one.name, other.name, "similar", 0.95)

    def counted(self) -> tuple[dict[tuple[str, ...], set[object]], ...]:
        """Each side's templates -> the numbers in the names of what is left."""
        ours, theirs = self.left()
        sides: tuple[dict[tuple[str, ...], set[object]], ...] = ({}, {})
        for side, names in zip(
            sides, ([i.name for i in ours], [self.aliases[i.name] for i in theirs]), strict=True
        ):
            for name in names:
                side.setdefault(template(name), set()).add(numbers(name))
        return sides

    def shifted(self) -> set[tuple[str, ...]]:
        """The templates whose numbers may be counted otherwise: each side has a number that the
        other lacks (`conv1`, `conv2` and `conv0`, `conv1`), or a name has another shape there."""
        counted = self.counted()
        found = {
            key
            for key, values in counted[0].items()
            if values - counted[1].get(key, values) and counted[1][key] - values
        }
        for item in self.left()[1]:
            one = self.baseline.get(self.aliases[item.name])
            if one and not compatible(one, item) and numbers(one.name):
                found.add(template(one.name))
        return found

    def by_values(self) -> None:
        """Step 4."""
        ours, theirs = self.left()
        one_side = unique({item.name: fingerprint(item) for item in ours})
        other_side = unique({item.name: fingerprint(item) for item in theirs})
        for key in one_side.keys() & other_side.keys():
            if key:
                self.add(one_side[key], other_side[key], "values")

    def by_order(self) -> None:
        """Steps 5 and 6."""
        by_module = have_roles(self.baseline) == have_roles(self.aliases.values())
        rounds = Rounds(
            units_of(self.baseline.values(), {}, by_module),
            units_of(self.candidate.values(), self.aliases, by_module),
        )
        owner = {name: unit for unit in rounds.theirs for name in unit.names}
        for unit in rounds.ours:
            partners = [owner[self.pairs[n].candidate] for n in unit.names if n in self.pairs]
            rounds.pairs += [
                (unit, partner, 0.95) for partner in {id(p): p for p in partners}.values()
            ]
        doubts = rounds.run()
        for one, other, confidence in rounds.pairs:
            for a, b in pair_roles(one, other, self.pairs, self.taken):
                if refuted(a, b):
                    why = "their numbers differ; if they belong together, give a pattern in names"
                    self.doubts.append(Doubt((a.name,), (b.name,), why))
                else:
                    self.add(a.name, b.name, "order", confidence)
        self.doubts += doubts
        for whole, parts in rounds.fused:
            for role, item in whole.items.items():
                side: Literal["baseline", "candidate"] = "candidate"
                if item is self.baseline.get(item.name):
                    side = "baseline"
                self.fused.append(
                    Fused(side, item.name, tuple(part.items[role].name for part in parts))
                )

    def finish(self, unused: tuple[str, ...]) -> Match:
        """Equal names that nothing else fits are pairs, whatever their shapes."""
        ours, theirs = self.left()
        doubtful = {name for doubt in self.doubts for name in doubt.baseline}
        free = {self.aliases[item.name]: item for item in theirs}
        for item in ours:
            if item.name in free and item.name not in doubtful:
                self.add(item.name, free[item.name].name, "equal", 0.5)
        ours, theirs = self.left()
        doubts = tuple(self._without_paired(self.doubts))
        listed = {name for doubt in doubts for name in doubt.baseline}
        listed_there = {name for doubt in doubts for name in doubt.candidate}
        for fused in self.fused:
            sides = listed, listed_there
            whole, parts = sides if fused.side == "baseline" else sides[::-1]
            whole.add(fused.name)
            parts.update(fused.parts)
        return Match(
            tuple(self.pairs[name] for name in self.baseline if name in self.pairs),
            tuple(item.name for item in ours if item.name not in listed),
            tuple(item.name for item in theirs if item.name not in listed_there),
            doubts,
            tuple(self.fused),
            unused,
        )

    def _without_paired(self, doubts: Iterable[Doubt]) -> Iterable[Doubt]:
        for doubt in doubts:
            ours = tuple(name for name in doubt.baseline if name not in self.pairs)
            theirs = tuple(name for name in doubt.candidate if name not in self.taken)
            if ours and theirs:
                yield Doubt(ours, theirs, doubt.why)


def match(
    baseline: Sequence[Named],
    candidate: Sequence[Named],
    names: Mapping[str, str] | None = None,
    known: Mapping[str, str] | None = None,
) -> Match:
    """Match the names of two models.

    Args:
        baseline, candidate: in the order of the computation, or of definition.
        names: pattern for a whole name of the candidate -> the baseline's name, as in
            `declared.py`; the first pattern that fits counts.
        known: pairs that another match has found, the candidate's name -> the baseline's.

    Raises:
        ParityError: a pattern is wrong, two names become one, or a name occurs twice on a side.
    """
    matcher = _Matcher(baseline, candidate)
    unused = matcher.by_patterns(names or {})
    for theirs, ours in (known or {}).items():
        if ours not in matcher.pairs and theirs not in matcher.taken:
            matcher.add(ours, theirs, "order", 0.9)
    matcher.by_equal_names()
    matcher.by_spelling()
    matcher.by_values()
    matcher.by_order()
    return matcher.finish(unused)


def template(name: str) -> tuple[str, ...]:
    """The name without its numbers: its words and its role."""
    return tuple(part for part in canonical(name) if not str(part).isdigit())


def unique(keys: Mapping[str, Key]) -> dict[Key, str]:
    """Key -> name, for the keys that occur once."""
    counts = Counter(keys.values())
    return {key: name for name, key in keys.items() if counts[key] == 1}


def fingerprint(item: Named) -> str:
    """A digest of the numbers, the same for every order of axes; empty if they are not known, or
    if all are equal (fresh biases and norms)."""
    if item.value is None:
        return item.digest
    flat = np.sort(np.asarray(item.value), axis=None)
    if flat.size < 2 or flat[0] == flat[-1]:
        return ""
    return hashlib.sha256(flat.tobytes()).hexdigest()[:16]


def refuted(one: Named, other: Named) -> bool:
    """Whether the numbers of both are known and are not the same."""
    if one.value is not None and other.value is not None:
        return not np.array_equal(
            np.sort(np.asarray(one.value), axis=None), np.sort(np.asarray(other.value), axis=None)
        )
    known = one.digest and other.digest and one.shape == other.shape
    return bool(known and one.digest != other.digest)
