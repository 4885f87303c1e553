"""The verdict on each tap of two traces, with bounds that are measured instead of chosen.

A float32 result is right if it is as near to the float64 result as float32 can be expected to come.
This distance is measured. The noise floor is the largest distance to the float64 reference among
several float32 recordings of the baseline's function: the baseline and its variants, which compute
in another order or from weights moved by one unit in the last place. A candidate passes if its own
distance is at most

    max(FLOOR_FACTOR · noise floor, ROUNDOFF_FACTOR · u, √n · u)

u is the unit roundoff of the pair's precision. n is the length of the sums that make the numbers of
the tap, if the baseline's trace states it (`terms`): the rounding errors of a sum of n numbers,
added one by one, grow to about √n · u (Higham and Mary 2019, SIAM J. Sci. Comput. 41, A2815).

If the candidate's noise was measured, the baseline must lie within that noise in the same way. The
same rule judges float64 against float64; there, a remaining difference is another function.
docs/parity.md says how the two factors were chosen.
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
ZERO_FACTOR = 1e3  # a reference below this many roundoffs of its sibling is zero by structure;
ZERO_BOUND = 32.0  # the candidate must then lie below this many
EXACT = ("parameters", "loading")  # stages that compute nothing: bits must be equal
ZERO = "zero by structure"
NO_REFERENCE = "the float64 reference does not have this tap"
BEHIND_TIES = "behind a tie: after a different choice, taps cannot be compared"
BASELINE_OFF = "the baseline is further from float64 than the candidate's noise explains"
BASELINE_ALONE = "the baseline is further from float64 than its own variants explain"
NOISY = "the baseline's noise is too large to tell"
NOT_JUDGED = ("state", "state parts")  # stages that only hold what other recordings start from
NOISE_LIMIT = 1e-2  # relative errors cannot judge a tap that is noisier than this


def judge(
    evidence: Evidence, without: Sequence[str] = (), only: Sequence[str] | None = None
) -> list[Row]:
    """One row per tap, in data order; a tap that only one trace has is `different`.

    Floating-point taps are judged by the evidence; in stages that compute nothing, they must be
    equal. Integers must be equal, except for ties of choices. Booleans must be equal; in traces of
    the checks they are claims, which must hold in both traces.

    Args:
        without: stages to leave out.
        only: taps (`stage/tap`) to judge instead of all; an empty list means none.

    Raises:
        UserError: the traces are not of one computation.
    """
    refuse_mixture(evidence.all())
    if not evidence.reference:  # a variant that changed nothing would show a noise of 0
        variants = [v for v in evidence.baseline_variants if moved(v, evidence.baseline)]
        evidence = replace(evidence, baseline_variants=variants)
    names = dict.fromkeys([*evidence.baseline.taps, *evidence.candidate.taps])
    wanted = [name for name in names if name.partition("/")[0] not in without]
    rows = [judge_tap(name, evidence) for name in (wanted if only is None else only)]
    return settle_ties(rows)


def moved(variant: Trace, base: Trace) -> bool:
    """Whether any computed number of the variant differs from `base`."""
    return any(
        gap(tap, base.taps[name]).relative != 0
        for name, tap in variant.taps.items()
        if name in base.taps and name.partition("/")[0] not in (*EXACT, *NOT_JUDGED)
    )


def settle_ties(rows: Sequence[Row]) -> list[Row]:
    """Rows whose verdicts take ties into account.

    After a tie, both choices are right, but later taps of that stage cannot be compared: those that
    differ become `undecided`. If the scores themselves are `different`, the choice is not a tie.
    """
    wrong = {(row.stage, row.tap) for row in rows if row.verdict == "different"}
    tied: set[str] = set()
    judged = []
    for row in rows:
        if row.stage in tied and row.verdict == "different":
            row = replace(row, verdict="undecided", reason=BEHIND_TIES)
        if row.ties and row.verdict == "equivalent":
            scores, _ = CHOICES[row.tap]
            if (row.stage, scores) in wrong:  # their error is not noise
                reason = f"{row.reason}, but {scores} are different"
                row = replace(row, verdict="different", error=np.inf, reason=reason)
            else:
                tied.add(row.stage)
        judged.append(row)
    return judged


def judge_tap(name: str, evidence: Evidence) -> Row:
    """The verdict on one tap."""
    baseline, candidate = evidence.baseline, evidence.candidate
    stage, _, tap = name.partition("/")
    row = Row(
        case=str(baseline.manifest.get("case", "")),
        stage=stage,
        tap=tap,
        precision=candidate.manifest["precision"],
        pair=f"{candidate.producer('name')} : {baseline.producer('name')}",
        verdict="different",
        error=np.inf,
        baseline_error=0.0,
        noise_floor=0.0,
        bound=0.0,
        candidate_noise=0.0,
        pair_error=np.inf,
    )
    for trace in (baseline, candidate):
        if name not in trace.taps:
            return replace(row, reason=f"absent from {trace.label} ({trace.path.name})")
    between = gap(candidate.taps[name], baseline.taps[name])
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
    if 0 in baseline.taps[name].shape:
        return replace(row, verdict="undecided", reason="empty: nothing to compare")
    value = whole(baseline, name)
    is_check = baseline.manifest.get("kind") == "checks"  # in other traces, booleans are data
    if is_check and value is not None and value.dtype.kind == "b" and not value.all():
        return replace(row, reason="a claim that does not hold")
    if np.dtype(baseline.taps[name].dtype).kind != "f":
        return replace(row, verdict="equivalent")
    if stage in EXACT:
        return replace(row, verdict="equivalent" if row.error == 0 else "different")
    return with_evidence(name, row, evidence)


def with_evidence(name: str, row: Row, evidence: Evidence) -> Row:
    """The verdict on a floating-point tap that both traces have."""
    reference = evidence.reference or evidence.baseline
    if name not in reference.taps:
        return replace(row, verdict="undecided", reason=NO_REFERENCE)
    baseline_variants = [v for v in evidence.baseline_variants if name in v.taps]
    candidate_variants = [v for v in evidence.candidate_variants if name in v.taps]
    variant_errors = [distance(name, variant, reference) for variant in baseline_variants]
    candidate_errors = [distance(name, variant, reference) for variant in candidate_variants]
    baseline_error = distance(name, evidence.baseline, reference)
    least = least_bound(name, row, evidence.baseline)
    step_rounding = rounding_of_step(row, evidence, reference)
    # A float64 reference shows the rounding of a parameter; the baseline as reference does not.
    hidden = [step_rounding] if reference is evidence.baseline else []
    noise_floor = max([baseline_error, *variant_errors, *hidden])
    row = replace(
        row,
        error=distance(name, evidence.candidate, reference),
        baseline_error=baseline_error,
        candidate_noise=max(candidate_errors, default=0.0),
        noise_floor=noise_floor,
        bound=max(FLOOR_FACTOR * noise_floor, least),
    )
    entry = documented(row, evidence)
    zero = structural_zero(name, evidence, reference, entry)
    if entry and zero in (None, "undecided"):
        row = allowed(row, evidence, entry)
        if row.verdict == "equivalent":
            return row
    if zero:
        return replace(row, verdict=zero, reason=ZERO)
    if not (variant_errors or evidence.reference):
        return without_evidence(row, least)
    if row.error > row.bound:
        return row
    # A fault of the baseline alone must not count as its noise. Noise moves the variants as well:
    # away from the reference and away from the baseline.
    spread = [distance(name, variant, evidence.baseline) for variant in baseline_variants]
    variants_noise = max([step_rounding, *map(min, variant_errors, spread)])
    noise = max(row.error, row.candidate_noise, variants_noise)
    if candidate_variants and baseline_error > max(FLOOR_FACTOR * noise, least):
        return replace(row, reason=BASELINE_OFF)
    if (
        variant_errors
        and not candidate_variants
        and baseline_error > max(FLOOR_FACTOR * variants_noise, least)
    ):
        return replace(row, verdict="undecided", reason=BASELINE_ALONE)
    if noise_floor > noise_limit(row):
        return replace(row, verdict="undecided", reason=NOISY)
    return replace(row, verdict="equivalent")


def rounding_of_step(row: Row, evidence: Evidence, reference: Trace) -> float:
    """The error of a step from rounding when the parameter is stored: u · |parameter| / |step|.

    Zero for other taps. No variant shows this error: all may be rounded to the same numbers.
    """
    prefix, _, name = row.tap.partition("/")
    start = "state" if row.stage == "cross-load" else "parameters"
    parameter = evidence.baseline.taps.get(f"{start}/param/{name}")
    if prefix != "step" or parameter is None:
        return 0.0
    size = norm(reference.taps[f"{row.stage}/{row.tap}"])
    return ROUNDOFF[row.precision] * norm(parameter) / size if size else 0.0


def noise_limit(row: Row) -> float:
    """The largest noise floor at which a tap can be judged: √u, at most NOISE_LIMIT.

    For steps it is always NOISE_LIMIT, because a parameter's last digit is a large part of a step.
    """
    if row.tap.startswith("step/"):
        return NOISE_LIMIT
    return min(NOISE_LIMIT, float(ROUNDOFF[row.precision] ** 0.5))


def least_bound(name: str, row: Row, baseline: Trace) -> float:
    """The error that rounding alone allows in any tap; more if each number is a long sum."""
    terms = (baseline.manifest.get("terms") or {}).get(name, 1)
    return float(max(ROUNDOFF_FACTOR, terms**0.5) * ROUNDOFF[row.precision])


def without_evidence(row: Row, least: float) -> Row:
    """The verdict on two traces alone: equivalent up to `least`, different above √u."""
    if row.error <= least:
        return replace(row, verdict="equivalent")
    half_the_digits = float(ROUNDOFF[row.precision] ** 0.5)
    if row.error > half_the_digits:
        return replace(row, bound=half_the_digits)
    return replace(
        row, verdict="undecided", reason="the traces have no float64 reference and no variants"
    )


def distance(name: str, trace: Trace, reference: Trace) -> float:
    """Relative L2 distance of one tap; infinite if either trace lacks it."""
    if name not in trace.taps or name not in reference.taps:
        return np.inf
    return gap(trace.taps[name], reference.taps[name], same_type=False).relative


def structural_zero(
    name: str, evidence: Evidence, reference: Trace, entry: Mapping[str, Any] | None
) -> Verdict | None:
    """The verdict on a tap that is zero by structure; None if it is not such a tap.

    Example: the gradient of a key bias is zero, because softmax is invariant to shifts. The
    computed gradient is noise, and ratios of noise mean nothing. It must be small relative to its
    sibling, such as the query bias, or at most a few times the noise that the baseline and its
    variants have there. If that noise is itself not small, or the reference is not zero but noise,
    the tap is undecided, unless the candidate is far above the noise.
    """
    for pattern, (old, new) in ((p, s.split(">")) for p, s in evidence.siblings.items()):
        sibling, baseline = name.replace(old, new), evidence.baseline.taps
        common = baseline.keys() & reference.taps.keys()
        if not fnmatchcase(name, pattern) or not {name, sibling} <= common:
            continue
        if any(unfit(baseline[n], reference.taps[n], same_type=False) for n in (name, sibling)):
            return None
        scale = norm(reference.taps[sibling])
        roundoff = ROUNDOFF[evidence.candidate.manifest["precision"]]
        # an isolated operation is fed in the pair's precision, even if it computes in float64
        isolated = reference.manifest.get("kind") == "isolated"
        exact = roundoff if isolated else ROUNDOFF[reference.manifest["precision"]]
        variants = [variant for variant in evidence.baseline_variants if name in variant.taps]
        noise = max(norm(trace.taps[name]) for trace in (evidence.baseline, *variants))
        size = norm(evidence.candidate.taps[name])
        if norm(reference.taps[name]) > ZERO_FACTOR * exact * scale:
            if all(distance(name, variant, reference) <= NOISE_LIMIT for variant in variants):
                return None
            return "different" if size > ZERO_BOUND * noise else "undecided"
        relative = float(entry["allow"].get("relative", 0)) if entry else 0.0
        bound = max(FLOOR_FACTOR * noise, max(ZERO_BOUND * roundoff, relative) * scale)
        if size > bound:
            return "different"
        return "equivalent" if noise <= ZERO_FACTOR * roundoff * scale else "undecided"
    return None
