"""Do the training losses of two sets of runs take the same course?

Rounding differences grow during a run, slowly if training is stable. Repetitions of one run, with
changes in rounding alone, show how fast. Up to the *horizon*, where the repetitions are clearly
apart, losses are compared update by update; after it, as distributions over seeds.

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

# Up to the horizon, a candidate may differ STRAY times as much as the repetitions do (+ SLACK). At
# the horizon the repetitions themselves are APART from the baseline run (all relative).
APART = 1e-3
STRAY = 5.0
SLACK = 1e-6
LEAST_REPETITIONS = 4  # for the verdict `different`: fewer may all miss a near tie
LEAST_SEEDS = 5  # of the baseline, for a verdict after the horizon
WITHIN = 0.95  # share of the candidate's points that must lie in the band
LATE_MARGIN = 0.05  # of the mean loss after the horizon: a larger difference matters
WINDOW = 50  # updates in the moving mean


@dataclass(frozen=True)
class CurveComparison:
    """Training curves compared. `early` and `late` are the verdicts before and after the horizon.

    A part without points has no verdict. Outside the band is `different`. Inside the band only
    means that the candidate looks like one more seed of the baseline, so `equivalent` also needs
    TOST of the mean loss after the horizon.
    """

    horizon: int | None  # index of the first point where repetitions are apart; T: nowhere
    gap: Floats  # (T,) relative difference of the pair that shares a seed; empty if there is none
    bound: Floats  # (T,) largest allowed gap; decides before the horizon
    at: NDArray[np.int64]  # (N,) last index of each window of the moving mean
    centre: Floats  # (N,) mean over the baseline's seeds
    half_width: Floats  # (N,) of the band around it; empty with one seed
    candidate: Floats  # (N,) mean over the candidate's seeds
    inside: float | None  # share of the candidate's points in the band
    interval: Interval | None  # 90 %, difference of late losses over the baseline's mean
    early: Verdict | None
    late: Verdict | None
    verdict: Verdict


@dataclass(frozen=True)
class LossCurves:
    """Training losses of two sets of runs; the points of `comparison` are the `updates`."""

    updates: NDArray[np.int64]
    comparison: CurveComparison

    def to_record(self) -> dict[str, Any]:
        """The result as JSON can hold it."""
        record: dict[str, Any] = clean(asdict(self))
        return record


def compare_loss_curves(
    baseline: Sequence[Path], candidate: Sequence[Path], repetitions: Sequence[Path] = ()
) -> LossCurves:
    """Compare the training losses of runs; both sides may have different seeds.

    `repetitions` have the seed and backend of one baseline run and differ from it in rounding alone
    (threads, kernels, the last bit of an initial value). Give at least two, or none.

    Raises:
        UserError: a folder is not of a run; the runs are not one experiment; they did not log the
            same updates; the repetitions repeat no baseline run.
    """
    left, right = load_side(baseline, "baseline"), load_side(candidate, "candidate")
    repeats = load_side(repetitions, "repetitions", once_each=False) if repetitions else []
    check_apart(left, right)
    check_apart(left, repeats)
    for run in chain(left, right, repeats):
        check_same_experiment(left[0], run)
    losses = [_losses(run) for run in (*left, *right, *repeats)]
    updates = losses[0].keys()
    for run, by_update in zip((*left, *right, *repeats), losses, strict=True):
        if by_update.keys() != updates or not updates:
            raise UserError(
                f"{run.path}: expected the loss of the same updates as in {left[0].path}, found "
                f"{len(by_update)} updates to {max(by_update, default=0)} and {len(updates)} to "
                f"{max(updates, default=0)}; finish both runs"
            )
    curves = np.array([list(by_update.values()) for by_update in losses])
    left_curves, right_curves, repeated = np.split(curves, [len(left), len(left) + len(right)])
    pair = _repeated(left, right, repeats) if repeats else None
    left_seeds, right_seeds = ([run.config.run.seed for run in runs] for runs in (left, right))
    paired = sorted(left_seeds) == sorted(set(right_seeds))
    if paired:  # the candidate's rows in the order of the baseline's seeds
        right_curves = right_curves[[right_seeds.index(seed) for seed in left_seeds]]
        pair = pair and (pair[0], pair[0])
    return LossCurves(
        np.array(list(updates)),
        compare_curves(left_curves, right_curves, repeated, pair, paired=paired),
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
        repetitions: (R, T) perturbed runs of one baseline curve; ignored if R < 2.
        pair: row of that curve in `baseline`, row of the candidate with the same seed.
        window: points in the moving mean after the horizon.
        paired: rows i of both sides share a seed.
    """
    left, right = np.asarray(baseline, dtype=float), np.asarray(candidate, dtype=float)
    points = left.shape[1]
    assert points and right.shape[1] == points and np.isfinite(left).all()
    horizon, gap, bound = None, np.zeros(0), np.zeros(0)
    early: Verdict | None = "undecided"
    repeats = np.zeros((0, points)) if repetitions is None else np.asarray(repetitions, dtype=float)
    if pair is not None:
        gap = _relative(right[pair[1]], left[pair[0]])
    if pair is not None and len(repeats) >= 2:
        noise = _relative(repeats, left[pair[0]])
        # Rounding differences grow, but may cross zero: the largest so far counts.
        noise = np.maximum.accumulate(noise, axis=1)
        apart = np.flatnonzero(np.median(noise, axis=0) > APART)
        horizon = int(apart[0]) if len(apart) else points
        bound = STRAY * noise.max(axis=0) + SLACK
        enough = len(repeats) >= LEAST_REPETITIONS and bool(noise.any())
        early = _judge_early(gap[:horizon], bound[:horizon], enough)
    start = horizon or 0
    at, smooth_left, smooth_right = _smooth(left, right, start, window)
    centre, mean = smooth_left.mean(axis=0), smooth_right.mean(axis=0)
    half_width, inside, interval, late = np.zeros(0), None, None, None
    if start < points:
        half_width, inside = _band(smooth_left, mean)
        late_means = left[:, start:].mean(axis=1), right[:, start:].mean(axis=1)
        late_comparison = _compare_late_means(*late_means, paired)
        interval = late_comparison.interval
        late = _judge_late(len(left), inside, late_comparison.verdict)
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
    quotient: Floats = np.abs(value - baseline) / np.maximum(np.abs(baseline), 1e-30)
    return np.where(np.isfinite(quotient), quotient, np.inf)


