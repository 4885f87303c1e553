"""Doubts about the names of computed taps, settled by their numbers.

Numbers may decide between taps of one shape. They never add a pair that names and shapes do not
suggest: a pair found by its numbers alone would always agree.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from parity.comparison.measure import relative
from parity.comparison.sketch import Tap
from parity.matching.named import Array, Doubt, Match, NamePair

NEAR = 1e-2  # relative distance of two taps that are the same but for rounding
FAR = 0.1  # other taps of the same shape must be this far away


def settle(found: Match, baseline: Mapping[str, Tap], candidate: Mapping[str, Tap]) -> Match:
    """The match with doubts settled and exchanged taps put right, where the numbers show it."""
    pairs = {pair.baseline: pair for pair in found.pairs}
    far = [
        pair
        for pair in found.pairs
        if pair.how in ("order", "similar")
        and relative(candidate[pair.candidate], baseline[pair.baseline], same_type=False) > FAR
    ]
    exchanged = _nearest([p.baseline for p in far], [p.candidate for p in far], baseline, candidate)
    for pair in far:
        if exchanged.get(pair.baseline, pair.candidate) != pair.candidate:
            # both ends of an exchange must be shown; else the pair stays and is judged
            if pair.candidate in exchanged.values():
                pairs[pair.baseline] = NamePair(
                    pair.baseline, exchanged[pair.baseline], "values", 0.8
                )
    doubts = []
    for doubt in found.doubts:
        near = _nearest(doubt.baseline, doubt.candidate, baseline, candidate)
        pairs |= {ours: NamePair(ours, theirs, "values", 0.8) for ours, theirs in near.items()}
        left = tuple(name for name in doubt.baseline if name not in near)
        left_there = tuple(name for name in doubt.candidate if name not in near.values())
        if left and left_there:
            doubts.append(Doubt(left, left_there, doubt.why))
        else:
            found = replace(
                found,
                only_baseline=found.only_baseline + left,
                only_candidate=found.only_candidate + left_there,
            )
    order = [name for name in baseline if name in pairs]
    return replace(found, pairs=tuple(pairs[name] for name in order), doubts=tuple(doubts))


def _nearest(
    ours: tuple[str, ...] | list[str],
    theirs: tuple[str, ...] | list[str],
    baseline: Mapping[str, Tap],
    candidate: Mapping[str, Tap],
) -> dict[str, str]:
    """Pairs of taps that are near to each other and far from all others."""
    if not ours or not theirs:
        return {}
    distances: Array = np.array(
        [[relative(candidate[b], baseline[a], same_type=False) for b in theirs] for a in ours]
    )
    found = {}
    for i, name in enumerate(ours):
        j = int(distances[i].argmin())
        others = [*np.delete(distances[i], j), *np.delete(distances[:, j], i)]
        if distances[i, j] < NEAR and min(others, default=np.inf) > FAR:
            found[name] = theirs[j]
    return found
