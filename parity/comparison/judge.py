"""The verdict on each tap of two traces, from evidence instead of chosen bounds.

A float32 result is right if it is as near to the float64 result as float32 can be expected to
come. How near that is, is measured: `floor` is the largest distance to the float64 reference among
several float32 recordings that compute the same function in another order or from weights moved by
one unit in the last place. A candidate passes if its own distance is at most

    max(FLOOR_FACTOR · floor, ROUNDOFF_FACTOR · u, √n · u)    u: unit roundoff of the precision

where n is the length of the sum that makes each number, if the baseline's trace tells it
(`terms`): one by one in the pair's precision, n numbers add up to about √n roundings (Higham and
Mary 2019, SIAM J. Sci. Comput. 41, A2815).

and the first recording's distance is held to the candidate's noise in the same way where that was
measured. The two factors were set on 21 clean comparisons and 51 planted faults (docs/parity.md).
The same rule judges float64 against float64, where every difference that is left is another
function.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from parity.comparison.differences import allowed, documented
from parity.comparison.measure import ROUNDOFF, gap, norm, unfit
from parity.comparison.ties import CHOICES, whole, with_ties
from parity.comparison.trace import Trace, refuse_mixture
from parity.comparison.verdict import Evidence, Row, Verdict

FLOOR_FACTOR = 5.0
ROUNDOFF_FACTOR = 8.0
ZERO_FACTOR = 1e3  # a reference below this many roundoffs of its sibling is zero by structure
ZERO_BOUND = 32.0  # and what is computed must lie below so many
EXACT = ("parameters", "loading")  # stages in which nothing is computed: equal bits
ZERO = "zero by structure"
NOT_REFERRED = "the float64 reference does not have it"
BEHIND_TIES = "behind a tie: after another choice nothing can be told"
FIRST_OFF = "the first trace is further from float64 than the candidate's noise explains"
FIRST_ALONE = "the first trace is further from float64 than its own variants explain"
NOT_JUDGED = ("state", "state parts")  # stages that carry what other recordings start from
NOISE_LIMIT = 1e-2  # a tap that is noisier than this cannot be judged by relative errors


def judge(
    evidence: Evidence, without: Sequence[str] = (), only: Sequence[str] | None = None
) -> list[Row]:
    """One row per tap, in data order; a tap that only one trace has is `different`.

    Floating-point taps are judged by the evidence (where nothing is computed they must be equal),
    integers must be equal (but for ties of part indices), and booleans of the pipeline are claims,
    which must hold in both.

    Args:
        without: stages to leave out.
        only: taps (`stage/tap`) to judge instead of all; an empty list is none.

    Raises:
        UserError: the traces are not of one computation.
    """
    refuse_mixture(evidence.all())
    if not evidence.reference:  # one that changed nothing would show a noise of 0
        some = [t for t in evidence.baseline_variants if moved(t, evidence.baseline)]
        evidence = replace(evidence, baseline_variants=some)
    names = dict.fromkeys([*evidence.baseline.taps, *evidence.candidate.taps])
    wanted = [name for name in names if name.partition("/")[0] not in without]
    rows = [judge_tap(name, evidence) for name in (wanted if only is None else only)]
    return settle_ties(rows)


def moved(variant: Trace, base: Trace) -> bool:
    """Whether any computed number differs."""
    return any(
        gap(tap, base.taps[name]).relative != 0
        for name, tap in variant.taps.items()
        if name in base.taps and name.partition("/")[0] not in (*EXACT, *NOT_JUDGED)
    )


def settle_ties(rows: Sequence[Row]) -> list[Row]:
    """After another choice, either being right, nothing that follows can be told.

    It is no choice between equals where the scores themselves are different.
    """
    wrong = {(row.stage, row.tap) for row in rows if row.verdict == "different"}
    tied: set[str] = set()
    judged = []
    for row in rows:
        if row.stage in tied and row.verdict == "different":
            row = replace(row, verdict="undecided", reason=BEHIND_TIES)
        if row.ties and row.verdict == "equivalent":
            scores, _ = CHOICES[row.tap]
            if (row.stage, scores) in wrong:  # whose error is no noise
                reason = f"{row.reason} by {scores} that are different"
                row = replace(row, verdict="different", error=np.inf, reason=reason)
            else:
                tied.add(row.stage)
        judged.append(row)
    return judged


def judge_tap(name: str, evidence: Evidence) -> Row:
    """The verdict on one tap."""
    first, candidate = evidence.baseline, evidence.candidate
    stage, _, tap = name.partition("/")
    row = Row(
        case=str(first.manifest.get("case", "")),
        stage=stage,
        tap=tap,
        precision=candidate.manifest["precision"],
        pair=f"{candidate.producer('name')} : {first.producer('name')}",
        verdict="different",
        error=np.inf,
        baseline_error=0.0,
        noise_floor=0.0,
        bound=0.0,
        candidate_noise=0.0,
        pair_error=np.inf,
    )
    for trace in (first, candidate):
        if name not in trace.taps:
            return replace(row, reason=f"absent from {trace.label} ({trace.path.name})")
    between = gap(candidate.taps[name], first.taps[name])
    row = replace(
        row,
        pair_error=between.relative,
        error=between.relative,
        index=between.index,
        values=between.values,
        bias=between.bias,
        ulps=between.ulps,
    )
    if between.reason and np.dtype(candidate.taps[name].dtype).kind != "f":
        return with_ties(name, row, evidence, between)
    if between.reason:
        return replace(row, reason=between.reason)
    if 0 in first.taps[name].shape:
        return replace(row, verdict="undecided", reason="empty: nothing to compare")
    held = whole(first, name)
    claims = first.manifest.get("kind") == "checks"  # elsewhere booleans are masks and the like
    if claims and held is not None and held.dtype.kind == "b" and not held.all():
        return replace(row, reason="a claim that does not hold")
    if np.dtype(first.taps[name].dtype).kind != "f":
        return replace(row, verdict="equivalent")
    if stage in EXACT:
        return replace(row, verdict="equivalent" if row.error == 0 else "different")
    return with_evidence(name, row, evidence)


def with_evidence(name: str, row: Row, evidence: Evidence) -> Row:
    """The verdict on a floating-point tap that both traces have."""
    reference = evidence.reference or evidence.baseline
    if name not in reference.taps:
        return replace(row, verdict="undecided", reason=NOT_REFERRED)
    variants = [distance(name, t, reference) for t in evidence.baseline_variants if name in t.taps]
    own = [distance(name, t, reference) for t in evidence.candidate_variants if name in t.taps]
    other = distance(name, evidence.baseline, reference)
    roundings = least_bound(name, row, evidence.baseline)
    rounding = rounding_of_step(row, evidence, reference)
    # float64 shows how a parameter was rounded, a reference of the pair's own precision does not
    floor = max([other, *variants, *([rounding] if reference is evidence.baseline else [])])
    row = replace(
        row,
        error=distance(name, evidence.candidate, reference),
        baseline_error=other,
        candidate_noise=max(own, default=0.0),
        noise_floor=floor,
        bound=max(FLOOR_FACTOR * floor, roundings),
    )
    entry = documented(row, evidence)
    zero = structural_zero(name, evidence, reference, entry)
    if entry and zero in (None, "undecided"):
        row = allowed(row, evidence, entry)
        if row.verdict == "equivalent":
            return row
    if zero:
        return replace(row, verdict=zero, reason=ZERO)
    if not (variants or evidence.reference):
        return without_evidence(row, roundings)
    if row.error > row.bound:
        return row
    # A fault of the first trace alone would otherwise count as its noise. What is noise throws its
    # variants off too, and elsewhere: they are far from the reference and from the first.
    spread = [
        distance(name, t, evidence.baseline) for t in evidence.baseline_variants if name in t.taps
    ]
    shown = max([rounding, *map(min, variants, spread)])
    noise = max(row.error, row.candidate_noise, shown)
    if own and other > max(FLOOR_FACTOR * noise, roundings):
        return replace(row, reason=FIRST_OFF)
    if variants and not own and other > max(FLOOR_FACTOR * shown, roundings):
        return replace(row, verdict="undecided", reason=FIRST_ALONE)
    if floor > noise_limit(row):
        return replace(row, verdict="undecided", reason="its own noise is too large to tell")
    return replace(row, verdict="equivalent")


def rounding_of_step(row: Row, evidence: Evidence, reference: Trace) -> float:
    """What a step may be off because the parameter is rounded when it is stored: u · |p| / |step|.

    No variant shows it: they may be rounded to the very same numbers.
    """
    kind, _, name = row.tap.partition("/")
    start = "state" if row.stage == "cross-load" else "parameters"
    before = evidence.baseline.taps.get(f"{start}/param/{name}")
    if kind != "step" or before is None:
        return 0.0
    size = norm(reference.taps[f"{row.stage}/{row.tap}"])
    return ROUNDOFF[row.precision] * norm(before) / size if size else 0.0


def noise_limit(row: Row) -> float:
    """How noisy the first may be: half of the digits, or NOISE_LIMIT if that is less.

    Steps may always have NOISE_LIMIT, since a parameter's last digit is a large part of them.
    """
    if row.tap.startswith("step/"):
        return NOISE_LIMIT
    return min(NOISE_LIMIT, float(ROUNDOFF[row.precision] ** 0.5))


def least_bound(name: str, row: Row, baseline: Trace) -> float:
    """What rounding alone may do to any tap: more where each number is a long sum."""
    terms = (baseline.manifest.get("terms") or {}).get(name, 1)
    return float(max(ROUNDOFF_FACTOR, terms**0.5) * ROUNDOFF[row.precision])


def without_evidence(row: Row, roundings: float) -> Row:
    """Two traces alone: a few roundings apart is the same, half of the digits lost is not."""
    if row.error <= roundings:
        return replace(row, verdict="equivalent")
    half = float(ROUNDOFF[row.precision] ** 0.5)
    if row.error > half:
        return replace(row, bound=half)
    return replace(
        row, verdict="undecided", reason="no float64 reference and no variants to judge it by"
    )


def distance(name: str, trace: Trace, reference: Trace) -> float:
    """Relative L2 of one tap; infinite where either lacks it."""
    if name not in trace.taps or name not in reference.taps:
        return np.inf
    return gap(trace.taps[name], reference.taps[name], same_type=False).relative


def structural_zero(
    name: str, evidence: Evidence, reference: Trace, entry: Mapping[str, Any] | None
) -> Verdict | None:
    """Whether a tap that is zero by structure is computed as next to nothing; None if it is none.

    The gradient of a key bias is zero by softmax's invariance to shifts; what is computed is noise
    whose ratio means nothing. It must be small beside its sibling, such as the query bias, or no
    more than a few times the noise that the first trace and its variants have there. Where that
    noise is itself no longer small, nothing can be told unless the candidate is far above it; nor
    where the reference is no witness.
    """
    for pattern, (old, new) in ((p, s.split(">")) for p, s in evidence.siblings.items()):
        sibling, first = name.replace(old, new), evidence.baseline.taps
        there = first.keys() & reference.taps.keys()
        if not fnmatchcase(name, pattern) or not {name, sibling} <= there:
            continue
        if any(unfit(first[x], reference.taps[x], same_type=False) for x in (name, sibling)):
            return None
        scale = norm(reference.taps[sibling])
        roundoff = ROUNDOFF[evidence.candidate.manifest["precision"]]
        # a piece starts from numbers in the pair's precision, also where it goes on in float64
        isolated = reference.manifest.get("kind") == "isolated"
        exact = roundoff if isolated else ROUNDOFF[reference.manifest["precision"]]
        variants = [t for t in evidence.baseline_variants if name in t.taps]
        noise = [norm(t.taps[name]) for t in (evidence.baseline, *variants)]
        if norm(reference.taps[name]) > ZERO_FACTOR * exact * scale:
            if all(distance(name, t, reference) <= NOISE_LIMIT for t in variants):
                return None
            large = norm(evidence.candidate.taps[name]) > ZERO_BOUND * max(noise)
            return "different" if large else "undecided"
        relative = float(entry["allow"].get("relative", 0)) if entry else 0.0
        bound = max(FLOOR_FACTOR * max(noise), max(ZERO_BOUND * roundoff, relative) * scale)
        if norm(evidence.candidate.taps[name]) > bound:
            return "different"
        return "equivalent" if max(noise) <= ZERO_FACTOR * roundoff * scale else "undecided"
    return None