def _judge_early(gap: Floats, bound: Floats, enough: bool) -> Verdict | None:
    if not len(gap):
        return None
    if (gap <= bound).all():
        return "equivalent"
    # Few repetitions measure the noise poorly. If all are equal to the bit, nothing was perturbed,
    # and they do not measure it at all.
    return "different" if enough else "undecided"


def _band(baseline: Floats, mean: Floats) -> tuple[Floats, float | None]:
    """Half-width of the band for one more seed of the baseline, and the share of `mean` inside."""
    seeds = len(baseline)
    if seeds < 2:
        return np.zeros(0), None
    reach = float(stats.t.ppf(0.995, seeds - 1)) * sqrt(1 + 1 / seeds)
    centre = baseline.mean(axis=0)
    half_width: Floats = reach * baseline.std(axis=0, ddof=1) + SLACK * np.abs(centre)
    return half_width, float((np.abs(mean - centre) <= half_width).mean())


def _compare_late_means(baseline: Floats, candidate: Floats, paired: bool) -> SeedComparison:
    """TOST of each seed's mean loss after the horizon, in units of the baseline's mean."""
    unit = max(abs(float(baseline.mean())), 1e-30)
    return compare_seeds(baseline / unit, candidate / unit, LATE_MARGIN, SLACK, paired)


def _judge_late(seeds: int, inside: float | None, late_means: Verdict) -> Verdict:
    if inside is None or seeds < LEAST_SEEDS:
        return "undecided"
    return late_means if inside >= WITHIN else "different"


def _smooth(
    left: Floats, right: Floats, start: int, window: int
) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Last index of each window from `start` on, and the moving means of both sides.

    If fewer points than `window` are left, they make one window.
    """
    width = min(window, left.shape[1] - start)
    if not width:
        return np.zeros(0, dtype=np.int64), left[:, :0], right[:, :0]
    views = (
        np.lib.stride_tricks.sliding_window_view(curves[:, start:], width, axis=1)
        for curves in (left, right)
    )
    smooth_left, smooth_right = (view.mean(axis=-1) for view in views)
    end = start + width - 1  # of the first window
    return np.arange(end, end + smooth_left.shape[1]), smooth_left, smooth_right


def _losses(run: Run) -> dict[int, float]:
    return {
        record["update"]: record["loss"] for record in run.train if record.get("loss") is not None
    }


def _repeated(left: Sequence[Run], right: Sequence[Run], repeats: Sequence[Run]) -> tuple[int, int]:
    """Rows of the baseline run that `repeats` repeat, and of the candidate with its seed."""
    origins = {(run.config.run.seed, run.backend) for run in repeats}
    seeds = [run.config.run.seed for run in right]
    rows = [row for row, run in enumerate(left) if {(run.config.run.seed, run.backend)} == origins]
    seed = left[rows[0]].config.run.seed if rows else None
    if seed not in seeds or len(repeats) < 2:
        found = ", ".join(f"seed {seed} {backend}" for seed, backend in sorted(origins))
        raise UserError(
            "repetitions: expected at least two, all with the seed and backend of one baseline "
            f"run, and a candidate with that seed; found {len(repeats)} of {found}"
        )
    return rows[0], seeds.index(seed)


def print_curves(result: LossCurves) -> None:
    """Print a table of both parts, and the verdict."""
    curves = result.comparison
    table = Table("part", "updates", "found", "verdict")
    last = int(result.updates[-1])
    start = 0 if curves.horizon is None else curves.horizon
    if curves.horizon is None:
        text = "no repetitions, so the horizon is unknown"
        table.add_row("before the horizon", NONE, text, str(curves.early))
    elif start:
        ratio = float((curves.gap[:start] / curves.bound[:start]).max())
        text = f"difference at most {ratio:.2f} of the bound from the repetitions"
        until = int(result.updates[start - 1])
        table.add_row("before the horizon", f"1 to {until}", text, str(curves.early))
    if start < len(result.updates):
        text = "one seed only" if curves.inside is None else f"{curves.inside:.0%} inside the band"
        if curves.interval:
            low, high = (f"{100 * limit:+.1f}" for limit in curves.interval)
            text += f"; 90 % interval of the difference in mean loss {low} to {high} %"
        first = int(result.updates[start])
        table.add_row("after the horizon", f"{first} to {last}", text, str(curves.late))
    Console(width=None if sys.stdout.isatty() else 100).print(table)
    print(f"training losses: {curves.verdict}")
