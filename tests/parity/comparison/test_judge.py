"""Verdicts on traces made by hand: for each rule, a case that passes and one that does not.

Arrays are float64 even if the trace says float32, so that distances are exact to many digits.
"""

from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from parity.comparison import differences
from parity.comparison.chance import CHANCE, FEW, FLOOR_FACTOR, floor_factor, question_factor
from parity.comparison.differences import load_differences
from parity.comparison.judge import (
    BASELINE_ALONE,
    BASELINE_OFF,
    FEW_NUMBERS,
    JUST_ABOVE,
    LARGE_NOISE,
    NOT_JUDGED,
    judge,
    one_sided_taps,
)
from parity.comparison.measure import ROUNDOFF
from parity.comparison.noise import ROUNDOFF_FACTOR
from parity.comparison.settling import BEHIND_TIES, NOISY, OWN_NOISE, settle_precision
from parity.comparison.sketch import sketch
from parity.comparison.trace import Trace
from parity.comparison.verdict import EXIT_CODES, Evidence, OneSided, worst
from parity.comparison.zeros import (
    ALL_ZERO,
    CONSTANT,
    UNMOVED,
    ZERO,
    ZERO_BOUND,
    ZERO_FACTOR,
)
from parity.errors import ParityError

U = ROUNDOFF["float32"]
A = np.random.default_rng(0).standard_normal((8, 9))
KEY, QUERY = "gradients/grad/blocks.0.attn.key.bias", "gradients/grad/blocks.0.attn.query.bias"
SIBLINGS = {"*.attn.key.bias": ".attn.key.>.attn.query."}


@pytest.fixture(autouse=True)
def no_differences(monkeypatch):
    """No documented differences, except those that a test adds."""
    entries = []
    monkeypatch.setattr(differences, "load_differences", lambda: entries)
    return entries


def trace(taps, name="first", precision="float32", **manifest):
    facts = {"producer": {"name": name}, "precision": precision, "case": "small", "subject": {}}
    facts["kind"] = "checks"  # claims and documented differences count only in this kind
    return Trace(Path(f"{name}.npz"), facts | manifest, taps)


def verdict(candidate, baseline=A, tap="forward/x", **evidence):
    """The row of one tap; `reference` and the variants are given as values, not as traces."""
    precision = evidence.pop("precision", "float32")
    if "reference" in evidence:
        evidence["reference"] = trace({tap: evidence["reference"]}, precision="float64")
    for key in ("baseline_variants", "candidate_variants"):
        evidence[key] = [trace({tap: v}, variant="symmetry:1") for v in evidence.get(key, ())]
    pair = [trace({tap: x}, n, precision) for n, x in (("first", baseline), ("other", candidate))]
    (row,) = judge(Evidence(*pair, **evidence))
    return row


def off(relative):
    """A at this relative distance from itself."""
    return A * (1 + relative)


# The ratio test


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float64"])
def test_bound_by_roundoff(precision):
    bound = ROUNDOFF_FACTOR * ROUNDOFF[precision]
    below = verdict(off(bound * 0.7), reference=A, precision=precision)
    above = verdict(off(bound * 1.4), reference=A, precision=precision)
    far = verdict(off(bound * 4), reference=A, precision=precision)
    assert (below.verdict, above.verdict) == ("equivalent", "undecided")
    assert above.reason == JUST_ABOVE and (far.verdict, far.reason) == ("different", "")
    assert below.bound == above.bound == bound
    assert below.ratio == pytest.approx(0.7, rel=0.2) and above.ratio > 1
    assert below.noise_floor == below.baseline_error == 0


JUST_BELOW_AND_ABOVE = [(0.999, "equivalent"), (1.001, "undecided"), (3.01, "different")]


@pytest.mark.parametrize(("factor", "expected"), JUST_BELOW_AND_ABOVE)
def test_bound_by_the_baselines_own_distance(factor, expected):
    row = verdict(off(-FLOOR_FACTOR * 1e-5 * factor), baseline=off(1e-5), reference=A)
    assert row.verdict == expected
    assert row.baseline_error == row.noise_floor == pytest.approx(1e-5)
    assert row.bound == pytest.approx(FLOOR_FACTOR * 1e-5)
    assert row.error == pytest.approx(5e-5 * factor)
    assert row.pair_error == pytest.approx(5e-5 * factor + 1e-5, rel=1e-4)


@pytest.mark.parametrize(("factor", "expected"), JUST_BELOW_AND_ABOVE)
def test_bound_by_the_worst_variant(factor, expected):
    variants = [off(1e-7), off(-1e-5), off(2e-6)]
    row = verdict(off(5e-5 * factor), reference=A, baseline_variants=variants)
    assert row.verdict == expected and row.noise_floor == pytest.approx(1e-5)
    # without a float64 reference, the baseline takes its place
    row = verdict(off(5e-5 * factor), baseline_variants=variants)
    assert row.verdict == expected and row.baseline_error == 0


@pytest.mark.parametrize(
    "factor, expected", [(0.9, "equivalent"), (1.1, "undecided"), (3.1, "different")]
)
def test_rounding_of_the_parameter_counts_as_noise_of_its_step(factor, expected):
    """Only if the reference does not show this rounding."""
    names = "parameters/param/head.bias", "one update/step/head.bias"
    parameter, step = A[0], A[1] * 1e-3
    allowed = FLOOR_FACTOR * ROUNDOFF["float64"] * np.linalg.norm(parameter) / np.linalg.norm(step)

    def last(reference=None):
        taps = [dict(zip(names, (parameter, x), strict=True)) for x in (step, step + error)]
        pair = [trace(t, n, "float64") for t, n in zip(taps, ("first", "other"), strict=True)]
        variant = trace(taps[0] | {"forward/x": off(1e-15)}, precision="float64")
        for recording in pair:
            recording.taps["forward/x"] = A
        return judge(Evidence(*pair, reference, baseline_variants=[variant]))[1]

    error = step * factor * allowed
    assert last().verdict == expected
    assert last().bound == pytest.approx(allowed)
    exact = trace({names[1]: step}, precision="float64")
    assert last(exact).verdict == "different"


