"""Verdicts against published and independently computed values, and cases that must not pass."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from parity.runs.loss_curves import compare_curves
from parity.runs.tost import (
    ADDED,
    Interval,
    compare_images,
    compare_seeds,
    images_needed,
    judge,
    mcnemar,
    overall,
    seeds_needed,
    tost_power,
)

WORDS = ("equivalent", "different", "undecided")
# final accuracies in per cent of two programs, six seeds each
ONE = np.array([91.2, 91.6, 90.9, 91.4, 91.1, 91.5])
TWO = np.array([91.3, 91.5, 91.1, 91.2, 91.2, 91.6])
NOTHING = 1e-9  # a floor without effect


def right(images, *wrong):
    """(B,) booleans, False at `wrong`."""
    hits = np.ones(images, dtype=bool)
    hits[list(wrong)] = False
    return hits


def pair(images, lost, gained, classes=100):
    """Two runs: `lost` images are right only in the first, `gained` images only in the second."""
    rng = np.random.default_rng(5)
    places = rng.permutation(images)[: lost + gained]
    one, two = right(images, *places[lost:]), right(images, *places[:lost])
    return one, two, np.arange(images) % classes


@pytest.mark.parametrize(
    ("interval", "wide", "verdict"),
    [
        ((-0.2, 0.4), (-0.3, 0.6), "equivalent"),
        ((0.1, 0.4), (0.05, 0.45), "equivalent"),  # a difference, but one that does not matter
        ((0.1, 0.6), (0.05, 0.65), "different"),
        ((-0.6, -0.1), (-0.65, -0.05), "different"),
        ((0.01, 0.6), (-0.05, 0.65), "undecided"),
        ((-0.6, 0.4), (-0.7, 0.5), "undecided"),
        ((-0.2, 0.5), (-0.3, 0.6), "undecided"),  # the margin itself is outside
    ],
)
def test_judge(interval, wide, verdict):
    assert judge(Interval(*interval), Interval(*wide), 0.5) == verdict


def test_overall_is_equivalent_only_if_both_are_and_different_only_by_seeds():
    table = {(images, seeds): overall(images, seeds) for images in WORDS for seeds in WORDS}
    both = [words for words, verdict in table.items() if verdict == "equivalent"]
    assert both == [("equivalent", "equivalent")]
    assert all((table[one, "different"]) == "different" for one in WORDS)
    assert table["different", "undecided"] == table["different", "equivalent"] == "undecided"


# --- seeds


def test_paired_seeds_are_scipys_two_one_sided_tests():
    found = compare_seeds(ONE, TWO, 0.5, NOTHING, paired=True)
    below = stats.ttest_rel(TWO, ONE + 0.5, alternative="less").pvalue
    above = stats.ttest_rel(TWO, ONE - 0.5, alternative="greater").pvalue
    assert found.p == pytest.approx(max(below, above), rel=1e-9)
    narrow = stats.ttest_rel(TWO, ONE).confidence_interval(0.9)
    assert found.interval == pytest.approx((narrow.low, narrow.high))
    wide = stats.ttest_rel(TWO, ONE).confidence_interval(0.95)
    assert found.wide_interval == pytest.approx((wide.low, wide.high))
    assert found.verdict == "equivalent"


def test_unpaired_seeds_are_scipys_welch_tests():
    few = TWO[:4]
    found = compare_seeds(ONE, few, 0.5, NOTHING, paired=False)
    below = stats.ttest_ind(few, ONE + 0.5, equal_var=False, alternative="less").pvalue
    above = stats.ttest_ind(few, ONE - 0.5, equal_var=False, alternative="greater").pvalue
    assert found.p == pytest.approx(max(below, above), rel=1e-9)
    narrow = stats.ttest_ind(few, ONE, equal_var=False).confidence_interval(0.9)
    assert found.interval == pytest.approx((narrow.low, narrow.high))
    assert found.seeds == (6, 4)


def test_pairing_by_seed_takes_out_what_both_sides_share():
    shared = np.array([0.0, 3, 6, 9, 12, 15])
    arguments = ONE + shared, TWO + shared, 0.5, NOTHING
    assert compare_seeds(*arguments, paired=True).verdict == "equivalent"
    assert compare_seeds(*arguments, paired=False).verdict == "undecided"


def test_tost_of_a_table_of_student():
    """Differences with mean 0.1, standard deviation 0.2, four seeds: t(0.95, 3) = 2.353."""
    differences = 0.1 + 0.2 * np.array([-1.0, -1, 1, 1]) * np.sqrt(3 / 4)
    found = compare_seeds(np.zeros(4), differences, 0.4, NOTHING, paired=True)
    assert found.spread == pytest.approx(0.2)
    assert found.interval == pytest.approx((0.1 - 0.2353, 0.1 + 0.2353), abs=1e-4)
    assert found.verdict == "equivalent"
    assert compare_seeds(np.zeros(4), differences, 0.33, NOTHING, True).verdict == "undecided"


@pytest.mark.parametrize("paired", [True, False])
def test_one_seed_says_nothing_about_training(paired):
    found = compare_seeds([0.9], [0.9], 0.05, NOTHING, paired)
    assert found.verdict == "undecided"
    assert found.interval is None and found.seeds_needed is None


@pytest.mark.parametrize("paired", [True, False])
def test_two_seeds_are_not_enough(paired):
    verdicts = [
        compare_seeds([0.9] * seeds, [0.9] * seeds, 0.05, NOTHING, paired).verdict
        for seeds in (2, 3)
    ]
    assert verdicts == ["undecided", "equivalent"]
    assert compare_seeds([0.9] * 2, [0.5] * 2, 0.05, NOTHING, paired).verdict == "undecided"


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("seeds", [3, 5])
def test_seeds_that_agree_exactly_are_floored_by_the_images(paired, seeds):
    same = [0.9] * seeds
    assert compare_seeds(same, same, 0.005, 0.003, paired).verdict == "undecided"
    found = compare_seeds(same, same, 0.005, 0.0003, paired)
    assert found.standard_error == 0.0003
    assert found.interval.high == pytest.approx(0.0003 * stats.t.ppf(0.95, seeds - 1))
    assert found.verdict == "equivalent"


def test_a_planted_difference_of_two_points_between_seeds():
    found = compare_seeds(ONE / 100, TWO / 100 - 0.02, 0.005, 0.001, paired=True)
    assert found.verdict == "different"
    assert compare_seeds(ONE / 100, TWO / 100 - 0.02, 0.03, 0.001, True).verdict == "equivalent"


# Simulated power of TOST (two samples of S seeds, one pooled standard deviation), to 1 %
@pytest.mark.parametrize(
    ("deviation", "seeds", "margin", "power"),
    [
        (0.2, 3, 0.5, 0.63),
        (0.2, 5, 0.5, 0.95),
        (0.3, 5, 0.5, 0.56),
        (0.3, 8, 0.5, 0.87),
        (0.3, 10, 0.5, 0.95),
    ],
)
def test_power_against_simulated_values(deviation, seeds, margin, power):
    error = deviation * np.sqrt(2 / seeds)
    assert tost_power(error, 2 * seeds - 2, margin) == pytest.approx(power, abs=0.01)


def test_the_seeds_needed_are_the_fewest_that_reach_the_power():
    needed = seeds_needed(0.3, 0.5, NOTHING, paired=True)
    rng = np.random.default_rng(0)
    shares = []
    for number in (needed - 1, needed):
        runs = rng.normal(0, 0.3, size=(4000, number))
        reach = stats.t.ppf(0.95, number - 1) * runs.std(axis=1, ddof=1) / np.sqrt(number)
        shares.append((np.abs(runs.mean(axis=1)) + reach < 0.5).mean())
    assert shares[0] < 0.8 + 0.02 and shares[1] > 0.8 - 0.02 and shares[0] < shares[1]


def test_no_number_of_seeds_makes_up_for_too_few_images():
    assert seeds_needed(0.001, 0.005, 0.001, paired=True) is not None
    assert seeds_needed(0.001, 0.005, 0.004, paired=True) is None
    assert seeds_needed(0.5, 0.005, NOTHING, paired=True) is None


# --- images


def test_mcnemar_of_agrestis_table():
    """Approval of a prime minister, 1600 voters: 150 and 86 discordant (Agresti 1990, 10.1)."""
    one, two, _ = pair(1600, 150, 86)
    found = mcnemar(one, two)
    assert (found.only_baseline, found.only_candidate) == (150, 86)
    tail = sum(stats.binom.pmf(range(87), 236, 0.5))
    assert found.p == pytest.approx(2 * tail, rel=1e-9)
    assert found.p == pytest.approx(3.7e-5, rel=0.05)


def test_mcnemar_by_hand():
    one, two, _ = pair(20, 5, 1)
    assert mcnemar(one, two).p == pytest.approx(2 * (1 + 6) / 64)
    assert mcnemar(one, one).p == 1.0


def test_the_interval_is_the_textbooks_where_discordant_images_are_many():
    one, two, classes = pair(1600, 150, 86)
    found = compare_images(one, two, classes, 0.05)
    assert found.difference == pytest.approx(-0.04)
    textbook = np.sqrt(150 + 86 - 64**2 / 1600) / 1600  # 0.0095, Agresti's
    assert textbook == pytest.approx(0.0095, abs=5e-5)
    assert textbook <= found.standard_error < 1.1 * textbook
    assert found.wide_interval.low <= -0.04 - 1.96 * textbook
    assert found.wide_interval.high >= -0.04 + 1.96 * textbook
    assert found.wide_interval == pytest.approx((-0.0587, -0.0213), abs=0.002)
    assert found.verdict == "different"


def test_the_interval_of_a_one_sided_table():
    """60 of 200 images lost, none gained: the variance is of the difference about its mean."""
    found = compare_images(*pair(200, 60, 0, classes=200), 0.05)
    reach = 1.6449 * np.sqrt(60 + 4 - 60**2 / 200) / 200
    assert found.interval == pytest.approx((-0.3 - reach, -0.3 + reach), abs=0.005)


@pytest.mark.parametrize(("images", "verdict"), [(100, "undecided"), (5794, "equivalent")])
def test_equal_predictions_are_as_good_as_their_number(images, verdict):
    one, two, classes = pair(images, 0, 0)
    found = compare_images(one, two, classes, 0.005)
    assert found.difference == 0 and found.bootstrap == (0, 0)
    assert found.interval.high == -found.interval.low
    # no discordant image in B excludes a share above 1 - 0.05 ** (1 / B), and no smaller one
    assert found.interval.high >= 1 - 0.05 ** (1 / images)
    assert found.verdict == verdict


@given(
    images=st.integers(1, 250),
    lost=st.integers(0, 5),
    gained=st.integers(0, 5),
    runs=st.integers(1, 6),
)
@settings(max_examples=60, deadline=None)
def test_too_few_images_are_never_equivalent(images, lost, gained, runs):
    """Fewer than 3 / margin: not even equal predictions exclude a difference of one margin."""
    lost = min(lost, images)
    gained = min(gained, images - lost)
    one, two, classes = pair(images, lost, gained)
    found = compare_images([one] * runs, [two] * runs, classes, 0.01)
    assert found.interval.low < found.difference < found.interval.high
    assert found.verdict != "equivalent"


def test_a_difference_of_one_margin_seldom_passes_for_none():
    """The hardest case: all discordant images go one way. The exact chance, summed over counts."""
    images, margin = 5794, 0.005
    counts = np.arange(60)
    chances = stats.binom.pmf(counts, images, margin)
    passes = [compare_images(*pair(images, 0, int(n)), margin).verdict for n in counts]
    assert chances[np.array(passes) == "equivalent"].sum() <= 0.072
    adjusted = np.sqrt(counts + 2 * ADDED - counts**2 / images) / images
    allowed = counts / images + 1.645 * adjusted < margin
    assert chances[allowed].sum() > 0.03  # nor is the rule so strict that nothing passes


@pytest.mark.parametrize("runs", [1, 3])
def test_a_planted_difference_of_two_points_between_images(runs):
    one, two, classes = pair(5794, 116 + 90, 90)
    found = compare_images([one] * runs, [two] * runs, classes, 0.005)
    assert found.difference == pytest.approx(-0.02, abs=1e-4)
    assert found.verdict == "different"
    assert len(found.pairs) == runs


def test_repeating_a_pair_is_no_new_evidence():
    one, two, classes = pair(2000, 30, 30)
    single = compare_images(one, two, classes, 0.005)
    many = compare_images([one] * 10, [two] * 10, classes, 0.005)
    assert single.interval == pytest.approx(many.interval)
    assert single.verdict == many.verdict == "undecided"


def test_images_of_a_class_that_err_together_count_for_less():
    images, classes = 2000, np.repeat(np.arange(40), 50)
    rng = np.random.default_rng(1)
    scattered, lumped = right(images), right(images)
    scattered[rng.permutation(images)[:100]] = False
    lumped[:50] = lumped[950:1000] = False  # two classes
    apart = compare_images(right(images), scattered, classes, 0.07)
    together = compare_images(right(images), lumped, classes, 0.07)
    assert together.difference == apart.difference
    assert together.standard_error > 4 * apart.standard_error
    assert (apart.verdict, together.verdict) == ("equivalent", "undecided")
    assert together.images_needed > 10 * apart.images_needed
    # two of 40 classes: the spread of a mean of 40 classes
    by_class = np.sqrt(0.05 * 0.95 / 40)
    assert together.standard_error == pytest.approx(by_class, rel=0.05)


def test_runs_without_pairs_are_compared_by_their_means():
    one, two, classes = pair(1000, 10, 10)
    found = compare_images([one, one, one], [two, two], classes, 0.1, paired=False)
    assert found.pairs == ()
    assert found.interval == pytest.approx(compare_images(one, two, classes, 0.1).interval)


def test_the_bootstrap_repeats():
    one, two, classes = pair(500, 20, 10)
    first, again, other = (compare_images(one, two, classes, 0.1, seed=s) for s in (0, 0, 1))
    assert first == again
    assert first.standard_error != other.standard_error


@pytest.mark.parametrize(("discordance", "margin"), [(0.04, 0.01), (0.1, 0.02)])
def test_the_images_needed_give_the_power_they_promise(discordance, margin):
    images = images_needed(discordance, margin)
    rng = np.random.default_rng(2)
    half = discordance / 2
    lost, gained, _ = rng.multinomial(images, [half, half, 1 - discordance], size=4000).T
    difference = (gained - lost) / images
    error = np.sqrt(lost + gained + 2 * ADDED - images * difference**2) / images
    share = (np.abs(difference) + 1.6449 * error < margin).mean()
    assert share == pytest.approx(0.8, abs=0.025)


def test_more_images_are_needed_for_more_discordance_and_smaller_margins():
    assert images_needed(0.08, 0.005) > images_needed(0.04, 0.005) > images_needed(0.04, 0.01)
    assert images_needed(0.0, 0.005) > 3 / 0.005


# --- curves

UPDATES = 400


def curves(seeds, seed=0, scale=0.02):
    """Losses that fall in the same way, each with its own noise that lasts some updates."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, scale, size=(seeds, UPDATES)).cumsum(axis=1) / 8
    return 3 * np.exp(-np.arange(UPDATES) / 200) + 1 + noise


