"""Which recordings chose the same sides of all corners, and the evidence that these give.

At a corner, such as a ReLU's zero, two right recordings may take different sides. Their outputs
agree, but their gradients do not: each is right for its own *branch*, that is for all its choices
together. So gradients are compared between recordings of one branch:

- If all manifests state a branch (`branch`), then these are compared: one of each mode, since a
  gradient of a pass in evaluation mode does not depend on choices in training. The recorders of
  `parity run` make all recordings of a pair follow the candidate's choices, so there is one branch.
- Else the choices are computed from the arrays of the kinks (`kinks.py`).

If the candidate's branch has no recording of the baseline's producer, a variant of the candidate
may stand for it, and a variant of the baseline for the baseline. The noise floor is measured within
branches. Without a common branch, a gradient above its bound is `undecided`.
"""

import hashlib
from collections import ChainMap
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np

from parity.comparison.kinks import Kink, behind_kinks, find_kinks
from parity.comparison.measure import size_of
from parity.comparison.modes import branch_of, mode_of
from parity.comparison.sketch import Tap
from parity.comparison.ties import Tie, is_choice, measure_ties, whole
from parity.comparison.trace import Trace
from parity.comparison.verdict import Evidence

RARE = 5e-3  # part of the choices of one kink


@dataclass
class Branches:
    """The kinks of a pair, and the branch of each recording."""

    kinks: Sequence[Kink] = ()
    stated: bool = False  # every manifest states its branch
    _digests: dict[tuple[int, str], bytes] = field(default_factory=dict)
    _ties: dict[str, list[Tie]] = field(default_factory=dict)

    def apart(self, name: str, evidence: Evidence) -> bool:
        """Whether this tap depends on choices, and some recordings chose differently."""
        if not behind_kinks(name) or not (self.stated or self.kinks):
            return False
        return len({self.of(trace, name) for trace in evidence.all()}) > 1

    def of(self, trace: Trace, name: str) -> Hashable:
        """The branch of a recording, as far as it matters for this tap."""
        if self.stated:
            return branch_of(trace.manifest["branch"], mode_of(name))
        return tuple(self._digest(trace, kink) for kink in self.kinks_of(name))

    def kinks_of(self, name: str) -> list[Kink]:
        """The kinks of the same pass: those in training mode for what is computed in training."""
        return [kink for kink in self.kinks if mode_of(kink.output) == mode_of(name)] or [
            *self.kinks
        ]

    def deciding(self, name: str, evidence: Evidence) -> list[str]:
        """The taps whose verdicts decide whether choices excuse a difference in this tap."""
        if not self.stated:
            return [kink.input for kink in self.kinks_of(name)]
        return [
            tap
            for tap in evidence.baseline.taps
            if is_choice(tap) and mode_of(tap) == mode_of(name)
        ]

    def count_ties(self, name: str, evidence: Evidence) -> int:
        """How many choices of the pair differ, of those that matter for this tap."""
        if not self.stated:
            return sum(len(self.ties(kink, evidence)) for kink in self.kinks_of(name))
        pairs = [
            [trace.taps.get(tap) for trace in (evidence.baseline, evidence.candidate)]
            for tap in self.deciding(name, evidence)
        ]
        return sum(
            int(np.count_nonzero(one != other))
            for one, other in pairs
            if isinstance(one, np.ndarray) and isinstance(other, np.ndarray)
        )

    def rare_ties(self, name: str, evidence: Evidence) -> bool:
        """Whether at most one choice in two hundred differs, at each kink before a tap."""
        taps = evidence.baseline.taps
        return not self.stated and all(
            len(self.ties(kink, evidence)) <= RARE * size_of(taps[kink.output])
            for kink in self.kinks_of(name)
            if kink.output in taps
        )

    def ties(self, kink: Kink, evidence: Evidence) -> list[Tie]:
        """The choices of the pair that differ at one kink."""
        if kink.output not in self._ties:
            self._ties[kink.output] = found_ties(kink, evidence)
        return self._ties[kink.output]

    def _digest(self, trace: Trace, kink: Kink) -> bytes:
        """A digest of all choices that a recording made at one kink."""
        key = (id(trace), kink.output)
        if key not in self._digests:
            tap = trace.taps.get(kink.input)
            sides = kink.choose(tap) if isinstance(tap, np.ndarray) else np.zeros(0)
            data = np.ascontiguousarray(sides).tobytes()
            self._digests[key] = hashlib.blake2b(data, digest_size=16).digest()
        return self._digests[key]


