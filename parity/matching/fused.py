"""Query, key and value in one module on one side and in three on the other."""

from collections.abc import Mapping, Sequence

from parity.matching.containers import home
from parity.matching.units import Unit

PARTS = ("query", "key", "value")
Whole = tuple[Unit, tuple[Unit, ...]]  # the module that has all in one, and the parts


def find_fused(
    sides: tuple[Sequence[Unit], Sequence[Unit]], containers: Mapping[str, str]
) -> list[Whole]:
    """Modules of three times the size of three modules named query, key and value of the other
    side, in containers that belong together."""
    back = {b: a for a, b in containers.items()}
    found: list[Whole] = []
    for (wholes, others), here, there in (
        (sides, containers, back),
        (sides[::-1], back, containers),
    ):
        for whole in wholes:
            inside = here[home(whole, here)]
            parts = [
                [
                    unit
                    for unit in others
                    if word in unit.words
                    and 3 * unit.size == whole.size
                    and unit.items.keys() == whole.items.keys()
                    and home(unit, there) == inside
                ]
                for word in PARTS
            ]
            rivals = [u for u in wholes if u.size == whole.size and here[home(u, here)] == inside]
            if len(rivals) == 1 and all(len(units) == 1 for units in parts):
                found.append((whole, tuple(units[0] for units in parts)))
    return found
