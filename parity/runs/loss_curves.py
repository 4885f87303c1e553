"""Do the training losses of two sets of runs take the same course?

Rounding differences grow as a run goes on, slowly where training is stable. So losses are compared
exactly while repetitions of one run, perturbed where only rounding is, stay together (up to the
*horizon*), and as distributions over seeds from there on.

Shapes: S seeds (runs), T logged updates, R repetitions of one run.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rich.console import Console
from rich.table import Table
from scipy import stats

from parity.comparison.verdict import Verdict, worst
from parity.runs.accuracy import check_apart, check_same_experiment, load_side
from parity.runs.tost import Floats, Interval, SeedComparison, compare_seeds
from transfg_core.errors import UserError
from transfg_core.report.numbers import NONE
from transfg_core.run.metrics_log import clean
from transfg_core.run.reading import Run

# Trajectories: a candidate may stray 5 times as far as repetitions of the baseline do (+ SLACK),
# until the horizon, where these are themselves 1e-3 apart and only distributions can be compared.
APART = 1e-3
STRAY = 5.0
SLACK = 1e-6
LEAST_REPETITIONS = 4  # to call a candidate different: fewer may all have missed a near tie
LEAST_SEEDS = 5  # of the baseline, for a band
WITHIN = 0.95  # share of the points in the band
LATE_MARGIN = 0.05  # of the mean loss after the horizon: a larger difference matters
WINDOW = 50  # updates, of the moving mean


@dataclass(frozen=True)
class CurveComparison:
    """Training curves. `early` and `late` are the parts before and after the horizon.

    A part without points has no verdict. Outside the band is different; inside means no more than
    not told apart from one more seed of the baseline, so that equivalent also takes TOST of the
    mean loss after the horizon.
    """

    horizon: int | None  # index of the first point where repetitions are apart; T: nowhere
    gap: Floats  # (T,) relative difference of the pair that shares a seed; empty without it
    bound: Floats  # (T,) what it may be, decisive before the horizon
    at: NDArray[np.int64]  # (N,) last index of each window of the moving mean
    centre: Floats  # (N,) mean over the baseline's seeds
    half_width: Floats  # (N,) of the band around it; empty with one seed
    candidate: Floats  # (N,) mean over the candidate's seeds
    inside: float | None  # share of the candidate's points in the band
    interval: Interval | None  # 90 %, of the late losses' difference in units of their mean
    early: Verdict | None
    late: Verdict | None
    verdict: Verdict


@dataclass(frozen=True)
class LossCurves:
    """Training losses of two sets of runs: `comparison`'s points are these updates."""

    updates: NDArray[np.int64]
    comparison: CurveComparison

    def to_record(self) -> dict[str, Any]:
        """As JSON can hold it."""
        record: dict[str, Any] = clean(asdict(self))
        return record


def compare_loss_curves(
    baseline: Sequence[Path], candidate: Sequence[Path], repetitions: Sequence[Path] = ()
) -> LossCurves:
    """Compare the training losses of runs, which may have different seeds.

    `repetitions` are runs of one baseline run's seed and backend that were perturbed where
    rounding is (threads, kernels, the last bit of an initial value): at least two, or none.

    Raises:
        UserError: a folder is not a run's; the runs are not one experiment; they did not log the
            same updates; the repetitions repeat no baseline run.
    """
    left, right = load_side(baseline, "baseline"), load_side(candidate, "candidate")
    again = load_side(repetitions, "repetitions", once_each=False) if repetitions else []
    check_apart(left, right)
    check_apart(left, again)
    for run in chain(left, right, again):
        check_same_experiment(left[0], run)
    losses = [_losses(run) for run in (*left, *right, *again)]
    updates = losses[0].keys()
    for run, found in zip((*left, *right, *again), losses, strict=True):
        if found.keys() != updates or not updates:
            raise UserError(
                f"{run.path}: expected the loss of the same updates as in {left[0].path}, found "
                f"{len(found)} updates to {max(found, default=0)} and {len(updates)} to "
                f"{max(updates, default=0)}; finish both runs"
            )
    curves = np.array([list(found.values()) for found in losses])
    ours, theirs, repeated = np.split(curves, [len(left), len(left) + len(right)])
    pair = _repeated(left, right, again) if again else None
    seeds, others = ([run.config.run.seed for run in runs] for runs in (left, right))
    paired = sorted(seeds) == sorted(set(others))
    if paired:  # rows side by side
        theirs, pair = theirs[[others.index(seed) for seed in seeds]], pair and (pair[0], pair[0])
    return LossCurves(
        np.array(list(updates)), compare_curves(ours, theirs, repeated, pair, paired=paired)
    )