def perturbed(curve, runs, seed, horizon=100):
    """Runs that leave `curve` slowly: 1e-3 apart at about `horizon`."""
    rng = np.random.default_rng(seed)
    growth = 1e-3 * 10 ** ((np.arange(UPDATES) - horizon) / 25).clip(-4, 1.5)
    return curve * (1 + growth * rng.choice([-1.0, 1.0], size=(runs, 1)))


def case(seeds=6, **changes):
    """Arguments of a comparison that is equivalent, except for `changes`."""
    baseline = curves(seeds)
    candidate = np.concatenate([perturbed(one, 1, seed=9 + i) for i, one in enumerate(baseline)])
    repetitions = perturbed(baseline[0], 4, seed=1)
    usual = {"baseline": baseline, "candidate": candidate, "repetitions": repetitions}
    return usual | {"pair": (0, 0)} | changes


def test_equal_curves_are_equivalent_before_and_after_the_horizon():
    found = compare_curves(**case())
    assert (found.early, found.late, found.verdict) == ("equivalent",) * 3
    assert found.horizon == 101  # the first update where growth exceeds 1e-3
    assert found.at[0] == 101 + 49 and found.at[-1] == UPDATES - 1
    assert found.inside == 1.0


def test_the_band_is_the_predicted_range_of_one_more_seed():
    arguments = case()
    found = compare_curves(**arguments)
    windows = arguments["baseline"][:, 200:250].mean(axis=1)
    place = list(found.at).index(249)
    assert found.centre[place] == pytest.approx(windows.mean())
    t = 4.0321  # t(0.995, 5)
    reach = t * windows.std(ddof=1) * np.sqrt(7 / 6)
    assert found.half_width[place] == pytest.approx(reach, rel=1e-3)
    assert found.candidate[place] == pytest.approx(arguments["candidate"][:, 200:250].mean())


