"""Pairs of cells: one configuration on two backends. Verdicts on accuracy, ratios of speed.

The verdict is computed by the caller (`parity`, which this package does not import) and comes as
text.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from transfg_core.report.axes import BACKEND, BACKEND_ORDER
from transfg_core.report.cells import Cell, Column, cautions, mean_text, replicate
from transfg_core.report.measures import HOURS, MEMORY, SPEED, TOP1, Measure
from transfg_core.report.numbers import NONE
from transfg_core.report.tables import Table
from transfg_core.run.reading import Run


class Pair(NamedTuple):
    """Two cells of one configuration on two backends, in the order of the backends."""

    left: Cell
    right: Cell


class Verdict(NamedTuple):
    """What a test says about the accuracies of a pair, right minus left, as text."""

    seeds: str
    difference: str  # points
    interval: str  # 90 %, points
    verdict: str
    needed: str  # for a decision


FOLDS = "none: the folds of a seed share training images and are no independent runs"
Judge = Callable[[Sequence[Path], Sequence[Path]], Verdict]


def pairs_of(cells: Sequence[Cell]) -> list[Pair]:
    """The pairs whose cells ran on one backend each, from their first update on."""
    groups: dict[tuple[str, int], list[Cell]] = {}
    for cell in cells:
        if cell.backend in BACKEND_ORDER:
            groups.setdefault(cell.key, []).append(cell)
    ordered = (
        sorted(group, key=lambda cell: BACKEND_ORDER.index(cell.backend))
        for group in groups.values()
    )
    return [Pair(*group) for group in ordered if len(group) == 2]


def common_runs(pair: Pair) -> tuple[list[Run], list[Run]]:
    """The finished runs with the seeds and folds that both sides have."""
    sides = [{replicate(run): run for run in cell.finished} for cell in pair]
    seeds = [seed for seed in sides[0] if seed in sides[1]]
    return [sides[0][seed] for seed in seeds], [sides[1][seed] for seed in seeds]


def _labels(columns: Sequence[Column]) -> list[Column]:
    return [column for column in columns if column.name != BACKEND]


def verdict_table(
    pairs: Sequence[Pair], columns: Sequence[Column], judge: Judge, margin: float
) -> Table:
    """The verdict on each pair with a common seed; `margin` is in points."""
    labels = _labels(columns)
    header = [column.name for column in labels]
    left_name, right_name = BACKEND_ORDER
    header += ["seeds", f"{left_name} %", f"{right_name} %"]
    header += [f"{right_name} - {left_name}, points", "90% interval", "verdict", "needed"]
    rows = []
    for pair in pairs:
        left, right = common_runs(pair)
        if not left:
            continue
        found = _judged(left, right, judge)
        tops = [[TOP1.value(run) for run in side] for side in (left, right)]
        means = [mean_text([top for top in side if top is not None]) for side in tops]
        rows.append(
            [
                *(column.value(pair.left) for column in labels),
                found.seeds,
                *means,
                found.difference,
                found.interval,
                found.verdict,
                found.needed,
            ]
        )
    first = len(labels)
    points = f"{margin:g} point" + "s" * (margin != 1)
    note = (
        f"Do both backends reach the same final accuracy? Equivalent within {points}, different, "
        "or undecided (too little evidence), by two one-sided tests on the runs of equal seeds and "
        "on their images, whose means these are; as `transfg parity accuracy` does. "
        "The last column says what an undecided pair needs, if there is no difference."
    )
    note = " ".join([note, *cautions([cell for pair in pairs for cell in pair])])
    return Table("Parity of accuracies", note, header, rows, range(first, first + 5))


def _judged(left: Sequence[Run], right: Sequence[Run], judge: Judge) -> Verdict:
    """The verdict on runs of equal seeds; none on several folds, which share training images."""
    if len({run.config.data.fold for run in left}) > 1:
        seeds = len({run.config.run.seed for run in left})
        return Verdict(str(seeds), "", "", FOLDS, "")
    return judge([run.path for run in left], [run.path for run in right])


def speed_table(pairs: Sequence[Pair], columns: Sequence[Column]) -> Table:
    """Speed, time and memory of each pair with their ratio, if both ran on one machine."""
    labels = _labels(columns)
    names = BACKEND_ORDER
    measures = (SPEED, HOURS, MEMORY)
    header = [column.name for column in labels]
    for measure in measures:
        header += [f"{measure.name}: {name}" for name in names] + ["ratio"]
    header.append("machine")
    rows = [
        [
            *(column.value(pair.left) for column in labels),
            *(text for measure in measures for text in _ratio(pair, measure)),
            machines(pair),
        ]
        for pair in pairs
        if pair.left.finished and pair.right.finished
    ]
    note = (
        f"Ratios are {' / '.join(names[::-1])}, of one configuration on one machine with as many "
        "threads; elsewhere there is none. Runs that shared a machine slowed each other: "
        "`transfg bench` compares fairly."
    )
    return Table("Speed and memory", note, header, rows, range(len(labels), len(header) - 1))


def _ratio(pair: Pair, measure: Measure) -> list[str]:
    """Both means, and the ratio of right to left."""
    left, right = (cell.values(measure.value) for cell in pair)
    texts = [mean_text(side, measure.form, NONE) for side in (left, right)]
    if not left or not right or len(machines_of(pair)) != 1 or not sum(left):
        return [*texts, ""]
    return [*texts, f"{(sum(right) / len(right)) / (sum(left) / len(left)):.2f}"]


def machines_of(pair: Pair) -> set[tuple[str, ...]]:
    """The machines of the finished runs; one that is not recorded is like no other."""
    runs = [run for cell in pair for run in cell.finished]
    return {machine for run in runs for machine in run.machines or {(str(run.path),)}}


def machines(pair: Pair) -> str:
    """The device of a pair on one machine, or why there is no ratio."""
    if not all(run.machines for cell in pair for run in cell.finished):
        return "not recorded"
    found = machines_of(pair)
    threads = sorted({machine[-1] for machine in found})
    if len({machine[:-1] for machine in found}) != 1:
        return "several machines"
    text = f"{pair.left.finished[0].device.get('device')}, threads {' and '.join(threads)}"
    return text if len(found) == 1 else f"{text}: no ratio"