def test_a_variant_that_changed_nothing_is_ignored():
    """Two traces alone are undecided; a copy of the baseline is no further evidence."""
    same = verdict(off(1e-5), baseline_variants=[A, A])
    assert same == verdict(off(1e-5)) and same.verdict == "undecided"
    assert verdict(off(1e-5), baseline_variants=[A, off(1e-7)]).verdict == "different"
    # but a tap that no weight reaches has no noise
    taps = ({"forward/x": x, "updates/lr": rate} for x, rate in ((A, A), (A, off(1e-5))))
    pair = [trace(t, n) for t, n in zip(taps, ("first", "other"), strict=True)]
    variant = trace({"forward/x": off(1e-7), "updates/lr": A}, variant="ulp:1")
    rows = judge(Evidence(*pair, baseline_variants=[variant]))
    assert [row.verdict for row in rows] == ["equivalent", "different"]


@pytest.mark.parametrize(("factor", "expected"), [(0.999, "equivalent"), (1.001, "undecided")])
def test_a_fault_that_the_baselines_variants_share_proves_nothing(factor, expected):
    """Without the candidate's variants, a fault of the baseline could widen the bound."""
    baseline = off(1e-4)
    shared = off(1e-4 * (1 + factor**-1 / FLOOR_FACTOR))
    for error in (1e-7, 4e-4):
        row = verdict(off(error), baseline, reference=A, baseline_variants=[shared])
        assert row.verdict == expected
        assert row.reason == (BASELINE_ALONE if expected == "undecided" else "")
    # beyond the bound nothing is in doubt
    assert (
        verdict(off(3e-3), baseline, reference=A, baseline_variants=[shared]).verdict == "different"
    )


def test_variants_of_the_candidate_widen_nothing():
    """Noise of the candidate leaves the question open; it makes nothing equivalent."""
    row = verdict(off(1e-5), reference=A, candidate_variants=[off(1e-4), off(1e-3)])
    assert (row.verdict, row.reason) == ("undecided", OWN_NOISE)
    assert row.candidate_noise == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        (-1e-5, "undecided"),  # its error has another sign: noise
        (1.01e-5, "different"),  # the same error again: a fault
        (1e-5, "undecided"),  # equal to the bit: says nothing
    ],
)
def test_the_candidates_variants_tell_noise_from_a_fault(variant, expected):
    error = 2.5 * ROUNDOFF_FACTOR * U
    row = verdict(off(error), reference=A, candidate_variants=[off(variant / 1e-5 * error)])
    assert row.verdict == expected
    assert row.reason == {-1e-5: OWN_NOISE, 1e-5: JUST_ABOVE}.get(variant, "")


@pytest.mark.parametrize("exact", ["equivalent", "different", None])
def test_less_precise_is_noise_that_float64_confirms(exact):
    row = verdict(off(1e-5), reference=A, candidate_variants=[off(-1e-5)])
    other = [replace(row, precision="float64", verdict=exact, reason="")] if exact else []
    settled = settle_precision([row, *other])[0]
    if exact == "equivalent":
        assert settled.verdict == "less precise" and "in float64 the two agree" in settled.reason
    else:
        assert settled == row
    # a fault that only the float32 code has is no noise
    fault = verdict(off(1e-4), reference=A, candidate_variants=[off(1.001e-4)])
    assert settle_precision([fault, *other])[0].verdict == "different"


@pytest.mark.parametrize("coarse", ["equivalent", "vacuous", "different", None])
def test_float64_numbers_that_do_not_move_are_vacuous_unless_float32_moves(coarse):
    row = replace(verdict(A), verdict="vacuous", reason=UNMOVED)
    exact = replace(row, precision="float64")
    other = [replace(row, verdict=coarse, noise_floor=U)] if coarse else []
    expected = "equivalent" if coarse == "equivalent" else "vacuous"
    assert settle_precision([exact, *other])[0].verdict == expected
    fixed = [replace(x, noise_floor=0.0) for x in other]  # too few numbers to be called vacuous
    assert settle_precision([exact, *fixed])[0].verdict == "vacuous"
    zero = replace(exact, reason=ALL_ZERO)
    assert settle_precision([zero, *other])[0].verdict == "vacuous"
    elsewhere = [replace(x, tap="other") for x in other]
    assert settle_precision([exact, *elsewhere])[0].verdict == "vacuous"
    assert settle_precision([row])[0].verdict == "vacuous"


@pytest.mark.parametrize(("factor", "expected"), JUST_BELOW_AND_ABOVE)
def test_a_fault_of_the_baseline_alone_is_not_its_noise(factor, expected):
    """Its variants share the fault, so the noise floor hides it; the candidate's noise does not."""
    baseline = off(-FLOOR_FACTOR * 1e-5 * factor)
    for own, error in ((1e-5, 1e-7), (1e-7, 1e-5)):
        row = verdict(
            off(error),
            baseline,
            reference=A,
            baseline_variants=[baseline],
            candidate_variants=[off(own)],
        )
        assert row.verdict == expected and (row.reason == BASELINE_OFF) == (factor > 1)
    near = off(0.9 * ROUNDOFF_FACTOR * U)
    assert verdict(A, near, reference=A, candidate_variants=[A]).verdict == "equivalent"
    far = off(3.1 * ROUNDOFF_FACTOR * U)
    assert verdict(A, far, reference=A, candidate_variants=[A]).verdict == "different"


@pytest.mark.parametrize(("times", "expected"), [(4, "equivalent"), (25, "undecided")])
def test_few_numbers_do_not_hide_a_fault_of_the_baseline(times, expected):
    """One number from few recordings: chance could explain 300 times the noise, so 25 is open."""
    one = np.array(1.0)
    for own in ([], [one * (1 + 1e-5)]):
        row = verdict(
            one,
            one * (1 + times * 1e-5),
            reference=one,
            baseline_variants=[one * (1 + (times + 1) * 1e-5)],
            candidate_variants=own,
        )
        assert row.verdict == expected
        assert (row.reason in (BASELINE_OFF, BASELINE_ALONE)) == (expected == "undecided")


@pytest.mark.parametrize(
    ("spread", "expected"), [(0.3, "different"), (0.9, "undecided"), (1.1, "equivalent")]
)
def test_noise_of_the_baseline_alone_is_no_fault(spread, expected):
    """Noisy variants are far from baseline and reference; variants without error prove nothing."""
    baseline = off(1e-4)
    row = verdict(
        off(1e-6), baseline, reference=A, candidate_variants=[off(1e-6)],
        baseline_variants=[off(1e-4 * (1 + spread / FLOOR_FACTOR)), baseline, A],
    )  # fmt: skip
    assert row.verdict == expected and (row.reason == BASELINE_OFF) == (spread < 1)