@pytest.mark.parametrize(("factor", "verdict"), [(4.9, "equivalent"), (5.1, "different")])
def test_the_candidate_may_stray_five_times_as_far_as_the_farthest_repetition(factor, verdict):
    curve = curves(1)
    drift = 1e-4 * np.linspace(0.5, 1, UPDATES)
    repetitions = curve * (1 + drift * np.array([[0.1], [-1.0], [0.2], [-0.3]]))
    candidate = curve * (1 + factor * drift)
    found = compare_curves(**case(seeds=1, repetitions=repetitions, candidate=candidate))
    assert (found.horizon, found.early) == (UPDATES, verdict)


@pytest.mark.parametrize(("runs", "verdict"), [(3, "undecided"), (4, "different")])
def test_the_verdict_different_needs_four_repetitions(runs, verdict):
    arguments = case()
    arguments["candidate"][0, 40:] *= 1.01
    arguments["repetitions"] = arguments["repetitions"][:runs]
    assert compare_curves(**arguments).early == verdict


def test_repetitions_that_meet_again_have_still_been_apart():
    curve = curves(1)
    drift = np.full(UPDATES, 1e-4)
    repetitions = curve * (1 + drift * np.array([[1], [-1], [1], [-1]]))
    repetitions[:, 200:] = curve[:, 200:]
    found = compare_curves(
        **case(seeds=1, repetitions=repetitions, candidate=curve * (1 + 4 * drift))
    )
    assert (found.horizon, found.early) == (UPDATES, "equivalent")