def found_ties(kink: Kink, evidence: Evidence) -> list[Tie]:
    """Ties of a pair of recordings at a kink that was found in the arrays."""
    exact = evidence.reference or evidence.baseline
    inputs = [whole(t, kink.input) for t in (evidence.baseline, evidence.candidate, exact)]
    arrays = [x for x in inputs if x is not None]
    if len(arrays) < 3 or len({x.shape for x in arrays}) > 1:
        return []
    choices = [kink.choose(x) for x in arrays[:2]]
    places = np.argwhere(choices[0] != choices[1])
    if not len(places):
        return []
    sides = [choice[tuple(places.T)] for choice in choices]
    return measure_ties(kink.margins(arrays[2], places, sides), arrays, places, sides)


def find_branches(evidence: Evidence) -> Branches:
    """The kinks of a pair and the branches of its recordings."""
    traces = evidence.all()
    if all(trace.manifest.get("branch") for trace in traces):
        return Branches(stated=True)
    if not any(behind_kinks(name) for name in evidence.baseline.taps):
        return Branches()
    kinks = find_kinks(traces)
    return Branches([kink for kink in kinks if kink.input in evidence.candidate.taps])


def on_one_branch(name: str, evidence: Evidence, branches: Branches) -> Evidence | None:
    """The evidence of the best branch that both producers have recorded; None if there is none.

    The best is the candidate's own, then the reference's, then the one with most recordings.
    """
    baselines, candidates = (_grouped(name, side, branches) for side in _sides_of(name, evidence))
    exact = evidence.reference
    common = {
        key: (_has(members, evidence.candidate), _has(baselines[key], exact), len(baselines[key]))
        for key, members in candidates.items()
        if key in baselines
    }
    if not common:
        return None
    best = max(common, key=common.__getitem__)
    if not _has(baselines[best], exact):
        exact = None
    recordings = [trace for trace in baselines[best] if trace is not exact]
    if exact and not recordings:
        recordings = [_rounded(exact, name, evidence.candidate)]
    return replace(
        within_branches(name, evidence, branches, best),
        baseline=recordings[0],
        candidate=candidates[best][0],
        reference=exact,
        baseline_variants=recordings[1:],
        candidate_variants=candidates[best][1:],
    )


def across_branches(name: str, evidence: Evidence, branches: Branches) -> Evidence:
    """The evidence if there is no common branch: its noise is measured within branches.

    The baseline is then a recording of the reference's branch.
    """
    exact = evidence.reference
    if exact and name in exact.taps and name in evidence.candidate.taps:
        branch = branches.of(exact, name)
        same = [t for t in (evidence.baseline, *evidence.baseline_variants)
                if name in t.taps and branches.of(t, name) == branch]  # fmt: skip
        baseline = same[0] if same else _rounded(exact, name, evidence.candidate)
        return replace(within_branches(name, evidence, branches), baseline=baseline)
    return within_branches(name, evidence, branches)


def within_branches(
    name: str, evidence: Evidence, branches: Branches, without: Hashable = None
) -> Evidence:
    """The evidence with variants replaced by pairs of recordings that are of one branch each.

    Args:
        without: a branch whose recordings are left out.
    """
    pairs: list[list[tuple[Trace, Trace]]] = []
    for side in _sides_of(name, evidence):
        groups = _grouped(name, side, branches)
        members = [group for key, group in groups.items() if key != without]
        exact = evidence.reference
        for group in members:
            group.sort(key=lambda trace: trace is not exact)  # the reference, if any, comes first
        pairs.append([(other, group[0]) for group in members for other in group[1:]])
    return replace(
        evidence,
        baseline_variants=(),
        candidate_variants=(),
        baseline_scatter=pairs[0],
        candidate_scatter=pairs[1],
    )


def _sides_of(name: str, evidence: Evidence) -> tuple[list[Trace], list[Trace]]:
    """The recordings of the two producers that have this tap."""
    exact = [evidence.reference] if evidence.reference else []
    sides = (
        [evidence.baseline, *evidence.baseline_variants, *exact],
        [evidence.candidate, *evidence.candidate_variants],
    )
    baseline, candidate = ([t for t in side if name in t.taps] for side in sides)
    return baseline, candidate


def _has(traces: Sequence[Trace], trace: Trace | None) -> bool:
    return any(each is trace for each in traces)


def _grouped(
    name: str, traces: Sequence[Trace], branches: Branches
) -> Mapping[Hashable, list[Trace]]:
    """Branch -> its recordings."""
    groups: dict[Hashable, list[Trace]] = {}
    for trace in traces:
        groups.setdefault(branches.of(trace, name), []).append(trace)
    return groups


def _rounded(exact: Trace, name: str, like: Trace) -> Trace:
    """A float64 recording of this tap, rounded to the type of another recording."""
    tap, kind = exact.taps[name], like.taps[name].dtype
    value = tap.astype(kind) if isinstance(tap, np.ndarray) else replace(tap, dtype=str(kind))
    manifest = {**exact.manifest, "precision": like.manifest["precision"]}
    # a layer over the taps, which stay in their file until they are asked for
    return Trace(exact.path, manifest, ChainMap({name: value}, cast("dict[str, Tap]", exact.taps)))
