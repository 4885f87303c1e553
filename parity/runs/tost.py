"""How far evidence goes: verdicts on two sets of trained models, in NumPy and SciPy alone.

Two questions, never mixed. `compare_images`: do *these checkpoints* classify equally well, judged
by the images of the test split? `compare_seeds`: does *this training procedure* reach the same
accuracy, judged from seed to seed? Each answers with one of three words about the difference:

    equivalent   its 90 % interval lies within (-margin, margin): two one-sided tests at 5 %
                 (TOST, Schuirmann 1987)
    different    otherwise, and its 95 % interval excludes zero
    undecided    the rest: too little evidence for either

A large p-value of a test for difference is no evidence of equality, so none decides anything here.
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
LEVELS = (1 - 2 * ALPHA, 1 - ALPHA)  # of the interval for equivalence, and for difference
RESAMPLES = 2000
LEAST_RUNS = 3  # a side: two runs tell next to nothing of how far runs scatter
MOST_SEEDS = 100  # where the search for a number of seeds ends

# Images right in one run alone that are added to each direction before a standard error is taken.
# Agresti and Min (2005) add 1/2, Bonett and Price (2012) 1. Twins hardly differ, so here it
# matters what follows from no such image at all: with 2, a half-width of 3.3 / B, no less than the
# exact 3.0 / B. With 1/2 it is only 1.6 / B, and a difference of one margin passes for none in up
# to 19 % of the cases where all such images go one way; with 2 in up to 7 %, and 5 % elsewhere.
ADDED = 2.0


class Interval(NamedTuple):
    """Of a difference, at a stated level."""

    low: float
    high: float


class Discordance(NamedTuple):
    """One pair of runs on the same images: how many are right in one run alone."""

    only_baseline: int
    only_candidate: int
    p: float  # exact McNemar test; for the reader, decides nothing


@dataclass(frozen=True)
class ImageComparison:
    """These checkpoints. Several pairs are averaged image by image: images are the units."""

    images: int
    difference: float
    standard_error: float  # the larger of adjusted counts' and the bootstrap's
    interval: Interval  # 90 %, the hull of both methods'
    wide_interval: Interval  # 95 %
    bootstrap: Interval  # 90 %, images resampled by class
    pairs: tuple[Discordance, ...]  # empty where runs are not in pairs
    images_needed: int  # for POWER, at the discordance and clustering seen and no true difference
    verdict: Verdict


@dataclass(frozen=True)
class SeedComparison:
    """This training procedure; without two seeds a side there is no interval, and no verdict."""

    paired: bool
    seeds: tuple[int, int]
    difference: float
    spread: float | None  # standard deviation of one seed's difference
    standard_error: float | None  # never below that of the images
    interval: Interval | None  # 90 %
    wide_interval: Interval | None  # 95 %
    p: float | None  # of TOST
    seeds_needed: int | None  # a side, for POWER; None: unknown, or more than MOST_SEEDS
    verdict: Verdict


def judge(interval: Interval, wide: Interval, margin: float) -> Verdict:
    """The three-way verdict from the 90 % and the 95 % interval of a difference."""
    if -margin < interval.low and interval.high < margin:
        return "equivalent"
    return "different" if wide.low > 0 or wide.high < 0 else "undecided"


def overall(images: Verdict, seeds: Verdict) -> Verdict:
    """About the training procedure: images can keep it from `equivalent`, but not condemn it.

    One pair of checkpoints of one and the same program may differ, by rounding and luck.
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
    """Compare which images are right: (S, B) and (S', B) booleans, classes (B,).

    With `paired`, row i of both sides is a pair; it only adds the counts of each pair. `seed` is
    the bootstrap's.
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
    """Discordant images of one pair (B,), (B,) and the exact two-sided test (McNemar 1947)."""
    lost, gained = int((baseline & ~candidate).sum()), int((candidate & ~baseline).sum())
    p = float(stats.binomtest(gained, lost + gained).pvalue) if lost + gained else 1.0
    return Discordance(lost, gained, p)


def _resample_classes(gaps: Floats, classes: NDArray[Any], seed: int) -> Floats:
    """Bootstrap (RESAMPLES,) of the mean gap: images of one class are not independent."""
    _, place = np.unique(classes, return_inverse=True)
    sums, sizes = np.bincount(place, weights=gaps), np.bincount(place)
    number = len(sizes)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(number, np.full(number, 1 / number), size=RESAMPLES)
    draws: Floats = (drawn @ sums) / (drawn @ sizes)
    return draws


def compare_seeds(
    baseline: ArrayLike, candidate: ArrayLike, margin: float, floor: float, paired: bool
) -> SeedComparison:
    """Compare final accuracies (S,) and (S',) by TOST in Student's t.

    Args:
        margin: largest difference that does not matter.
        floor: the images' standard error. Seeds that happen to agree are no evidence for more
            than their test images tell, so the standard error is at least this.
        paired: entry i of both sides shares seed, initial values and batches; else Welch's test.
    """
    left, right = np.asarray(baseline, dtype=float), np.asarray(candidate, dtype=float)
    assert floor > 0 and (not paired or left.shape == right.shape)
    difference, seeds = float(right.mean() - left.mean()), (len(left), len(right))
    if min(seeds) < 2:
        nothing = (None,) * 6
        return SeedComparison(paired, seeds, difference, *nothing, verdict="undecided")
    samples = [right - left] if paired else [left, right]
    spread = sqrt(sum(float(one.var(ddof=1)) for one in samples))
    parts = [float(one.var(ddof=1)) / len(one) for one in samples]
    freedom = float(min(seeds) - 1)
    if not paired and sum(parts) > 0:  # Welch and Satterthwaite
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
    """Images for TOST of one pair to succeed with this probability if there is no difference.

    Solves sqrt(B * discordance + 2 * ADDED) / B = margin / (z_alpha + z_half_miss) for B.
    """
    quantiles = stats.norm.isf([ALPHA, (1 - power) / 2]).sum()
    ratio = float(margin / quantiles) ** 2
    return ceil((discordance + sqrt(discordance**2 + 8 * ADDED * ratio)) / (2 * ratio))


def seeds_needed(
    spread: float, margin: float, floor: float, paired: bool, power: float = POWER
) -> int | None:
    """Seeds a side for the same; None if MOST_SEEDS do not do, which more images may mend."""
    for number in range(LEAST_RUNS, MOST_SEEDS + 1):
        freedom = number - 1 if paired else 2 * number - 2
        if tost_power(spread / sqrt(number), freedom, margin, floor) >= power:
            return number
    return None


def tost_power(error: float, freedom: float, margin: float, floor: float = 0.0) -> float:
    """Chance of `equivalent` if there is no difference; `error` is the true standard error.

    The mean is normal, its estimated standard error a chi: averaged over 1000 quantiles of it.
    """
    error = max(error, 1e-12)
    quantiles = (np.arange(1000) + 0.5) / 1000
    estimated = error * np.sqrt(stats.chi2.ppf(quantiles, freedom) / freedom)
    room = margin - stats.t.isf(ALPHA, freedom) * np.maximum(estimated, floor)
    return float(np.maximum(2 * stats.norm.cdf(room / error) - 1, 0).mean())
