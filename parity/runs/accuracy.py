"""Do two sets of runs reach the same accuracy? Reads run folders of `transfg train`.

    result = compare_accuracy(torch_folders, jittor_folders, margin=0.005)  # half a point
    print_accuracy(result)
    raise SystemExit(exit_code(result.verdict))

Runs are paired by `run.seed`: the same seed gives the twins the same initial values and batches.
All runs must be one experiment on the same test images: only the seed and keys that change no
number may differ. This file is longer than most: the comparison and its text belong together.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from parity.comparison.verdict import EXIT_CODES, Verdict
from parity.runs.tost import (
    LEAST_RUNS,
    MOST_SEEDS,
    POWER,
    ImageComparison,
    Interval,
    SeedComparison,
    compare_images,
    compare_seeds,
    overall,
)
from transfg_core.errors import UserError
from transfg_core.report.numbers import NONE, percent
from transfg_core.run.comparison import real_differences
from transfg_core.run.metrics_log import clean
from transfg_core.run.reading import Run, load_run

MEANING: dict[Verdict, str] = {
    "equivalent": "the two sides reach the same accuracy within the margin",
    "different": "the two sides do not reach the same accuracy",
    "undecided": "the evidence is too little to call the two sides equivalent or different",
}


@dataclass(frozen=True)
class Side:
    """The runs of one side, sorted by seed; accuracies are fractions."""

    backends: tuple[str, ...]
    paths: tuple[str, ...]
    seeds: tuple[int, ...]
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean accuracy."""
        return float(np.mean(self.accuracies))

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds; None for one run."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else None


@dataclass(frozen=True)
class AccuracyResult:
    """The comparison of two sets of runs, with three verdicts.

    One is on these checkpoints only, one on the way of training in general, one is overall."""

    margin: float
    baseline: Side
    candidate: Side
    images: ImageComparison
    seeds: SeedComparison
    verdict: Verdict

    def to_record(self) -> dict[str, Any]:
        """The result as JSON can hold it; in fractions, not points."""
        record: dict[str, Any] = clean(asdict(self))
        # `clean` drops the field names of NamedTuples
        record["images"]["pairs"] = [pair._asdict() for pair in self.images.pairs]
        return record


def compare_accuracy(
    baseline: Sequence[Path], candidate: Sequence[Path], margin: float
) -> AccuracyResult:
    """Compare the final predictions of finished runs.

    Runs are paired if both sides have the same seeds, and unpaired if they have no seed in common.

    Raises:
        UserError: the margin is not between 0 and 1; a folder is not of a finished run; the runs
            are not one experiment on one test split; only some seeds are on both sides.
    """
    if not 0 < margin < 1:
        raise UserError(
            f"margin: expected more than 0 and less than 100 percentage points, found "
            f"{100 * margin:g}"
        )
    left, right = load_side(baseline, "baseline"), load_side(candidate, "candidate")
    check_apart(left, right)
    for run in chain(left, right):
        _check_finished(run)
        check_same_experiment(left[0], run)
        _check_same_images(left[0], run)
    paired = _is_paired(left, right)
    names = sorted(left[0].predictions)
    classes = np.array([left[0].predictions[name][0] for name in names])
    left_hits, right_hits = _hits(left, names), _hits(right, names)
    one_each = len(left) == len(right) == 1  # a pair of checkpoints, also with different seeds
    images = compare_images(left_hits, right_hits, classes, margin, paired or one_each)
    left_side, right_side = _side(left, left_hits), _side(right, right_hits)
    floor = images.standard_error
    seeds = compare_seeds(left_side.accuracies, right_side.accuracies, margin, floor, paired)
    verdict = overall(images.verdict, seeds.verdict)
    return AccuracyResult(margin, left_side, right_side, images, seeds, verdict)


def exit_code(verdict: Verdict) -> int:
    """0 equivalent, 1 different, 2 undecided."""
    return EXIT_CODES[verdict]


