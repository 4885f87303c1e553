"""What the recordings of a pair cannot show, in one sentence each."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from parity.comparison.trace import Trace
from parity.comparison.verdict import Evidence
from parity.listing import some

# ability of a framework's adapter -> what is missing without it
MISSING = {
    "gradients": "records no gradients",
    "update": "records no optimiser step",
    "follow": "cannot follow choices at corners, such as ReLU at 0",
    "isolated": "runs no module alone",
    "float64": "records nothing in float64",
}
# list in the manifest -> what happened, the noun of an item, and what that means
LISTED = {
    "uncalled": (
        "never called",
        "module",
        "only what follows from them is compared",
    ),
    "not_alone": (
        "not computed alone, since the inputs do not fit the baseline's",
        "module call",
        "a fault there shows in the whole pass only",
    ),
}
MOST = 3


def limits_of(pairs: Sequence[Evidence], failed: Mapping[str, str]) -> Iterator[str]:
    """Sentences about abilities that a framework lacks, choices that found no partner, modules
    that are not in the recordings, and known mistakes that could not be tried.

    Args:
        failed: tap that was not recomputed -> why.
    """
    traces = {trace.path: trace for pair in pairs for trace in pair.all()}
    able: dict[str, list[str] | None] = {}
    free: dict[str, dict[str, None]] = {}
    for trace in traces.values():
        label = str(trace.producer("name"))
        able.setdefault(label, strings(trace, "abilities"))
        unlike = [tap for tap in strings(trace, "free") or () if not same_in_all(tap, pairs)]
        free.setdefault(label, {}).update(dict.fromkeys(unlike))
    for label, abilities in able.items():
        known = MISSING if abilities is None else abilities
        lacks = [text for name, text in MISSING.items() if name not in known]
        if lacks:
            yield f"{label} {', '.join(lacks)}"
    alone = any(pair.baseline.manifest.get("kind") == "isolated" for pair in pairs)
    whole = any(pair.baseline.manifest.get("kind") == "pass" for pair in pairs)
    if whole and not alone and all("isolated" in (each or ()) for each in able.values()):
        yield "no module was compared alone: the two sides call no module of one name"
    for label, names in free.items():
        if names:
            what = "1 choice" if len(names) == 1 else f"{len(names)} choices"
            first_name = next(iter(names))
            yield (
                f"{what} of {label} found no partner on the other side (first {first_name}), so "
                "ties there are not followed: gradients may then differ in right code"
            )
    for key, (what, noun, meaning) in LISTED.items():
        listed: dict[str, dict[str, None]] = {}
        for trace in traces.values():
            found = listed.setdefault(str(trace.producer("name")), {})
            found.update(dict.fromkeys(strings(trace, key) or ()))
        for label, names in listed.items():
            if names:
                count = f"{len(names)} {noun}{'s' * (len(names) > 1)}"
                yield f"{what}: {count} of {label} ({some(names, MOST)}); {meaning}"
    if failed:
        reasons = [f"{tap}: {why}" for tap, why in failed.items()]
        yield (
            f"known mistakes were not tried in {len(failed)} taps, because the facts of the "
            f"recording do not fit its arrays: {some(reasons, MOST, '; ')}"
        )


def same_in_all(tap: str, pairs: Sequence[Evidence]) -> bool:
    """Whether both sides made the same choices at a kink; then it does not matter who followed."""
    traces = [(p.baseline, p.candidate) for p in pairs if tap in p.baseline.taps]
    return bool(traces) and all(
        tap in other.taps and np.array_equal(np.asarray(one.taps[tap]), np.asarray(other.taps[tap]))
        for one, other in traces
    )


def strings(trace: Trace, key: str) -> list[str] | None:
    """A list of names in a manifest; None if it has none."""
    stored = trace.manifest.get(key)
    return [str(name) for name in stored] if isinstance(stored, list) else None
