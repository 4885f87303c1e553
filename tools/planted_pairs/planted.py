"""What an entry of the tables is: a network, what is changed in it, and the answer to expect."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tools.planted_pairs.plants import Plant

FUNCTION, PRECISION = "another function", "less precise"
STRUCTURE, STATE = "other structure", "other state"


@dataclass(frozen=True)
class Planted:
    """One pair. `code`, `kind` and `place` (a pattern) of its finding; a control has none.

    `verdict`: what the comparison says; `told`: words that the output must have besides.
    """

    name: str
    net: str
    plant: Plant
    code: str = ""
    kind: str = ""
    place: str = ""
    verdict: str = "different"
    told: str = ""
    prepare: Plant | None = None  # on both sides, before the fault
    layouts: Mapping[str, str] = field(default_factory=dict)  # declared, as in a pair file


def fault(
    name: str,
    net: str,
    plant: Plant,
    code: str,
    place: str,
    kind: str = FUNCTION,
    prepare: Plant | None = None,
) -> Planted:
    """A fault that makes the pair different, or less precise."""
    verdict = "less precise" if kind == PRECISION else "different"
    return Planted(name, net, plant, code, kind, place, verdict, "", prepare)


def control(name: str, net: str, plant: Plant) -> Planted:
    """The same function, computed otherwise."""
    return Planted(name, net, plant, verdict="equivalent")


def short(name: str, net: str, plant: Plant, place: str) -> Planted:
    """A constant of float32: float64 numbers differ, but all the digits of float32 agree."""
    return Planted(name, net, plant, "float32 constant", PRECISION, place)