def test_a_variant_without_the_tap_says_nothing():
    pair = [trace({"x/y": v}, n) for n, v in (("first", A), ("other", off(1e-4)))]
    (row,) = judge(Evidence(*pair, baseline_variants=[trace({"x/z": A})]))
    assert row.verdict == "undecided" and "no variants" in row.reason


LIMIT = 2.0**-12  # half of float32's digits


@pytest.mark.parametrize(
    ("noise", "error", "expected"),
    [
        (0.9 * LIMIT, 2 * LIMIT, "equivalent"),
        (1.1 * LIMIT, 2 * LIMIT, "undecided"),
        (1.1 * LIMIT, 17 * LIMIT, "different"),
        (1.1 * LIMIT, 0, "undecided"),
    ],
)
def test_too_much_noise_is_undecided(noise, error, expected):
    row = verdict(off(error), reference=A, baseline_variants=[off(noise)])
    assert row.verdict == expected
    assert ("noise is too large" in row.reason) == (expected == "undecided")


@pytest.mark.parametrize(
    "broken",
    [A * np.nan, A[:2], A.astype(int), np.full_like(A, np.inf)],
    ids="nan cut int inf".split(),
)
def test_broken_evidence_lets_nothing_pass(broken):
    """A variant or a reference that cannot be compared must not widen the bound."""
    for evidence in (
        {"reference": broken},
        {"reference": A, "baseline_variants": [broken]},
        {"baseline_variants": [off(1e-7), broken]},
    ):
        assert verdict(off(1e-4), **evidence).verdict == "undecided"
        assert verdict(A, **evidence).verdict == "undecided"


def test_a_reference_without_the_tap_decides_nothing():
    pair = [trace({"x/y": A}, name) for name in ("first", "other")]
    (row,) = judge(Evidence(*pair, trace({}, precision="float64")))
    assert row.verdict == "undecided"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (0.9 * ROUNDOFF_FACTOR * U, "equivalent"),
        (1.1 * ROUNDOFF_FACTOR * U, "undecided"),
        (0.9 * U**0.5, "undecided"),
        (1.1 * U**0.5, "different"),
    ],
)
def test_two_traces_alone(error, expected):
    row = verdict(off(error))
    assert row.verdict == expected
    assert ("no float64 reference" in row.reason) == (expected == "undecided")


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_no_size_of_the_numbers_hides_a_fault(scale):
    for candidate in (1.01 * A * scale, A * scale * -1):
        assert verdict(candidate, A * scale, reference=A * scale).verdict == "different"


def test_sketches_are_judged_like_arrays():
    large = np.random.default_rng(1).standard_normal(9000)
    near, far = sketch(large * (1 + 3e-7)), sketch(large * (1 + 1e-4))
    rows = [
        verdict(x, sketch(large), reference=large, baseline_variants=[sketch(large)])
        for x in (near, far)
    ]
    assert [row.verdict for row in rows] == ["equivalent", "different"]


def with_one(value, place=(3, 4)):
    copy = A.copy()
    copy[place] = value
    return copy


def test_the_row_names_the_place():
    row = verdict(with_one(A[3, 4] + 0.5), reference=A)
    assert (row.case, row.stage, row.tap) == ("small", "forward", "x")
    assert (row.precision, row.pair) == ("float32", "other : first")
    assert row.index == (3, 4) and row.values == pytest.approx((A[3, 4] + 0.5, A[3, 4]))
    record = row.record()
    assert record["ratio"] == row.ratio > 1 and record["verdict"] == "different"
    assert replace(row, error=0.0, bound=0.0).ratio == 0
    assert replace(row, bound=0.0).ratio == np.inf


# What is not judged by distance


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (A.T, "shape (9, 8), expected (8, 9)"),
        (A.ravel(), "shape (72,), expected (8, 9)"),
        (A.astype("f4"), "type float32, expected float64"),
        (A.astype(int), "type int64, expected float64"),
        (with_one(np.nan), "1 elements are not finite"),
        (with_one(-np.inf), "1 elements are not finite"),
    ],
)
def test_what_cannot_be_compared_is_different(candidate, reason):
    for one, other in ((candidate, A), (A, candidate)):
        row = verdict(one, other, reference=A, baseline_variants=[A])
        assert row.verdict == "different" and row.error == np.inf and row.reason
    assert verdict(candidate, reference=A).reason == reason


def test_two_that_diverged_alike_are_different():
    broken = with_one(np.nan)
    assert verdict(broken, broken, reference=broken).verdict == "different"


def test_a_tap_of_one_trace_alone_is_different():
    pair = trace({"x/a": A, "x/b": A}), trace({"x/b": A, "x/c": A}, "other")
    evidence = Evidence(*pair, trace({}, precision="float64"), [trace({"x/b": A})])
    rows = judge(evidence, strict=True)
    assert [row.tap for row in rows] == ["a", "b", "c"]  # in data order
    assert rows[0].reason == "absent from other float32 (other.npz)"
    assert rows[2].reason == "absent from first float32 (first.npz)"
    assert [row.verdict for row in rows if row.tap != "b"] == ["different"] * 2


def test_a_tap_of_one_trace_alone_is_in_a_list_of_its_own():
    taps = {"x/a": A, "x/b": A, "state/s": A}, {"x/b": A, "x/c": A}
    evidence = Evidence(trace(taps[0]), trace(taps[1], "other"))
    assert [row.tap for row in judge(evidence)] == ["b"]
    assert one_sided_taps(evidence, NOT_JUDGED) == OneSided(("x/a",), ("x/c",))
    assert one_sided_taps(evidence).baseline == ("x/a", "state/s")
    both = OneSided(("x/a",), ("x/c",)) + OneSided(("x/a", "x/d"), ())
    assert both == OneSided(("x/a", "x/d"), ("x/c",))


@pytest.mark.parametrize("stage", ["parameters", "loading"])
def test_where_nothing_is_computed_nothing_is_rounded(stage):
    moved = with_one(np.nextafter(A[3, 4], 9))
    for evidence in ({}, {"reference": A, "baseline_variants": [off(1e-3)]}):
        assert verdict(A.copy(), tap=f"{stage}/x", **evidence).verdict == "equivalent"
        assert verdict(moved, tap=f"{stage}/x", **evidence).verdict == "different"
    assert verdict(moved, tap="forward/x", reference=A).verdict == "equivalent"


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_integers_are_equal(kind):
    count = np.array([3, 1, 4], kind)
    assert verdict(count.copy(), count, baseline_variants=[count + 1]).verdict == "equivalent"
    for wrong in (count + kind(1), count[::-1], count.astype("f4"), count > 0, count[:2]):
        row = verdict(wrong, count, reference=count)
        assert row.verdict == "different" and row.reason