def print_accuracy(result: AccuracyResult) -> None:
    """Print three tables (the sides, the pairs of runs, the two comparisons) and the verdict."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(_sides_table(result))
    if result.images.pairs:
        console.print(_pairs_table(result))
    console.print(_verdicts_table(result))
    print(
        f"{result.verdict}: {MEANING[result.verdict]} "
        f"(margin {100 * result.margin:g} points; 90 % intervals)"
    )


def _sides_table(result: AccuracyResult) -> Table:
    table = Table("side", "backend", "runs", "seeds", "top-1 %", "SD", "smallest", "largest")
    for name, side in (("baseline", result.baseline), ("candidate", result.candidate)):
        numbers = (side.mean, side.spread, min(side.accuracies), max(side.accuracies))
        seeds = " ".join(map(str, side.seeds))
        backends = ", ".join(dict.fromkeys(side.backends))
        table.add_row(name, backends, str(len(side.seeds)), seeds, *map(percent, numbers))
    return table


def _pairs_table(result: AccuracyResult) -> Table:
    titles = ("seed", "baseline %", "candidate %", "points")
    table = Table(*titles, "only baseline right", "only candidate right", "McNemar p")
    sides = result.baseline, result.candidate
    for row, pair in enumerate(result.images.pairs):
        left, right = (side.accuracies[row] for side in sides)
        seeds = " : ".join(dict.fromkeys(str(side.seeds[row]) for side in sides))
        counts = str(pair.only_baseline), str(pair.only_candidate), f"{pair.p:.3g}"
        table.add_row(seeds, percent(left), percent(right), points_text(right - left), *counts)
    return table


def _verdicts_table(result: AccuracyResult) -> Table:
    images, seeds = result.images, result.seeds
    table = Table("question", "evidence", "points", "interval", "verdict", "needed")
    table.add_row(
        "these checkpoints",
        f"images: {images.images}",
        points_text(images.difference),
        interval_text(images.interval),
        images.verdict,
        f"{images.images_needed} images",
    )
    number = f"{seeds.seeds[0]}, paired" if seeds.paired else "{} and {}".format(*seeds.seeds)
    table.add_row(
        "this training",
        f"seeds: {number}",
        points_text(seeds.difference),
        interval_text(seeds.interval),
        seeds.verdict,
        seeds_needed_text(seeds),
    )
    table.caption = (
        f"needed: for a {POWER:.0%} chance of the verdict equivalent, if there is no difference"
    )
    return table


def seeds_needed_text(seeds: SeedComparison) -> str:
    """How many seeds a decision needs, if there is no difference."""
    if min(seeds.seeds) < 2:
        return f"{LEAST_RUNS} seeds a side, or more"
    if seeds.seeds_needed is None:
        return f"more images, or over {MOST_SEEDS} seeds"
    return f"{seeds.seeds_needed} seeds a side"


def needed_text(result: AccuracyResult) -> str:
    """What an undecided comparison needs for the verdict equivalent, if there is no difference."""
    needed = []
    if result.images.verdict == "undecided":
        needed.append(f"{result.images.images_needed} images")
    if result.seeds.verdict == "undecided":
        needed.append(seeds_needed_text(result.seeds))
    return ", ".join(needed)


def load_side(paths: Sequence[Path], side: str, once_each: bool = True) -> list[Run]:
    """The runs of one side, sorted by seed.

    Raises:
        UserError: there is no run, or `once_each` and more than one run of a seed.
    """
    if not paths:
        raise UserError(f"{side}: expected at least one run folder")
    runs = sorted((load_run(path) for path in paths), key=lambda run: run.config.run.seed)
    counts = Counter(run.config.run.seed for run in runs)
    repeated = [str(seed) for seed, count in counts.items() if count > 1]
    if once_each and repeated:
        raise UserError(
            f"{side}: more than one run of seed {', '.join(repeated)}; give one run of each seed"
        )
    return runs


def check_apart(left: Sequence[Run], right: Sequence[Run]) -> None:
    """Refuse a run that is on both sides."""
    both = {run.path.resolve() for run in left} & {run.path.resolve() for run in right}
    if both:
        raise UserError(f"{min(both)}: a run cannot be compared with itself; name each run once")


def _check_finished(run: Run) -> None:
    if run.state != "finished":
        raise UserError(
            f"{run.path}: expected a finished run, found it {run.state} at update {run.update} of "
            f"{run.config.train.steps}; `transfg train --resume` finishes it"
        )
    if not run.predictions:
        raise UserError(
            f"{run.path}: expected the predictions of its final evaluation, found no "
            "predictions.csv or an empty one; `transfg evaluate` with --predictions writes it"
        )


def check_same_experiment(first: Run, run: Run) -> None:
    """Refuse a run of another experiment than the first's; the seed may differ."""
    lines = real_differences(first, run, but=("run.seed",))
    if lines:
        problem = "settings differ; train both with the same"
        raise UserError("\n  ".join([f"{first.path} -> {run.path}: {problem}", *lines]))


def _check_same_images(first: Run, run: Run) -> None:
    unshared = sorted(first.predictions.keys() ^ run.predictions.keys())
    if unshared:
        raise UserError(
            f"{first.path} and {run.path}: {len(unshared)} test images are in only one of them, "
            f"such as {unshared[0]}; evaluate both on the same split"
        )
    for name, (label, _) in first.predictions.items():
        other_label = run.predictions[name][0]
        if label != other_label:
            raise UserError(
                f"{first.path} and {run.path}: image {name} has label {label} in the first and "
                f"{other_label} in the second; train and evaluate both on the same data"
            )


def _is_paired(left: Sequence[Run], right: Sequence[Run]) -> bool:
    baseline, candidate = ({run.config.run.seed for run in runs} for runs in (left, right))
    unpaired = [
        f"{side} {', '.join(map(str, sorted(seeds)))}"
        for side, seeds in (("baseline", baseline - candidate), ("candidate", candidate - baseline))
        if seeds
    ]
    if unpaired and baseline & candidate:
        raise UserError(
            f"seeds on one side only: {'; '.join(unpaired)}; give every seed on both sides, or for "
            "a comparison without pairs no seed on both"
        )
    return not unpaired


def _hits(runs: Sequence[Run], names: Sequence[str]) -> NDArray[np.bool_]:
    """(S, B): whether each run classifies each image correctly."""
    pairs = [[run.predictions[name] for name in names] for run in runs]
    return np.array([[label == guess for label, guess in row] for row in pairs], dtype=bool)


def _side(runs: Sequence[Run], hits: NDArray[np.bool_]) -> Side:
    return Side(
        backends=tuple(run.backend for run in runs),
        paths=tuple(str(run.path) for run in runs),
        seeds=tuple(run.config.run.seed for run in runs),
        accuracies=tuple(float(accuracy) for accuracy in hits.mean(axis=1)),
    )


def points_text(difference: float) -> str:
    """A difference of fractions in percentage points, with its sign."""
    return f"{100 * difference:+.2f}"


def interval_text(interval: Interval | None) -> str:
    """An interval in percentage points; a dash if there is none."""
    return (
        NONE if interval is None else f"{points_text(interval.low)} .. {points_text(interval.high)}"
    )