def test_a_stray_update_before_the_horizon_is_a_difference():
    arguments = case()
    arguments["candidate"][0, 40] *= 1 + 1e-4
    found = compare_curves(**arguments)
    assert (found.early, found.late, found.verdict) == ("different", "equivalent", "different")
    assert found.gap[40] > found.bound[40]


def test_a_stray_update_after_the_horizon_is_none_but_another_level_is():
    arguments = case()
    arguments["candidate"][0, 300] *= 1.01
    assert compare_curves(**arguments).verdict == "equivalent"
    arguments["candidate"][:, 150:] += 1
    found = compare_curves(**arguments)
    assert (found.early, found.late, found.verdict) == ("equivalent", "different", "different")
    assert found.inside < 0.95


def test_inside_the_band_is_not_enough_for_equivalence():
    arguments = case()
    arguments["candidate"] = arguments["candidate"][:2]
    found = compare_curves(**arguments)
    assert (found.inside, found.late) == (1.0, "undecided")  # two seeds are too few
    arguments = case()
    arguments["candidate"][:, 150:] *= 1.05
    wider = arguments["baseline"] * np.linspace(0.6, 1.4, 6)[:, None]
    arguments |= {"baseline": wider, "repetitions": perturbed(wider[0], 4, seed=1)}
    found = compare_curves(**arguments)
    assert (found.inside, found.late) == (1.0, "undecided")  # a margin that the band hides