def test_claims_hold_in_both():
    true, false = np.array([True, True]), np.array([True, False])
    assert verdict(true, true).verdict == "equivalent"
    row = verdict(false, false)
    assert (row.verdict, row.reason) == ("different", "a claim that does not hold")
    assert verdict(true, false).verdict == verdict(false, true).verdict == "different"
    assert verdict(np.array(False), np.array(False)).verdict == "different"
    assert verdict(np.array(1), np.array(True)).verdict == "different"


def test_stages_and_taps_to_judge():
    names = ("x/a", "y/b", "x/c")
    evidence = Evidence(*(trace(dict.fromkeys(names, A), n) for n in ("first", "other")))
    assert [row.tap for row in judge(evidence)] == ["a", "b", "c"]
    assert [row.tap for row in judge(evidence, without=("x",))] == ["b"]
    assert [row.tap for row in judge(evidence, only=["x/c", "x/d"])] == ["c", "d"]
    assert judge(evidence, only=["x/d"])[0].verdict == "different"  # a wanted tap is missing


@pytest.mark.parametrize("place", range(4))
def test_traces_of_two_computations_are_refused(place):
    traces = [trace({"x/y": A}, name) for name in "abcd"]
    traces[place] = trace({"x/y": A}, "wrong", subject={"weights": "others"})
    baseline, candidate, reference, variant = traces
    with pytest.raises(ParityError, match="weights is .*wrong|wrong.*weights is"):
        judge(Evidence(baseline, candidate, reference, [variant]))
    with pytest.raises(ParityError, match="weights"):
        judge(Evidence(baseline, candidate, reference, (), [variant]))


def test_the_worst_of_many():
    assert worst(["equivalent", "undecided", "equivalent"]) == "undecided"
    assert worst(["undecided", "different", "equivalent"]) == "different"
    assert worst(["equivalent"] * 3) == "equivalent"
    assert worst(["equivalent", "less precise"]) == "less precise"
    assert worst(["less precise", "undecided"]) == "undecided"
    assert worst(["vacuous", "equivalent"]) == "equivalent"
    assert worst(["vacuous", "vacuous"]) == "vacuous"
    assert worst([]) == "undecided"
    assert EXIT_CODES == {
        "equivalent": 0, "different": 1, "undecided": 2, "vacuous": 2, "less precise": 3,
    }  # fmt: skip


# Zero by structure


def zeros(candidate, baseline=1e-9, reference=1e-17, variants=(), sibling=A, **facts):
    """The row of a key bias's gradient of these sizes; the query bias's gradient has size 1."""
    unit = A / np.linalg.norm(A)
    query = sibling / np.linalg.norm(sibling) if sibling.any() else sibling
    taps = [
        {KEY: size * unit, QUERY: query} for size in (baseline, candidate, reference, *variants)
    ]
    kinds = [trace(taps[0]), trace(taps[1], "other")]
    kinds.append(trace(taps[2], precision="float64", **facts))
    more = [trace(each, variant="ulp:1") for each in taps[3:]]
    rows = judge(Evidence(*kinds, more, siblings=SIBLINGS))
    return next(row for row in rows if f"{row.stage}/{row.tap}" == KEY)


@pytest.mark.parametrize(("factor", "expected"), [(0.9, "equivalent"), (1.1, "different")])
@pytest.mark.parametrize("sign", [1, -1])
def test_zero_by_structure_is_small_relative_to_its_sibling(sign, factor, expected):
    row = zeros(sign * factor * ZERO_BOUND * U)
    assert (row.verdict, row.reason) == (expected, ZERO)


@pytest.mark.parametrize(("factor", "expected"), [(0.9, "equivalent"), (1.1, "different")])
def test_zero_by_structure_is_no_larger_than_the_noise_there(factor, expected):
    noise = 20 * U
    assert zeros(factor * FLOOR_FACTOR * noise, baseline=noise).verdict == expected
    assert zeros(factor * FLOOR_FACTOR * noise, variants=[noise, U]).verdict == expected


def test_noise_of_a_structural_zero_has_a_limit():
    """Baseline and variants must be small as well, for any candidate."""
    too_large = 1.1 * ZERO_FACTOR * U
    for row in (zeros(1e-9, baseline=too_large), zeros(1e-9, variants=[too_large])):
        assert (row.verdict, row.reason) == ("undecided", ZERO)


@pytest.mark.parametrize(("factor", "expected"), [(0.9, "undecided"), (1.1, "different")])
def test_a_reference_that_is_noise_instead_of_zero(factor, expected):
    """With outlier weights the float64 reference is not zero, but as noisy as its variants."""
    size = 2 * ZERO_FACTOR * ROUNDOFF["float64"]
    row = zeros(factor * ZERO_BOUND * size, baseline=size, reference=size, variants=[0.9 * size])
    assert (row.verdict, row.reason) == (expected, ZERO)
    steady = zeros(size, baseline=size, reference=size, variants=[0.9999 * size])
    assert (steady.verdict, steady.reason) == ("equivalent", "")


def test_a_noisy_zero_is_equivalent_where_that_is_documented(no_differences):
    """Under Adam the step of a key bias is noise of the size of the rate."""
    facts = {"baseline": 1.0, "reference": 0.5, "variants": [-1.0]}
    assert zeros(-0.7, **facts).verdict == "undecided"
    no_differences.append(entry(taps=["*.attn.key.bias"], absolute=1.0))
    assert zeros(-0.7, **facts).verdict == "equivalent"
    assert zeros(-5.0, **facts).verdict == "undecided"


def test_what_is_not_zero_is_judged_by_ratio():
    """Zero is measured in the reference's own precision, not in the pair's."""
    size = ZERO_FACTOR * ROUNDOFF["float64"]
    assert zeros(1e-9, reference=0.9 * size).reason == ZERO
    assert zeros(1e-9, reference=1.1 * size).reason != ZERO
    # a gradient of a twenty-thousandth of its sibling is not zero: size and sign count
    for wrong in (1.01, -1):
        assert zeros(wrong * 5e-5, baseline=5e-5, reference=5e-5).verdict == "different"
    assert zeros(5e-5, baseline=5e-5, reference=5e-5).reason == ""
    # a sibling that is zero excuses nothing
    assert zeros(1e-9, sibling=np.zeros_like(A)).verdict != "equivalent"