def compare_curves(
    baseline: ArrayLike,
    candidate: ArrayLike,
    repetitions: ArrayLike | None = None,
    pair: tuple[int, int] | None = None,
    window: int = WINDOW,
    paired: bool = False,
) -> CurveComparison:
    """Compare curves over seeds, (S, T) and (S', T).

    Args:
        repetitions: (R, T) perturbed runs of one baseline curve, R >= 2, else they tell nothing.
        pair: row of that curve in `baseline`, row of the candidate with the same seed.
        window: points of the moving mean after the horizon.
        paired: row i of both sides shares a seed.
    """
    left, right = np.asarray(baseline, dtype=float), np.asarray(candidate, dtype=float)
    points = left.shape[1]
    assert points and right.shape[1] == points and np.isfinite(left).all()
    horizon, gap, bound = None, np.zeros(0), np.zeros(0)
    early: Verdict | None = "undecided"
    again = np.zeros((0, points)) if repetitions is None else np.asarray(repetitions, dtype=float)
    if pair is not None:
        gap = _relative(right[pair[1]], left[pair[0]])
    if pair is not None and len(again) >= 2:
        noise = _relative(again, left[pair[0]])
        # rounding differences grow, but cross zero on the way: what counts is how far they were
        noise = np.maximum.accumulate(noise, axis=1)
        apart = np.flatnonzero(np.median(noise, axis=0) > APART)
        horizon = int(apart[0]) if len(apart) else points
        bound = STRAY * noise.max(axis=0) + SLACK
        enough = len(again) >= LEAST_REPETITIONS and bool(noise.any())
        early = _judge_early(gap[:horizon], bound[:horizon], enough)
    start = horizon or 0
    at, smooth_left, smooth_right = _smooth(left, right, start, window)
    centre, mean = smooth_left.mean(axis=0), smooth_right.mean(axis=0)
    half_width, inside, interval, late = np.zeros(0), None, None, None
    if start < points:
        half_width, inside = _band(smooth_left, mean)
        ends = left[:, start:].mean(axis=1), right[:, start:].mean(axis=1)
        ends_apart = _compare_ends(*ends, paired)
        interval = ends_apart.interval
        late = _judge_late(len(left), inside, ends_apart.verdict)
    parts = [part for part in (early, late) if part is not None]
    return CurveComparison(
        horizon,
        gap,
        bound,
        at,
        centre,
        half_width,
        mean,
        inside,
        interval,
        early,
        late,
        worst(parts),
    )


def _relative(value: Floats, baseline: Floats) -> Floats:
    found: Floats = np.abs(value - baseline) / np.maximum(np.abs(baseline), 1e-30)
    return np.where(np.isfinite(found), found, np.inf)


def _judge_early(gap: Floats, bound: Floats, enough: bool) -> Verdict | None:
    if not len(gap):
        return None
    if (gap <= bound).all():
        return "equivalent"
    # repetitions equal to the last bit were not perturbed, and no measure of what may be; a few
    # are a poor one
    return "different" if enough else "undecided"


def _band(baseline: Floats, mean: Floats) -> tuple[Floats, float | None]:
    """Band of one more seed around the baseline's smoothed curves, and the share within it."""
    seeds = len(baseline)
    if seeds < 2:
        return np.zeros(0), None
    reach = float(stats.t.ppf(0.995, seeds - 1)) * sqrt(1 + 1 / seeds)
    centre = baseline.mean(axis=0)
    half_width: Floats = reach * baseline.std(axis=0, ddof=1) + SLACK * np.abs(centre)
    return half_width, float((np.abs(mean - centre) <= half_width).mean())


def _compare_ends(baseline: Floats, candidate: Floats, paired: bool) -> SeedComparison:
    """TOST of each seed's mean loss after the horizon, in units of the baseline's mean."""
    unit = max(abs(float(baseline.mean())), 1e-30)
    return compare_seeds(baseline / unit, candidate / unit, LATE_MARGIN, SLACK, paired)


def _judge_late(seeds: int, inside: float | None, ends: Verdict) -> Verdict:
    if inside is None or seeds < LEAST_SEEDS:
        return "undecided"
    return ends if inside >= WITHIN else "different"


def _smooth(
    left: Floats, right: Floats, start: int, window: int
) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Moving means from `start` on, over all points that are left if these are fewer."""
    width = min(window, left.shape[1] - start)
    if not width:
        return np.zeros(0, dtype=np.int64), left[:, :0], right[:, :0]
    views = (
        np.lib.stride_tricks.sliding_window_view(one[:, start:], width, axis=1)
        for one in (left, right)
    )
    smooth_left, smooth_right = (view.mean(axis=-1) for view in views)
    first = start + width - 1
    return np.arange(first, first + smooth_left.shape[1]), smooth_left, smooth_right


def _losses(run: Run) -> dict[int, float]:
    return {one["update"]: one["loss"] for one in run.train if one.get("loss") is not None}


def _repeated(left: Sequence[Run], right: Sequence[Run], again: Sequence[Run]) -> tuple[int, int]:
    """Rows of the baseline run that `again` repeats, and of the candidate with its seed."""
    origins = {(run.config.run.seed, run.backend) for run in again}
    seeds = [run.config.run.seed for run in right]
    rows = [row for row, run in enumerate(left) if {(run.config.run.seed, run.backend)} == origins]
    seed = left[rows[0]].config.run.seed if rows else None
    if seed not in seeds or len(again) < 2:
        found = ", ".join(f"seed {seed} {backend}" for seed, backend in sorted(origins))
        raise UserError(
            "repetitions: expected at least two, all of the seed and backend of one baseline run "
            f"whose seed the candidate has, found {len(again)} of {found}"
        )
    return rows[0], seeds.index(seed)


def print_curves(result: LossCurves) -> None:
    """A table of both parts, and the verdict."""
    found = result.comparison
    table = Table("part", "updates", "found", "verdict")
    last = int(result.updates[-1])
    start = 0 if found.horizon is None else found.horizon
    if found.horizon is None:
        table.add_row("before the horizon", NONE, "no repetitions to find it by", str(found.early))
    elif start:
        apart = float((found.gap[:start] / found.bound[:start]).max())
        text = f"difference at most {apart:.2f} of what repetitions explain"
        until = int(result.updates[start - 1])
        table.add_row("before the horizon", f"1 to {until}", text, str(found.early))
    if start < len(result.updates):
        share = "one seed only" if found.inside is None else f"{found.inside:.0%} inside the band"
        if found.interval:
            low, high = (f"{100 * limit:+.1f}" for limit in found.interval)
            share += f"; 90 % interval of the mean loss {low} to {high} %"
        first = int(result.updates[start])
        table.add_row("after it", f"{first} to {last}", share, str(found.late))
    Console(width=None if sys.stdout.isatty() else 100).print(table)
    print(f"training losses: {found.verdict}")
