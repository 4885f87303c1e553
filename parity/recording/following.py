"""Choices that are handed over from one recording to another, and the branch that they make."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from parity.comparison.modes import MODES, branch_of, mode_of
from parity.comparison.modes import Branch as StatedBranch
from parity.comparison.sketch import Array
from parity.comparison.trace import Trace

BRANCH_DIGITS = 16


@dataclass
class Handed:
    """The choices of another recording, in its order, by stage (such as `training choices`).

    A kink gets the choice of the same name if kind and shape fit; else the next unused one of the
    same kind and shape. Each choice is handed over once.
    """

    branch: StatedBranch
    choices: dict[str, dict[str, tuple[str, Array]]]  # stage -> name -> kind, choice
    used: set[tuple[str, str]] = field(default_factory=set)
    # mode -> elements whose choice was not near a tie, so it was not followed
    kept: Counter[str] = field(default_factory=Counter)
    free: list[str] = field(default_factory=list)  # own kinks without a partner

    @classmethod
    def from_trace(cls, trace: Trace) -> "Handed":
        """All choices of a trace."""
        choices: dict[str, dict[str, tuple[str, Array]]] = {}
        for tap, facts in (trace.manifest.get("kinks") or {}).items():
            stage, _, name = tap.partition("/")
            value = trace.taps.get(tap)
            if isinstance(value, np.ndarray):
                choices.setdefault(stage, {})[name] = (facts["kind"], value)
        return cls(trace.manifest.get("branch"), choices)

    def take(self, stage: str, name: str, kind: str, shape: tuple[int, ...]) -> Array | None:
        """The choice for a kink, or None if there is none left that fits."""
        known = self.choices.get(stage, {})
        for candidate in [name, *known]:
            if candidate not in known or (stage, candidate) in self.used:
                continue
            its_kind, choice = known[candidate]
            if its_kind == kind and choice.shape == shape:
                self.used.add((stage, candidate))
                return choice
        self.free.append(f"{stage}/{name}")
        return None


@dataclass
class Branch:
    """The digests of all choices that a recording used, by mode; names and order do not matter."""

    digests: dict[str, list[str]] = field(default_factory=lambda: {mode: [] for mode in MODES})

    def add(self, stage: str, kind: str, used: Array) -> None:
        """One more choice."""
        state = hashlib.sha256(f"{stage} {kind} {used.shape} {used.dtype.str}\n".encode())
        state.update(np.ascontiguousarray(used).data if used.size else b"")
        self.digests[mode_of(stage)].append(state.hexdigest())

    def names(self, handed: Handed | None) -> dict[str, str]:
        """Mode -> branch. Where every choice that could be followed was, the other's branch."""
        result = {}
        for mode, digests in self.digests.items():
            other = branch_of(handed.branch, mode) if handed and not handed.kept[mode] else None
            own = hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()[:BRANCH_DIGITS]
            result[mode] = other or own
        return result


def digest_of(value: Array) -> str:
    """The first 16 hex digits of the SHA-256 of an array's bytes."""
    value = np.ascontiguousarray(value)
    return hashlib.sha256(value.data if value.size else b"").hexdigest()[:16]