@pytest.mark.parametrize(("factor", "expected"), [(0.9, ZERO), (1.1, "")])
def test_an_isolated_operation_is_as_exact_as_its_inputs(factor, expected):
    """Its inputs are in the pair's precision, even if it computes in float64."""
    size = factor * ZERO_FACTOR * U
    row = zeros(size, baseline=size, reference=size, kind="isolated")
    assert (row.verdict, row.reason) == ("equivalent", expected)


@pytest.mark.parametrize("reference", [A * np.nan, A[:2], A.astype(int)], ids="nan cut int".split())
@pytest.mark.parametrize("broken", [KEY, QUERY])
def test_a_broken_reference_makes_no_zero(reference, broken):
    taps = {KEY: 1e-9 * A, QUERY: A}
    pair = [trace(taps, name) for name in ("first", "other")]
    reference = trace(taps | {KEY: 1e-17 * A} | {broken: reference}, precision="float64")
    for only in (reference, trace({QUERY: A}, precision="float64")):
        rows = judge(Evidence(*pair, only, siblings=SIBLINGS))
        assert next(row for row in rows if "key" in row.tap).verdict == "undecided"


def test_zero_by_structure_takes_no_nan():
    assert zeros(np.nan).verdict == "different"


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_a_zero_that_nobody_named_is_shown_by_its_own_noise(precision):
    """The reference must have more digits, and another tap must give the scale."""
    names = ("gradients/grad/a", "gradients/grad/b")
    taps = [dict(zip(names, (x * A, A), strict=True)) for x in (1e-9, -1e-9, 1e-17)]
    reference = trace(taps[2], precision=precision)
    row = judge(Evidence(trace(taps[0]), trace(taps[1], "other"), reference))[0]
    assert (row.reason == ZERO) == (precision == "float64")
    alone = [{names[0]: each[names[0]]} for each in taps]
    reference = trace(alone[2], precision=precision)
    (row,) = judge(Evidence(trace(alone[0]), trace(alone[1], "other"), reference))
    assert row.reason != ZERO and row.verdict == "undecided"


# Ties of part indices

SCORES = np.array([[[0.5, 0.2, 0.3, 0.1], [0.1, 0.4, 0.4 + 1e-6, 0.2]]])  # (B, K, N)
INDEX = np.array([[1, 3]])


def parts(candidate_scores, candidate_index, baseline=(SCORES, INDEX), reference=(SCORES, INDEX)):
    """The row of part indices."""
    pairs = [baseline, (candidate_scores, candidate_index), reference]
    names, kinds = ("first", "other", "first"), ("float32", "float32", "float64")
    traces = [
        trace({k: v for k, v in zip(KEYS, pair, strict=True) if v is not None}, name, kind)
        for pair, name, kind in zip(pairs, names, kinds, strict=True)
    ]
    rows = judge(Evidence(*traces))
    return next(row for row in rows if row.tap == "part_index")


KEYS = ("selection/part_scores", "selection/part_index")
FLIPPED = np.array([[1, 2]])


def noisy_scores(size):
    """Scores with an error of this size in the second row."""
    return SCORES + size * np.array([[[0] * 4, [0, 0, 0, 1]]])


def test_a_tie_inside_the_noise_passes():
    """Margin 1e-6; noise is twice the sum of both largest errors in that row."""
    baseline = (noisy_scores(-0.2e-6), INDEX)
    row = parts(noisy_scores(0.4e-6), FLIPPED, baseline=baseline)
    assert (row.verdict, row.reason, row.error) == ("equivalent", "1 ties", 0)
    (tie,) = row.ties
    assert (tie["image"], tie["head"], tie["baseline"], tie["candidate"]) == (0, 1, 3, 2)
    assert tie["margin"] == pytest.approx(1e-6) and tie["noise"] == pytest.approx(1.2e-6)
    # scores with an error that is not noise excuse nothing
    row = parts(noisy_scores(1e-3), FLIPPED)
    assert row.ties[0]["margin"] <= row.ties[0]["noise"] and row.verdict == "different"


def test_a_flip_beyond_the_noise_fails():
    row = parts(noisy_scores(0.4e-6), FLIPPED)
    assert row.verdict == "different" and row.ties[0]["margin"] > row.ties[0]["noise"]
    assert parts(SCORES, FLIPPED).verdict == "different"
    # noise in another row does not count
    elsewhere = SCORES + np.array([[[0, 0, 0, 1.0], [0] * 4]])
    assert parts(elsewhere, FLIPPED).verdict == "different"
    # one flip inside and one beyond
    row = parts(noisy_scores(0.6e-6), np.array([[2, 2]]))
    assert row.verdict == "different" and len(row.ties) == 2
    # NaN in the scores is not noise
    assert parts(noisy_scores(np.nan), FLIPPED).verdict == "different"


BEST = np.array([[1, 3, 3, 2]])  # two of each row of SCORES, the largest first


def test_several_choices_of_each_row():
    """Row after row: a flip is judged by the scores of its own row, at its own rank."""
    scores, given = noisy_scores(0.4e-6), {"baseline": (noisy_scores(-0.2e-6), BEST)}
    given["reference"] = (SCORES, BEST)
    row = parts(scores, np.array([[1, 3, 2, 3]]), **given)
    assert (row.verdict, row.reason) == ("equivalent", "2 ties")
    places = [(tie["image"], tie["head"], tie["baseline"], tie["candidate"]) for tie in row.ties]
    assert places == [(0, 2, 3, 2), (0, 3, 2, 3)]
    assert all(tie["margin"] == pytest.approx(1e-6) for tie in row.ties)
    assert all(tie["noise"] == pytest.approx(1.2e-6) for tie in row.ties)
    # the same flip in the first row, whose scores have no error
    assert parts(scores, np.array([[3, 1, 3, 2]]), **given).verdict == "different"
    # a third patch in the place of the second: the difference of scores counts
    assert parts(scores, np.array([[1, 3, 3, 4]]), **given).verdict == "different"


def test_choices_that_rows_do_not_share_are_no_tie():
    three, flipped = np.array([[1, 3, 3]]), np.array([[1, 3, 2]])
    row = parts(noisy_scores(1.0), flipped, (SCORES, three), (SCORES, three))
    assert row.verdict == "different" and "do not fit" in row.reason


