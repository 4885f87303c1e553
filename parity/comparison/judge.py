"""The verdict on each tap of two traces, with bounds that are measured instead of chosen.

A float32 result is right if it is as near to the float64 result as float32 can be expected to come.
This distance is measured. The noise floor is the largest distance to the float64 reference among
several float32 recordings of the baseline's function: the baseline and its variants, which compute
in another order or from weights moved by one unit in the last place. A candidate passes if its own
distance is at most

    max(factor · noise floor, ROUNDOFF_FACTOR · u, √n · u)

The factor is FLOOR_FACTOR, and more for a tap of one to three numbers, whose noise floor is itself
uncertain (`chance.py`). u is the unit roundoff of the pair's precision. n is the length of the sums
that make the numbers of the tap, if the baseline's trace states it (`terms`): the rounding errors
of a sum of n numbers, added one by one, grow to about √n · u (Higham and Mary 2019, SIAM J. Sci.
Comput. 41, A2815).

Above the bound, the candidate's own variants decide: if they scatter as widely as it errs, the
error is noise, else it is another function. Noise is called `less precise` if the two agree in
float64. Without such variants, an error just above the bound is a question: `undecided`.

If the candidate's noise was measured, the baseline must lie within that noise in the same way. The
same rule judges float64 against float64; there, a remaining difference is another function.
docs/parity.md says how the factors were chosen. The file is long, because all verdicts on one tap
are made here, in their order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from parity.comparison.branches import Branches, across_branches, find_branches, on_one_branch
from parity.comparison.chance import FEW, floor_factor, question_factor
from parity.comparison.choices import inputs_of, judge_choices, with_found_ties
from parity.comparison.differences import OURS, allowed, documented
from parity.comparison.measure import ROUNDOFF, gap, relative
from parity.comparison.noise import Noise, measure_noise
from parity.comparison.settling import (
    BY_CHANCE,
    FEW_NUMBERS,
    JUST_ABOVE,
    LARGE_NOISE,
    NOISY,
    OWN_NOISE,
    settle_ties,
)
from parity.comparison.ties import is_choice, whole, with_ties
from parity.comparison.trace import Trace, distance, refuse_mixture
from parity.comparison.verdict import EXACT, Evidence, OneSided, Row, Verdict
from parity.comparison.zeros import (
    NOISE_LIMIT,
    ZERO,
    ZERO_STEP,
    found_zero,
    maybe_zero,
    step_of_zero,
    structural_zero,
    without_vacuous,
)

QUESTION_FACTOR = 3.0  # without variants of the candidate, an error up to this many bounds is open
NO_REFERENCE = "the float64 reference does not have this tap"
BASELINE_OFF = "the baseline is further from float64 than the candidate's noise explains"
BASELINE_ALONE = "the baseline is further from float64 than its own variants explain"
MAYBE_ZERO = "so small beside its module's gradients that it may be zero; a float64 trace tells"
TIES_EXPLAIN = 0.5  # a gradient that is further off is wrong, if few choices differ (`rare_ties`)
COUNTING = ("parameters", "statistics")  # last word of a stage that may hold counters
NOT_JUDGED = ("state", "state parts")  # stages that only hold what other recordings start from


def judge(
    evidence: Evidence,
    without: Sequence[str] = (),
    only: Sequence[str] | None = None,
    strict: bool = False,
) -> list[Row]:
    """One row per tap that both traces have, in data order (`one_sided_taps` gives the others).

    Floating-point taps are judged by the evidence; in stages that compute nothing, they must be
    equal. Integers must be equal, except for ties of choices. Booleans must be equal; in traces of
    the checks they are claims, which must hold in both traces.

    Args:
        without: stages to leave out.
        only: taps (`stage/tap`) to judge instead of all; an empty list means none. A tap of this
            list that only one trace has is `different`.
        strict: every tap that only one trace has is `different`, instead of left out.

    Raises:
        ParityError: the traces are not of one computation.
    """
    refuse_mixture(evidence.all())
    if not evidence.reference:  # a variant that changed nothing would show a noise of 0
        variants = [v for v in evidence.baseline_variants if moved(v, evidence.baseline)]
        evidence = replace(evidence, baseline_variants=variants)
    names = dict.fromkeys([*evidence.baseline.taps, *evidence.candidate.taps])
    wanted = [name for name in names if name.partition("/")[0] not in without]
    if not strict:
        wanted = [name for name in wanted if in_both(name, evidence)]
    rows = judge_taps(wanted if only is None else only, evidence)
    return [without_vacuous(row, evidence) for row in rows]


def judge_taps(names: Sequence[str], evidence: Evidence) -> list[Row]:
    """One row per tap; those behind kinks are judged by the recordings of one branch."""
    ours = evidence.baseline.manifest.get("kind") in OURS  # the suite's cases force their choices
    branches = Branches() if ours else find_branches(evidence)
    later = {name for name in names if branches.apart(name, evidence)}
    first = [name for name in dict.fromkeys(names) if name not in later]
    settled = settle_ties([judge_tap(name, evidence) for name in first], inputs_of(evidence))
    rows = with_found_ties(dict(zip(first, settled, strict=True)), evidence, branches)
    behind = {name: judge_behind_kinks(name, evidence, branches, rows) for name in later}
    return [behind[name] if name in later else rows[name] for name in names]


def judge_behind_kinks(
    name: str, evidence: Evidence, branches: Branches, rows: Mapping[str, Row]
) -> Row:
    """The verdict on a tap that depends on choices, where the recordings chose differently.

    Choices excuse a difference only if the numbers that they are made from are equivalent.
    """
    row = judge_tap(name, evidence)
    if row.reason == ZERO:  # on every branch
        return row
    deciding = [
        rows[tap] if tap in rows else judge_tap(tap, evidence)
        for tap in branches.deciding(name, evidence)
    ]
    believed = all(row.verdict in ("equivalent", "vacuous") for row in deciding)
    common = on_one_branch(name, evidence, branches) if believed else None
    row = judge_tap(name, common or across_branches(name, evidence, branches))
    count = branches.count_ties(name, evidence)
    if common and (row.verdict == "equivalent" or noise_was_measured(row, common)):
        return replace(row, reason=row.reason or (f"{count} ties" if count else ""))
    if not believed or row.verdict == "equivalent" or not np.isfinite(row.error):
        return row
    explained = ROUNDOFF[row.precision] ** 0.5 if common else TIES_EXPLAIN
    if row.error > explained and (common or branches.rare_ties(name, evidence)):
        return replace(row, verdict="different", reason=f"further off than {count} ties explain")
    return replace(row, verdict="undecided", reason=f"behind {count} ties")


def noise_was_measured(row: Row, common: Evidence) -> bool:
    """Whether two recordings of one branch show the baseline's noise, or the candidate's own noise
    shows that the error is none."""
    measured = common.baseline_scatter or common.baseline_variants
    if measured or (common.reference and common.baseline.path != common.reference.path):
        return True
    own = common.candidate_scatter or common.candidate_variants
    return row.verdict == "different" and bool(own)


def in_both(name: str, evidence: Evidence) -> bool:
    """Whether both traces of the pair have a tap."""
    return name in evidence.baseline.taps and name in evidence.candidate.taps


def one_sided_taps(evidence: Evidence, without: Sequence[str] = ()) -> OneSided:
    """The taps that only one trace of the pair has, in data order."""
    baseline, candidate = evidence.baseline.taps, evidence.candidate.taps
    only_first, only_second = (
        tuple(n for n in own if n not in other and n.partition("/")[0] not in without)
        for own, other in ((baseline, candidate), (candidate, baseline))
    )
    counters = tuple(
        name
        for own, names in ((baseline, only_first), (candidate, only_second))
        for name in names
        if name.partition("/")[0].rpartition(" ")[2] in COUNTING
        and np.dtype(own[name].dtype).kind in "iu"
    )
    return OneSided(only_first, only_second, counters)


def moved(variant: Trace, base: Trace) -> bool:
    """Whether any computed number of the variant differs from `base`."""
    return any(
        relative(tap, base.taps[name]) != 0
        for name, tap in variant.taps.items()
        if name in base.taps and name.partition("/")[0] not in (*EXACT, *NOT_JUDGED)
    )


def row_without_numbers(stage: str, tap: str, evidence: Evidence) -> Row:
    """A row that is `different`, before anything is compared."""
    baseline, candidate = evidence.baseline, evidence.candidate
    return Row(
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


def judge_tap(name: str, evidence: Evidence) -> Row:
    """The verdict on one tap."""
    baseline, candidate = evidence.baseline, evidence.candidate
    stage, _, tap = name.partition("/")
    row = row_without_numbers(stage, tap, evidence)
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
    if is_choice(name) and (not between.reason or between.index is not None):
        return judge_choices(name, row, evidence)
    if between.reason and np.dtype(candidate.taps[name].dtype).kind != "f":
        return with_ties(name, row, evidence, between)
    if between.reason:
        return replace(row, reason=between.reason)
    if 0 in baseline.taps[name].shape:
        return replace(row, verdict="vacuous", reason="empty: nothing to compare")
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
    noise = measure_noise(name, row, evidence)
    row = replace(
        row,
        error=distance(name, evidence.candidate, reference),
        baseline_error=noise.baseline_error,
        candidate_noise=max(noise.candidate_errors, default=0.0),
        noise_floor=noise.floor,
        bound=max(floor_factor(noise.elements, noise.recordings) * noise.floor, noise.least),
    )
    entry = documented(row, evidence)
    zero = structural_zero(name, evidence, reference, entry)
    zero = zero or found_zero(name, row, evidence, reference, noise)
    if entry and zero in (None, "undecided"):
        row = allowed(row, evidence, entry)
        if row.verdict == "equivalent":
            return row
    if zero:
        return replace(row, verdict=zero, reason=ZERO)
    if step := step_of_zero(name, row, evidence, reference):
        return replace(row, verdict=step, reason=ZERO_STEP)
    if not (noise.variant_errors or evidence.reference):
        row = without_evidence(row, noise.least)
        rounding = row.verdict == "different" and maybe_zero(name, evidence)
        return replace(row, verdict="undecided", reason=MAYBE_ZERO) if rounding else row
    if row.error > row.bound:
        return above_bound(row, noise)
    return judge_baseline(row, noise)


def above_bound(row: Row, noise: Noise) -> Row:
    """The verdict on an error above the bound.

    The candidate's own variants decide. If there is none that differs from it, an error just above
    the bound, or one that chance explains, is open.
    """
    if not noise.moved_candidates:
        chance = question_factor(noise.elements, noise.recordings) * noise.floor
        if row.bound < row.error <= chance:  # few numbers and few recordings
            return replace(row, verdict="undecided", reason=BY_CHANCE)
        is_open = row.error <= QUESTION_FACTOR * row.bound
        return replace(row, verdict="undecided", reason=JUST_ABOVE) if is_open else row
    factor = question_factor(noise.elements, noise.moved_candidates)
    if row.error > factor * noise.of_candidate:
        return row
    if factor > FEW:  # so few numbers may differ from their variants by chance alone
        return replace(row, verdict="undecided", reason=FEW_NUMBERS)
    large = row.error > noise_limit(row)
    return replace(row, verdict="undecided", reason=LARGE_NOISE if large else OWN_NOISE)


def judge_baseline(row: Row, noise: Noise) -> Row:
    """The verdict on an error within the bound, which a fault of the baseline may have widened."""
    if noise.candidate_errors:
        known = max(row.error, row.candidate_noise, noise.of_baseline)
        recordings = 1 + noise.moved_candidates + noise.moved_baselines
        bound = max(floor_factor(noise.elements, recordings) * known, noise.least)
        chance = question_factor(noise.elements, recordings) * known
        if row.baseline_error > bound:
            is_open = row.baseline_error <= max(QUESTION_FACTOR * bound, chance)
            verdict: Verdict = "undecided" if is_open else "different"
            return replace(row, verdict=verdict, reason=BASELINE_OFF)
    elif noise.variant_errors:
        factor = floor_factor(noise.elements, noise.moved_baselines)
        if row.baseline_error > max(factor * noise.of_baseline, noise.least):
            return replace(row, verdict="undecided", reason=BASELINE_ALONE)
    if row.noise_floor > noise_limit(row):
        return replace(row, verdict="undecided", reason=NOISY)
    return replace(row, verdict="equivalent")


def noise_limit(row: Row) -> float:
    """The largest noise floor at which a tap can be judged: √u, at most NOISE_LIMIT.

    For steps it is always NOISE_LIMIT, because a parameter's last digit is a large part of a step.
    """
    if row.tap.startswith(("step/", "ema/")):
        return NOISE_LIMIT
    return min(NOISE_LIMIT, float(ROUNDOFF[row.precision] ** 0.5))


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
