"""Statistical verdicts on two sets of trained models, in NumPy and SciPy alone.

There are two separate questions. `compare_images`: do *these checkpoints* classify equally well?
The sample is the images of the test split. `compare_seeds`: does *this training procedure* reach
the same accuracy? The sample is the runs, one per seed. Each gives one of three verdicts on the
difference:

    equivalent   its 90 % interval lies within (-margin, margin): two one-sided tests at 5 %
                 (TOST, Schuirmann 1987)
    different    not equivalent, and its 95 % interval excludes zero
    undecided    neither: too little evidence

A large p-value of a test for difference is no evidence of equality, so no verdict depends on one.
Accuracies, differences and margins are fractions; a difference is candidate minus baseline.

Shapes: S seeds (runs), B images, C classes.
"""

from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from parity.comparison.verdict import Verdict

Floats = NDArray[np.float64]

ALPHA = 0.05
POWER = 0.8
LEVELS = (1 - 2 * ALPHA, 1 - ALPHA)  # of the intervals for equivalence and for difference
RESAMPLES = 2000
LEAST_RUNS = 3  # on each side: two runs say almost nothing about the scatter of runs
MOST_SEEDS = 100  # largest number of seeds that `seeds_needed` tries

# Discordant images (right in one run only) that are added in each direction before the standard
# error is computed. Agresti and Min (2005) add 1/2, Bonett and Price (2012) 1. Twins hardly differ,
# so the case without any such image matters: with 2, the half-width is then 3.3 / B, no less than
# the exact 3.0 / B; with 1/2 it is only 1.6 / B. tests/parity/runs/test_tost.py bounds the chance
# that a difference of one margin is found equivalent.
ADDED = 2.0


class Interval(NamedTuple):
    """Confidence interval of a difference; the field that holds it states the level."""

    low: float
    high: float


class Discordance(NamedTuple):
    """One pair of runs on the same images: the number of images right in one run only."""

    only_baseline: int
    only_candidate: int
    p: float  # exact McNemar test; only for the reader: no verdict depends on it


@dataclass(frozen=True)
class ImageComparison:
    """The verdict on these checkpoints. Images are the sample; runs are averaged for each image."""

    images: int
    difference: float
    standard_error: float  # the larger of two: from adjusted counts and from the bootstrap
    interval: Interval  # 90 %, the hull of the intervals of both methods
    wide_interval: Interval  # 95 %, the hull in the same way
    bootstrap: Interval  # 90 %, images resampled by class
    pairs: tuple[Discordance, ...]  # empty if runs are not paired
    images_needed: int  # for POWER, at the measured discordance and clustering, without difference
    verdict: Verdict


@dataclass(frozen=True)
class SeedComparison:
    """The verdict on this training procedure; an interval needs two seeds on each side."""

    paired: bool
    seeds: tuple[int, int]
    difference: float
    spread: float | None  # standard deviation of one seed's difference
    standard_error: float | None  # at least the standard error of the images
    interval: Interval | None  # 90 %
    wide_interval: Interval | None  # 95 %
    p: float | None  # of TOST
    seeds_needed: int | None  # on each side, for POWER; None: unknown, or more than MOST_SEEDS
    verdict: Verdict


def judge(interval: Interval, wide: Interval, margin: float) -> Verdict:
    """The verdict from the 90 % and the 95 % interval of a difference."""
    if -margin < interval.low and interval.high < margin:
        return "equivalent"
    return "different" if wide.low > 0 or wide.high < 0 else "undecided"


def overall(images: Verdict, seeds: Verdict) -> Verdict:
    """The verdict on the training procedure from both comparisons.

    `equivalent` needs both; `different` follows from the seeds alone, because even two checkpoints
    of the same program may differ by rounding and chance.
    """
    if images == seeds == "equivalent":
        return "equivalent"
    return "different" if seeds == "different" else "undecided"


def compare_images(
    baseline: ArrayLike,
    candidate: ArrayLike,
    classes: ArrayLike,
    margin: float,
    paired: bool = True,
    seed: int = 0,
) -> ImageComparison:
    """Compare the images that are classified correctly: (S, B), (S', B) booleans; classes (B,).

    With `paired`, rows i of both sides are a pair, and the result also has the counts of each pair.
    `seed` is for the bootstrap.
    """
    left, right = np.atleast_2d(np.asarray(baseline)), np.atleast_2d(np.asarray(candidate))
    assert left.dtype == right.dtype == bool and left.shape[1] == right.shape[1] > 0
    assert not paired or left.shape == right.shape
    gaps = right.mean(axis=0) - left.mean(axis=0)
    count, difference, square = len(gaps), float(gaps.mean()), float((gaps**2).sum())
    adjusted = sqrt(square + 2 * ADDED - count * difference**2) / count
    draws = _resample_classes(gaps, np.asarray(classes), seed)
    hulls, boots = [], []
    for level in LEVELS:
        tail = (1 - level) / 2
        reach = float(stats.norm.isf(tail)) * adjusted
        low, high = (float(limit) for limit in np.quantile(draws, [tail, 1 - tail]))
        boots.append(Interval(low, high))
        hulls.append(Interval(min(low, difference - reach), max(high, difference + reach)))
    clustering = max(1.0, float(draws.var()) / adjusted**2)
    return ImageComparison(
        images=count,
        difference=difference,
        standard_error=max(adjusted, float(draws.std())),
        interval=hulls[0],
        wide_interval=hulls[1],
        bootstrap=boots[0],
        pairs=tuple(map(mcnemar, left, right)) if paired else (),
        images_needed=images_needed(clustering * square / count, margin),
        verdict=judge(hulls[0], hulls[1], margin),
    )