@pytest.mark.parametrize("index", [0, 5, -1, 99])
def test_an_index_outside_the_image_is_no_tie(index):
    for flipped in (np.array([[1, index]]), np.array([[index, 3]])):
        assert parts(noisy_scores(1.0), flipped).verdict == "different"


@pytest.mark.parametrize(
    "index",
    [INDEX.astype("f4"), INDEX[0], INDEX.T, INDEX[:, :1], INDEX > 1],
    ids=["float", "flat", "transposed", "cut", "bool"],
)
def test_indices_of_another_shape_or_type_are_no_tie(index):
    row = parts(noisy_scores(1.0), index)
    assert row.verdict == "different" and "expected" in row.reason
    assert parts(noisy_scores(1.0), INDEX, baseline=(SCORES, index)).verdict == "different"


@pytest.mark.parametrize(
    "scores", [None, SCORES[:, :, :3], SCORES[0], SCORES[:, :1], sketch(SCORES)], ids=str
)
def test_without_scores_a_flip_is_a_difference(scores):
    assert parts(scores, FLIPPED).verdict == "different"
    good = noisy_scores(1.0)
    assert parts(good, FLIPPED, baseline=(scores, INDEX)).verdict == "different"
    assert parts(good, FLIPPED, reference=(scores, INDEX)).verdict == "different"


def test_scores_of_another_stage_are_no_excuse():
    taps = {"forward/part_scores": noisy_scores(1.0), "selection/part_index": FLIPPED}
    baseline = {"forward/part_scores": SCORES, "selection/part_index": INDEX}
    rows = judge(Evidence(trace(baseline), trace(taps, "other"), trace(baseline)))
    assert rows[1].verdict == "different"


def test_only_choices_can_tie():
    names = ("evaluation/part_scores", "evaluation/labels")
    values = ((SCORES, INDEX), (noisy_scores(1.0), FLIPPED), (SCORES, INDEX))
    traces = [trace(dict(zip(names, value, strict=True))) for value in values]
    assert judge(Evidence(*traces))[1].verdict == "different"


def test_a_prediction_ties_where_the_logits_do():
    names = ("evaluation/logits", "evaluation/prediction")
    for size, expected in ((0.3e-6, "equivalent"), (0.2e-6, "different")):
        baseline, candidate = (noisy_scores(error)[0] for error in (-size, size))
        taps = [(baseline, INDEX[0] - 1), (candidate, FLIPPED[0] - 1), (SCORES[0], INDEX[0] - 1)]
        traces = [trace(dict(zip(names, t, strict=True))) for t in taps]
        row = judge(Evidence(*traces))[1]
        assert row.verdict == expected
        (tie,) = row.ties
        assert (tie["image"], tie["head"], tie["baseline"], tie["candidate"]) == (1, None, 2, 1)


def test_taps_behind_a_tie_are_undecided():
    names = [f"evaluation/{name}" for name in ("block00", "part_scores", "part_index", "logits")]
    names.append("forward/logits")

    def judged(index, candidate):
        """The rows of traces whose part scores are both slightly off, and whose logits differ."""
        baseline = noisy_scores(-0.3e-6)
        taps = [(A, baseline, INDEX, A, A), (off(1e-2), candidate, index, off(1e-2), off(1e-2))]
        traces = [
            trace(dict(zip(names, t, strict=True))) for t in (*taps, (A, SCORES, INDEX, A, A))
        ]
        return judge(Evidence(*traces))

    rows = judged(FLIPPED, noisy_scores(0.3e-6))
    # taps before the choice and taps of another stage are judged as usual
    expected = ["different", "equivalent", "equivalent", "undecided", "different"]
    assert [row.verdict for row in rows] == expected and rows[3].reason == BEHIND_TIES
    # without a tie, or with wrong scores, nothing is excused
    assert judged(INDEX, noisy_scores(0.3e-6))[3].verdict == "different"
    rows = judged(FLIPPED, noisy_scores(1.0))
    assert rows[1].verdict == "different" and rows[2].ties and rows[3].verdict == "different"


# Documented differences


def entry(**allow):
    return {"id": "known", "allow": {"taps": ["*"]} | allow}


@pytest.mark.parametrize(("factor", "expected"), [(0.99, "equivalent"), (1.01, "different")])
def test_documented_relative(no_differences, factor, expected):
    no_differences.append(entry(relative=1e-3))
    row = verdict(off(1e-3 * factor), reference=A)
    assert row.verdict == expected
    assert row.reason == ("known" if expected == "equivalent" else "")
    assert row.bound == (1e-3 if expected == "equivalent" else ROUNDOFF_FACTOR * U)


@pytest.mark.parametrize(("factor", "expected"), [(0.99, "equivalent"), (1.01, "different")])
def test_documented_absolute(no_differences, factor, expected):
    no_differences.append(entry(absolute=0.25))
    row = verdict(A + 0.25 * factor, reference=A)
    assert row.verdict == expected
    assert verdict(with_one(np.nan), reference=A).verdict == "different"
    assert verdict(A.T, reference=A).verdict == "different"


def test_documented_difference_is_named_only_where_it_is_needed_or_holds(no_differences):
    """A tap within its ordinary bound passes, even if the bound of an entry is narrower."""
    no_differences.append(entry(relative=1e-9))
    assert verdict(off(1e-7), reference=A).verdict == "equivalent"
    assert verdict(off(1e-5), reference=A).verdict == "different"


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"cases": ["large"]},
        {"stages": ["backward"]},
        {"precision": "float64"},
        {"backend": "third"},
        {"backend": "first : other"},
        {"taps": ["y", "X", "x?", "forward/x"]},
    ],
    ids=str,
)
def test_documented_difference_counts_only_where_it_is_documented(no_differences, elsewhere):
    no_differences.append(entry(relative=1e-1, **elsewhere))
    assert verdict(off(1e-2), reference=A).verdict == "different"
    there = {"cases": ["small"], "stages": ["forward"], "precision": "float32", "taps": ["x"]}
    for backend in ("first", "other", "other : first"):
        no_differences[:] = [entry(relative=1e-1, backend=backend, **there)]
        assert verdict(off(1e-2), reference=A).verdict == "equivalent"


def test_first_entry_that_covers_a_tap_counts(no_differences):
    no_differences += [{"id": "no taps"}, entry(relative=1e-4), entry(relative=1e-1)]
    assert verdict(off(1e-2), reference=A).verdict == "different"


