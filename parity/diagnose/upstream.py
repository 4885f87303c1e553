"""Known faults of frameworks: a right port shows them as well, so a finding says so.

`upstream.yaml` holds them. Each entry was confirmed by reading the file and line that it names, and
`python -m tools.jittor_models` runs its lines of code again, in Jittor and in PyTorch.
"""

from collections.abc import Collection, Sequence
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
    are the codes that show this fault in any model, if the faulty code is the framework's own, and
    if `operations` are given, in one of these.
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


def known_fault(
    frameworks: Sequence[str], code: str, source: str, operations: Collection[str]
) -> Entry | None:
    """The known fault of the candidate's framework that a finding shows, if there is one.

    Args:
        frameworks: of the baseline and of the candidate.
        code: of the finding's cause.
        source: file and line of the candidate's code; empty where the finding has none.
        operations: of the finding's places.
    """
    baseline, candidate = frameworks
    own = not source or source.startswith(f"{FRAMEWORK}/")
    if candidate != FRAMEWORK or baseline == FRAMEWORK or not own:
        return None
    for entry in load_entries():
        fits = not entry.operations or not set(entry.operations).isdisjoint(operations)
        if code in entry.sure and fits:
            return entry
    return None


def in_short(entry: Entry) -> str:
    """What a finding says of a known fault."""
    return (
        f"a known fault of {FRAMEWORK.capitalize()} ({entry.id}, {entry.source}), not of the port"
    )