def test_rows_that_share_a_seed_are_compared_in_pairs():
    baseline = curves(6, scale=0.5)
    candidate = np.concatenate([perturbed(one, 1, seed=i) for i, one in enumerate(baseline)])
    arguments = case(baseline=baseline, candidate=candidate)
    arguments["repetitions"] = perturbed(baseline[0], 4, seed=1)
    assert compare_curves(**arguments).late == "undecided"
    found = compare_curves(**arguments, paired=True)
    assert found.late == "equivalent" and found.interval.high < 0.05


def test_four_seeds_decide_nothing_after_the_horizon():
    found = compare_curves(**case(seeds=4))
    assert (found.early, found.late, found.verdict) == ("equivalent", "undecided", "undecided")
    assert found.inside == 1.0 and len(found.half_width) == len(found.at)
    single = compare_curves(**case(seeds=1))
    assert single.late == "undecided" and single.inside is None


def test_without_two_repetitions_there_is_no_horizon():
    for few in (None, perturbed(curves(6)[0], 1, seed=1)):
        found = compare_curves(**case(repetitions=few))
        assert found.horizon is None
        assert (found.early, found.late, found.verdict) == ("undecided", "equivalent", "undecided")


def test_repetitions_that_never_leave_put_the_horizon_at_the_end():
    still = perturbed(curves(1)[0], 3, seed=1, horizon=9999)
    close = perturbed(curves(1)[0], 1, seed=2, horizon=9999)
    found = compare_curves(**case(seeds=1, repetitions=still, candidate=close))
    assert (found.horizon, found.late, found.verdict) == (UPDATES, None, "equivalent")
    assert len(found.at) == 0 and found.inside is None


def test_repetitions_equal_to_the_last_bit_measure_nothing():
    same = np.repeat(curves(1), 3, axis=0)
    found = compare_curves(**case(seeds=1, repetitions=same))
    assert (found.horizon, found.early) == (UPDATES, "undecided")
    found = compare_curves(**case(seeds=1, repetitions=same, candidate=same[:1]))
    assert found.early == "equivalent"


def test_a_loss_that_is_no_number_differs():
    arguments = case()
    arguments["candidate"][0, 20] = np.nan
    assert compare_curves(**arguments).early == "different"


def test_few_points_after_the_horizon_make_one_window():
    found = compare_curves(**case(), window=1000)
    assert list(found.at) == [UPDATES - 1]
