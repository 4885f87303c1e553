"""Which container of the candidate is which of the baseline, as the pairs so far show.

`layer2.0` belongs to `encoder.stages.1.layers.0` if most pairs of modules with one side in the
first have the other side in the second, and the reverse.
"""

from collections import Counter
from collections.abc import Iterable

from parity.matching.similarity import likeness
from parity.matching.units import Unit

AGREE = 0.6  # share of the pairs of either container that lie in both


def match_containers(pairs: Iterable[tuple[Unit, Unit]]) -> dict[str, str]:
    """The baseline's container -> the candidate's; the whole models always belong together."""
    both: Counter[tuple[str, str]] = Counter()
    ours: Counter[str] = Counter()
    theirs: Counter[str] = Counter()
    for one, other in pairs:
        ours.update(one.ancestors)
        theirs.update(other.ancestors)
        both.update((a, b) for a in one.ancestors for b in other.ancestors)
    shares = {
        (a, b): count / (ours[a] + theirs[b] - count) for (a, b), count in both.items() if a and b
    }
    # the best first; of equal ones those of like names, then the innermost
    order = sorted(shares, key=lambda p: (-shares[p], -likeness(*p), -len(p[0]), -len(p[1])))
    found: dict[str, str] = {"": ""}
    taken = set()
    for a, b in order:
        if shares[a, b] < AGREE:
            break
        if a not in found and b not in taken:
            found[a] = b
            taken.add(b)
    return found


def home(unit: Unit, containers: Iterable[str]) -> str:
    """The innermost of the containers that holds the unit."""
    known = set(containers)
    return next(path for path in unit.ancestors if path in known)
