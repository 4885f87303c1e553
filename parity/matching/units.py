"""Modules with their parameters, or single outputs: what is matched after equal names."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

from parity.matching.named import Named, compatible, in_one_order
from parity.matching.similarity import numbers, split_role, words

SEPARATOR = re.compile(r"[./:]+")


@dataclass
class Unit:
    """The arrays of one path by role: a module's parameters, or one output with the role ""."""

    path: str  # in the baseline's words, if a pattern of the user fits
    items: dict[str, Named] = field(default_factory=dict)

    @cached_property
    def main(self) -> Named:
        """The array that decides the class: the weight, else the one with most elements."""
        return self.items.get("weight") or max(
            self.items.values(), key=lambda item: prod(item.shape)
        )

    @property
    def size(self) -> int:
        """The number of elements of the main array; only units of equal size can be a pair."""
        return prod(self.main.shape)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(item.name for item in self.items.values())

    @cached_property
    def ancestors(self) -> tuple[str, ...]:
        """The paths of the containers, the innermost first and the whole model, "", last."""
        ends = [match.start() for match in SEPARATOR.finditer(self.path)]
        return (*[self.path[:end] for end in reversed(ends)], "")

    def inside(self, container: str) -> str:
        """The path within a container."""
        return self.path[len(container) :] if container else self.path

    @property
    def words(self) -> tuple[str, ...]:
        return words(self.path)

    @property
    def numbers(self) -> tuple[int, ...]:
        return numbers(self.path)


def units_of(
    items: Iterable[Named], aliases: Mapping[str, str], by_module: bool = True
) -> list[Unit]:
    """The units of one side, in order; `aliases`: names after the user's patterns.

    With `by_module` False each item is a unit of its own.
    """
    units: dict[str, Unit] = {}
    for item in items:
        name = aliases.get(item.name, item.name)
        path, role = split_role(name) if by_module else (name, "")
        unit = units.setdefault(path, Unit(path))
        while role in unit.items:  # two spellings of one role in one module: keep both
            role += "'"
        unit.items[role] = item
    return list(units.values())


def have_roles(names: Iterable[str]) -> bool:
    """Whether most names end with a role, so that they can be grouped by module."""
    roles = [bool(split_role(name)[1]) for name in names]
    return sum(roles) > len(roles) / 2


def sorted_by_name(units: Sequence[Unit]) -> bool:
    """Whether a list is in the order of the alphabet, so that its order says nothing."""
    paths = [unit.path for unit in units]
    return len(paths) > 3 and paths == sorted(paths)


def in_number_order(units: Sequence[Unit], is_sorted: bool) -> list[Unit]:
    """Units of one template, in the order of their numbers; empty if their place contradicts it."""
    ordered = sorted(units, key=lambda unit: unit.numbers)
    return ordered if is_sorted or ordered == list(units) else []


def same_roles(one: Unit, other: Unit) -> float:
    """0 to 1: the share of roles that both have; counters do not count."""
    ours, theirs = one.items.keys() - {"count"}, other.items.keys() - {"count"}
    return len(ours & theirs) / max(1, len(ours | theirs))


def pair_roles(
    one: Unit, other: Unit, taken: Iterable[str], taken_there: Iterable[str]
) -> Iterable[tuple[Named, Named]]:
    """Arrays of two units that belong together: of one role, or each the only one of its shape."""
    left = {role: item for role, item in one.items.items() if item.name not in set(taken)}
    right = {role: item for role, item in other.items.items() if item.name not in set(taken_there)}
    for role in [role for role in left if role in right]:
        if compatible(left[role], right[role]):
            yield left.pop(role), right.pop(role)
    if len(left) == 1 and len(right) == 1:
        (item,), (partner,) = left.values(), right.values()
        if compatible(item, partner):
            yield item, partner


def may_pair(one: Unit, other: Unit) -> bool:
    """Whether two units can be the same module: by the shape of the main array, the operation, and
    at least half of the roles."""
    fitting = compatible(one.main, other.main) and in_one_order(one.main, other.main)
    return fitting and same_roles(one, other) >= 0.5