def mcnemar(baseline: NDArray[Any], candidate: NDArray[Any]) -> Discordance:
    """Discordant images of one pair (B,), (B,), with the exact two-sided test (McNemar 1947)."""
    lost, gained = int((baseline & ~candidate).sum()), int((candidate & ~baseline).sum())
    p = float(stats.binomtest(gained, lost + gained).pvalue) if lost + gained else 1.0
    return Discordance(lost, gained, p)


def _resample_classes(gaps: Floats, classes: NDArray[Any], seed: int) -> Floats:
    """Bootstrap samples (RESAMPLES,) of the mean gap.

    Whole classes are resampled, because images of one class are not independent.
    """
    _, place = np.unique(classes, return_inverse=True)
    sums, sizes = np.bincount(place, weights=gaps), np.bincount(place)
    count = len(sizes)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    draws: Floats = (drawn @ sums) / (drawn @ sizes)
    return draws


def compare_seeds(
    baseline: ArrayLike, candidate: ArrayLike, margin: float, floor: float, paired: bool
) -> SeedComparison:
    """Compare final accuracies (S,) and (S',) by TOST with Student's t distribution.

    Args:
        margin: largest difference that does not matter.
        floor: smallest allowed standard error: that of the images. Seeds that agree by chance are
            no stronger evidence than their test images.
        paired: entries i of both sides share seed, initial values and batches. Otherwise Welch's
            test is used.
    """
    left, right = np.asarray(baseline, dtype=float), np.asarray(candidate, dtype=float)
    assert floor > 0 and (not paired or left.shape == right.shape)
    difference, seeds = float(right.mean() - left.mean()), (len(left), len(right))
    if min(seeds) < 2:
        nothing = (None,) * 6
        return SeedComparison(paired, seeds, difference, *nothing, verdict="undecided")
    samples = [right - left] if paired else [left, right]
    spread = sqrt(sum(float(sample.var(ddof=1)) for sample in samples))
    parts = [float(sample.var(ddof=1)) / len(sample) for sample in samples]
    freedom = float(min(seeds) - 1)
    if not paired and sum(parts) > 0:  # degrees of freedom by Welch and Satterthwaite
        terms = (part**2 / (size - 1) for part, size in zip(parts, seeds, strict=True))
        freedom = sum(parts) ** 2 / sum(terms)
    error = max(sqrt(sum(parts)), floor)
    student = stats.t(freedom, loc=difference, scale=error)
    narrow, wide = (Interval(*map(float, student.interval(level))) for level in LEVELS)
    return SeedComparison(
        paired=paired,
        seeds=seeds,
        difference=difference,
        spread=spread,
        standard_error=error,
        interval=narrow,
        wide_interval=wide,
        p=float(max(student.cdf(-margin), student.sf(margin))),
        seeds_needed=seeds_needed(spread, margin, floor, paired),
        verdict=judge(narrow, wide, margin) if min(seeds) >= LEAST_RUNS else "undecided",
    )


def images_needed(discordance: float, margin: float, power: float = POWER) -> int:
    """Images that one pair needs for TOST to succeed with this power if there is no difference.

    Solves sqrt(B * discordance + 2 * ADDED) / B = margin / (z_alpha + z_half_miss) for B.
    """
    quantiles = stats.norm.isf([ALPHA, (1 - power) / 2]).sum()
    ratio = float(margin / quantiles) ** 2
    return ceil((discordance + sqrt(discordance**2 + 8 * ADDED * ratio)) / (2 * ratio))


def seeds_needed(
    spread: float, margin: float, floor: float, paired: bool, power: float = POWER
) -> int | None:
    """Seeds that each side needs for the same; None if MOST_SEEDS are too few.

    Then more images may help, because they lower the floor.
    """
    for number in range(LEAST_RUNS, MOST_SEEDS + 1):
        freedom = number - 1 if paired else 2 * number - 2
        if tost_power(spread / sqrt(number), freedom, margin, floor) >= power:
            return number
    return None


def tost_power(error: float, freedom: float, margin: float, floor: float = 0.0) -> float:
    """Probability of `equivalent` if there is no difference; `error` is the true standard error.

    The mean is normal and its estimated standard error has a chi distribution; the result is an
    average over 1000 quantiles of that distribution.
    """
    error = max(error, 1e-12)
    quantiles = (np.arange(1000) + 0.5) / 1000
    estimated = error * np.sqrt(stats.chi2.ppf(quantiles, freedom) / freedom)
    room = margin - stats.t.isf(ALPHA, freedom) * np.maximum(estimated, floor)
    return float(np.maximum(2 * stats.norm.cdf(room / error) - 1, 0).mean())
