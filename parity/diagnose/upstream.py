"""Known faults of frameworks: a right port shows them as well, so a finding says so.

`upstream.yaml` holds them. Each entry was confirmed by reading the file and line that it names, and
`python -m tools.jittor_models` runs its lines of code again, in Jittor and in PyTorch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ENTRIES = Path(__file__).with_name("upstream.yaml")
FRAMEWORK = "jittor"  # all entries are Jittor's
LISTS = ("codes", "patterns", "sure", "operations")


@dataclass(frozen=True)
class Entry:
    """A fault of Jittor: where it is, what it does, and lines that show it.

    `codes`, `patterns` (of the place) and `kind` describe findings of Jittor's own models. `sure`
    are the codes that show this fault in any model, where the faulty code is Jittor's own: in one
    of the `operations` and in this `direction`, if they are given; `anywhere`: in the optimiser.
    """

    id: str
    title: str
    codes: tuple[str, ...]
    source: str
    effect: str
    jittor: str
    jittor_prints: str
    pytorch: str
    pytorch_prints: str
    patterns: tuple[str, ...] = ("*",)
    kind: str = ""
    sure: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    direction: str = ""
    anywhere: bool = False

    def explains(self, code: str, place: str, kind: str) -> bool:
        """Whether the entry describes a finding of this code and kind at this place."""
        right_kind = self.kind in ("", kind)
        placed = any(fnmatchcase(place, pattern) for pattern in self.patterns)
        return code in self.codes and right_kind and placed


@cache
def load_entries() -> tuple[Entry, ...]:
    """The entries of upstream.yaml."""
    entries: list[dict[str, Any]] = yaml.safe_load(ENTRIES.read_text(encoding="utf-8"))
    return tuple(Entry(**(e | {k: tuple(e[k]) for k in LISTS if k in e})) for e in entries)


@dataclass(frozen=True)
class Code:
    """The candidate's code at the places of a finding, as far as its recording shows it."""

    sources: frozenset[str] = frozenset()  # file and line; `` where a place has none
    operations: frozenset[str] = frozenset()  # of the modules


def known_fault(
    frameworks: Sequence[str], code: str, direction: str, at: Code
) -> tuple[Entry | None, bool]:
    """The known fault of the candidate's framework that a finding shows, if there is one, and
    whether it is sure: the code of every place is the framework's own.

    Args:
        frameworks: of the baseline and of the candidate.
        code: of the finding's cause.
        direction: of the finding.
        at: the code of its places.
    """
    baseline, candidate = frameworks
    if candidate != FRAMEWORK or baseline == FRAMEWORK:
        return None, False
    fitting = (e for e in load_entries() if code in e.sure and e.direction in ("", direction))
    entry = next(fitting, None)
    if entry is None or entry.anywhere:
        return entry, entry is not None
    if any(source and not source.startswith(f"{FRAMEWORK}/") for source in at.sources):
        return None, False  # the port's own code
    if entry.operations and not at.operations <= {*entry.operations, ""}:
        return None, False
    seen = bool(at.sources) and "" not in at.sources
    return entry, seen and (not entry.operations or "" not in at.operations)


def in_short(entry: Entry, sure: bool) -> str:
    """What a finding says of a known fault."""
    name = FRAMEWORK.capitalize()
    what = f"A known fault of {name}, not of the port" if sure else f"It may be a fault of {name}"
    return f"{what}: {entry.id}, {entry.source}"