def test_documented_difference_excuses_no_integer_and_no_claim(no_differences):
    no_differences.append(entry(absolute=9.0))
    assert verdict(INDEX + 1, INDEX).verdict == "different"
    assert verdict(np.array(False), np.array(False)).verdict == "different"
    assert verdict(off(1e-7), tap="parameters/x").verdict == "different"


def test_documented_difference_bounds_what_counts_as_zero(no_differences):
    """The entry's bound is relative to the sibling; the limit of the noise does not change."""
    assert zeros(1e-4).verdict == "different"
    no_differences.append(entry(taps=["*.attn.key.bias"], relative=1e-4))
    assert zeros(0.9e-4).verdict == "equivalent"
    assert zeros(1.1e-4).verdict == "different"
    assert zeros(1e-9, baseline=1.1 * ZERO_FACTOR * U).verdict == "undecided"


def test_the_list_of_differences_is_complete_and_in_date():
    entries = load_differences()
    assert entries and len({each["id"] for each in entries}) == len(entries)
    for each in entries:
        assert {"id", "what", "measured", "upstream", "expires"} <= set(each)
        assert set(each) <= {"id", "what", "measured", "upstream", "expires", "allow"}
        expires = each["expires"]
        assert expires == "never" or date.today() < expires, f"{each['id']}: look again upstream"
        allow = each.get("allow", {"taps": ["*"], "absolute": 1.0})
        assert set(allow) <= {"cases", "stages", "taps", "precision", "backend"} | {
            "relative",
            "absolute",
        }
        assert ("relative" in allow) != ("absolute" in allow) and allow["taps"]


@pytest.mark.parametrize(("terms", "expected"), [(None, "different"), (10_000, "equivalent")])
def test_the_length_of_a_sum_is_in_the_bound(terms, expected):
    """Ten thousand numbers added one by one allow a hundred roundings instead of eight."""
    manifest = {"terms": {"forward/x": terms}} if terms else {}
    traces = [trace({"forward/x": x}, n, **manifest) for n, x in (("a", A), ("b", off(60 * U)))]
    (row,) = judge(Evidence(*traces, trace({"forward/x": A}, "a", "float64")))
    assert row.verdict == expected
    far = trace({"forward/x": off(350 * U)}, "b", **manifest)
    (row,) = judge(Evidence(traces[0], far, trace({"forward/x": A}, "a", "float64")))
    assert row.verdict == "different"


# Evidence that is none


def vacuous(value, candidate=None, variants=(), stage="forward", name="ulp:1", tap="x"):
    place = f"{stage}/{tap}"
    taps = [{place: x} for x in (value, value if candidate is None else candidate)]
    pair = [trace(t, n) for t, n in zip(taps, ("first", "other"), strict=True)]
    more = [trace({place: x}, variant=name) for x in variants]
    reference = trace({place: value}, precision="float64")
    (row,) = judge(Evidence(*pair, reference, more))
    return row.verdict, row.reason


def test_a_tap_of_zeros_or_of_one_number_is_no_evidence():
    assert vacuous(0 * A) == ("vacuous", ALL_ZERO)
    assert vacuous(np.zeros(())) == ("vacuous", ALL_ZERO)
    assert vacuous(0 * A + 3) == vacuous(np.array([4, 4, 4])) == ("vacuous", CONSTANT)
    assert vacuous(sketch(np.zeros(9000))) == ("vacuous", ALL_ZERO)
    # but a single number, and a claim, can differ
    for tap in (np.array(3.0), np.array(4), np.array([True, True])):
        assert vacuous(tap) == ("equivalent", "")
    # what differs is no matter of evidence
    assert vacuous(0 * A, A)[0] == vacuous(0 * A + 3, A)[0] == "different"


def test_a_tap_that_other_weights_do_not_change_is_no_evidence():
    assert vacuous(A, variants=[A]) == ("vacuous", UNMOVED)
    assert vacuous(A, variants=[A, off(1e-7)]) == ("equivalent", "")
    assert vacuous(A, variants=[A], name="symmetry:1") == ("equivalent", "")
    assert vacuous(A, variants=[A], stage="loading") == ("equivalent", "")
    assert vacuous(A[0, :1], variants=[A[0, :1]] * 3) == ("equivalent", "")  # perhaps by chance
    assert vacuous(A, variants=[A], tap="step/head.bias") == ("equivalent", "")  # too coarse


def test_a_zero_by_structure_is_evidence():
    assert zeros(0.0, baseline=0.0, reference=0.0).verdict == "equivalent"


# Few numbers


@pytest.mark.parametrize("recordings", range(1, 9))
@pytest.mark.parametrize("elements", range(1, 15))
def test_ratios_are_quantiles_of_the_f_distribution(elements, recordings):
    quantile = stats.f.isf(CHANCE, elements, elements * recordings) ** 0.5
    assert question_factor(elements, recordings) == pytest.approx(max(5, quantile), rel=5e-3)
    expected = quantile if FLOOR_FACTOR < quantile <= FEW else FLOOR_FACTOR
    assert floor_factor(elements, recordings) == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize(
    ("variants", "ratio", "expected"),
    [(4, 15, "equivalent"), (4, 25, "undecided"), (4, 60, "different"),
     (1, 4, "equivalent"), (1, 15, "undecided"), (1, 200, "undecided"), (1, 400, "different")],
)  # fmt: skip
def test_a_single_number_needs_more_recordings(variants, ratio, expected):
    """Its noise floor may be small by chance; of two recordings more often than of five."""
    number, noise = np.array(2.0), 1e-6
    row = verdict(
        number * (1 + ratio * noise),
        number * (1 + noise),
        reference=number,
        baseline_variants=[number * (1 - noise * k / variants) for k in range(1, variants + 1)],
    )
    assert row.verdict == expected


def test_zero_beside_a_zero_is_no_evidence():
    row = zeros(0.0, baseline=0.0, reference=0.0, sibling=0 * A)
    assert (row.verdict, row.reason) == ("vacuous", ALL_ZERO)


# Noise is not an excuse


@pytest.mark.parametrize("scores", ["different", "undecided", "equivalent"])
def test_a_choice_is_as_certain_as_its_scores(scores):
    """Twice the error of wrong scores would make any choice a tie."""
    exact = np.random.default_rng(2).standard_normal((4, 30))
    far = {"different": 5.0, "undecided": 2 * ROUNDOFF_FACTOR * U, "equivalent": U}[scores]
    noise = np.random.default_rng(3).standard_normal(exact.shape)
    noisy = exact + noise * far * np.linalg.norm(exact) / np.linalg.norm(noise)
    index = exact.argmax(axis=-1) + 1
    other = index.copy()
    if scores == "different":
        other = noisy.argmax(axis=-1) + 1
    else:  # a near tie, within the noise
        second = np.argsort(exact[0])[-2]
        exact[0, second] = noisy[0, second] = exact[0].max() - 1e-12
        other[0] = second + 1
    names = ("selection/part_scores", "selection/part_index", "selection/after")
    pair = [
        trace(dict(zip(names, (s, i, x), strict=True)), n)
        for s, i, x, n in ((exact, index, A, "first"), (noisy, other, A + 1, "other"))
    ]
    reference = trace(dict(zip(names, (exact, index, A), strict=True)), precision="float64")
    rows = {row.tap: row for row in judge(Evidence(*pair, reference))}
    assert rows["part_scores"].verdict == rows["part_index"].verdict == scores
    assert rows["after"].verdict == ("undecided" if scores == "equivalent" else "different")


def test_large_noise_is_never_called_rounding():
    """A race scatters like noise; float64 may run other code."""
    row = verdict(off(0.1), reference=A, candidate_variants=[off(-0.1)])
    assert (row.verdict, row.reason) == ("undecided", LARGE_NOISE)
    exact = replace(row, precision="float64", verdict="equivalent", reason="")
    assert settle_precision([row, exact])[0].verdict == "undecided"


def test_one_variant_of_a_single_number_proves_no_noise():
    number = np.array(2.0)
    row = verdict(
        number * (1 + 2e-3), number, reference=number, baseline_variants=[number * (1 + 1e-7)] * 4,
        candidate_variants=[number * (1 + 2e-3 + 1e-7)],
    )  # fmt: skip
    assert (row.verdict, row.reason) == ("undecided", FEW_NUMBERS)


@pytest.mark.parametrize(("part", "expected"), [(0.09, "less precise"), (0.11, "undecided")])
def test_a_small_difference_in_float64_does_not_explain_the_noise(part, expected):
    """A float32 constant in a float64 program differs there, by a small part of a roundoff."""
    row = verdict(off(1e-5), reference=A, candidate_variants=[off(-1e-5)])
    assert (row.verdict, row.reason) == ("undecided", OWN_NOISE)
    exact = replace(row, precision="float64", verdict="different", reason="", error=part * 1e-5)
    settled = settle_precision([row, exact])[0]
    assert settled.verdict == expected
    assert (expected == "less precise") == (
        "apart" in settled.reason and "9.0e-07" in settled.reason
    )


def in_two(single, double, verdicts=("different", "different"), bounds=(8, 8)):
    """Rows of one place in float32 and float64 with these errors, in units of the roundoff."""
    row = verdict(off(1e-4), reference=A)
    units = ((single, "float32", U), (double, "float64", 2.0**-53))
    rows = [
        replace(row, precision=name, error=count * u, verdict=each, reason="", bound=bound * u)
        for (count, name, u), each, bound in zip(units, verdicts, bounds, strict=True)
    ]
    return [(each.verdict, each.reason[:8]) for each in settle_precision(rows)]


def test_as_many_units_in_both_precisions_are_rounding():
    assert in_two(400, 600) == [("less precise", "rounding")] * 2
    assert in_two(400, 4000) == in_two(4000, 400) == [("different", "")] * 2
    assert in_two(400, 0) == [("different", "")] * 2  # a fault of the float32 code alone
    assert in_two(3000, 1e9)[1][0] == "different"  # another function: the same error in both
    assert in_two(1e5, 1e5)[0][0] == "different"  # half of the digits: no rounding


def test_float64_may_be_as_noisy_as_float32_is():
    found = in_two(5, 7, ("equivalent", "undecided"), (8, 4))
    assert [each for each, _ in found] == ["equivalent", "equivalent"]
    found = in_two(5, 9, ("equivalent", "undecided"), (8, 4))
    assert [each for each, _ in found] == ["equivalent", "less precise"]


def test_float64_is_unclear_where_float32_is_too_noisy():
    """A layer norm of nearly equal numbers loses the same digits in both precisions."""
    row = verdict(off(1e-4), reference=A)
    short = replace(row, verdict="undecided", reason=NOISY, error=3e-4, noise_floor=3e-4)
    short = replace(short, bound=1.5e-3)
    double = replace(row, precision="float64", verdict="different", reason="", bound=1e-15)
    for units, expected in ((8e3, "undecided"), (3e4, "different")):  # the bound is 25,166 units
        found = settle_precision([short, replace(double, error=units * 2.0**-53)])[1]
        assert found.verdict == expected
    fine = replace(short, verdict="equivalent", reason="", noise_floor=1e-7, bound=5e-7)
    assert settle_precision([fine, replace(double, error=1e-12)])[1].verdict == "different"


def test_rounding_where_the_baseline_is_exactly_zero():
    """One side cancels exactly, the other leaves rounding: it is small beside its group."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((9, 7)).astype(np.float32)

    def traces(bias):
        zero = {"gradients/l.weight": weight, "gradients/l.bias": np.zeros(9, np.float32)}
        exact = trace({k: v.astype("f8") for k, v in zero.items()}, precision="float64")
        return Evidence(trace(zero), trace(zero | {"gradients/l.bias": bias}, "b"), exact)

    for size, expected in ((1e-8, "vacuous"), (1e-3, "different"), (np.inf, "different")):
        bias = np.full(9, size, np.float32)
        assert judge(traces(bias))[1].verdict == expected, size


def test_zero_by_structure_in_float32_is_zero_in_float64():
    """If float64 is noise there too: else a gradient of no size in float32 would excuse any."""
    row = replace(verdict(off(1e-4), reference=A), verdict="equivalent", reason=ZERO)
    cases = ((1.2, 1.4, "equivalent"), (50.0, 1.4, "different"), (1.2, 1e-9, "different"))
    for error, noise, expected in cases:
        double = replace(row, precision="float64", error=error, verdict="different", reason="")
        double = replace(double, noise_floor=noise)
        assert settle_precision([row, double])[1].verdict == expected
        other = replace(row, reason="")
        assert settle_precision([other, double])[1].verdict == "different"
