"""The tables of the papers: method x split with training time, contrastive loss, margin, fusion.

A table exists only if the runs hold its comparison: cells that are alike but for its axis. A value
that does not apply fits every row, such as the margin of a run without the contrastive loss.
"""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any, NamedTuple

from scipy import stats

from transfg_core.report.axes import AXES, Axis
from transfg_core.report.cells import (
    Cell,
    Column,
    axis_column,
    cautions,
    differing,
    mean_text,
    replicate,
    values_of,
)
from transfg_core.report.measures import HOURS, TOP1
from transfg_core.report.tables import Table

LEVEL = 0.95  # of the interval of a difference
NOTE = (
    "Top-1 accuracy of the last step in percent: mean ± standard deviation over n seeds. An empty "
    "cell was not run or is not finished."
)


class Comparison(NamedTuple):
    """One table: the axis whose values are its columns."""

    axis: str
    title: str
    hours: bool = False  # also the training time
    also: tuple[str, ...] = ()  # axes in the rows that make a comparison as well


COMPARISONS = (
    Comparison("split", "Method and split", hours=True, also=("method",)),
    Comparison("method", "Methods"),
    Comparison("contrastive", "Contrastive loss"),
    Comparison("margin", "Margin of the contrastive loss"),
    Comparison("fusion", "Fusion of attention maps"),
)
Key = tuple[str, ...]
Rows = dict[Key, dict[str, Cell]]


def comparison_tables(cells: Sequence[Cell], columns: Sequence[Column]) -> list[Table]:
    """The tables of COMPARISONS that these cells fill."""
    tables = [_table(comparison, cells, columns) for comparison in COMPARISONS]
    return [table for table in tables if table is not None]


def _table(
    comparison: Comparison, cells: Sequence[Cell], columns: Sequence[Column]
) -> Table | None:
    axis = next(axis for axis in AXES if axis.name == comparison.axis)
    column = axis_column(axis)
    labels = [one for one in columns if one.name != axis.name]
    rows = rows_of([cell for cell in cells if column.value(cell)], column, labels)
    also = any(len(values_of(cells, one)) > 1 for one in columns if one.name in comparison.also)
    if not also:
        rows = {key: row for key, row in rows.items() if len(row) > 1}
    shown = [cell for row in rows.values() for cell in row.values()]
    if not shown:
        return None
    values = values_of(shown, column)
    header = [one.name for one in labels]
    for value in values:
        name = f"{axis.name} {value}" if axis.named else value
        header += [f"{name}: top-1 %", "n", *(["hours"] if comparison.hours else [])]
    body = [
        [*key, *(text for value in values for text in _numbers(row.get(value), comparison.hours))]
        for key, row in rows.items()
    ]
    notes = [NOTE]
    if len(values) == 2:
        header += [f"{values[1]} - {values[0]}, points", f"{LEVEL:.0%} interval", "pairs"]
        for texts, row in zip(body, rows.values(), strict=True):
            texts += difference(*map(row.get, values))
        notes.append(DIFFERENCE)
    note = " ".join([*notes, *_confounds(rows, axis), *cautions(shown)])
    return Table(comparison.title, note, header, body, range(len(labels), len(header)))


def rows_of(cells: Sequence[Cell], axis: Column, labels: Sequence[Column]) -> Rows:
    """Label of the row -> value of the axis -> cell."""
    keys = [tuple(column.value(cell) for column in labels) for cell in cells]
    kept = [
        key
        for key in dict.fromkeys(keys)
        if not any(_fits(key, other) and key != other for other in keys)
    ]
    rows: Rows = {}
    for key in kept:
        for cell, own in zip(cells, keys, strict=True):
            if _fits(own, key):
                rows.setdefault(key, {})[axis.value(cell)] = cell
    return rows


def _fits(key: Key, row: Key) -> bool:
    """Whether a cell belongs to a row: each of its values is the row's, or does not apply."""
    return all(value in ("", wanted) for value, wanted in zip(key, row, strict=True))


def _numbers(cell: Cell | None, hours: bool) -> list[str]:
    if cell is None:
        return ["", "", *([""] if hours else [])]
    numbers = cell.values(TOP1.value)
    spent = [mean_text(cell.values(HOURS.value))] if hours else []
    return [mean_text(numbers), cell.seeds if numbers else "", *spent]


DIFFERENCE = (
    f"Differences are means over the seeds that both sides have, with Student's {LEVEL:.0%} "
    "interval of such pairs; without a common seed, of all runs, with Welch's. An interval that "
    "holds 0 shows neither an effect nor that there is none. Intervals are not corrected for the "
    "number of rows: of 20 rows without an effect, one misses 0 on average. The last column says "
    "over how many seeds; the folds of a seed share training images, so their mean counts once."
)


def difference(left: Cell | None, right: Cell | None) -> list[str]:
    """Mean of right minus left in points, its interval, and the number of pairs of seeds.

    Texts; empty where there is none. The folds of a seed share training images, so that their mean
    counts once (Nadeau and Bengio 2003, "Inference for the Generalization Error").
    """
    if left is None or right is None:
        return ["", "", ""]
    sides = [
        dict(zip(_seeds(cell), cell.values(TOP1.value), strict=False)) for cell in (left, right)
    ]
    one, two = sides
    common = [seed for seed in one if seed in two]
    if common:
        gaps = by_seed({seed: two[seed] - one[seed] for seed in common})
        interval = "" if _constant(gaps) else _interval(stats.ttest_1samp(gaps, 0.0))
        return [f"{mean(gaps):+.2f}", interval, str(len(gaps))]
    if not one or not two:
        return ["", "", ""]
    values = by_seed(one), by_seed(two)
    gap = mean(values[1]) - mean(values[0])
    if _constant(values[0]) or _constant(values[1]):
        return [f"{gap:+.2f}", "", ""]
    test = stats.ttest_ind(values[1], values[0], equal_var=False)
    return [f"{gap:+.2f}", _interval(test), ""]


def by_seed(numbers: Mapping[tuple[int, int], float]) -> list[float]:
    """The mean over the folds of each seed; the keys are (seed, fold)."""
    found: dict[int, list[float]] = {}
    for (seed, _), number in numbers.items():
        found.setdefault(seed, []).append(number)
    return [mean(folds) for folds in found.values()]


def _seeds(cell: Cell) -> list[tuple[int, int]]:
    return [replicate(run) for run in cell.finished]


def _constant(sample: Sequence[float]) -> bool:
    """Whether the sample has no scatter, or a single number, so that it gives no interval."""
    return max(sample) - min(sample) < 1e-9


def _interval(test: Any) -> str:
    low, high = test.confidence_interval(LEVEL)
    return f"{low:+.2f} .. {high:+.2f}"


def _confounds(rows: Rows, axis: Axis) -> list[str]:
    """A sentence about other settings that differ between the cells of one row."""
    found: dict[str, None] = {}
    for row in rows.values():
        cells = list(row.values())
        unused = [one for one in AXES if any(not one.value(cell.settings) for cell in cells)]
        covered = [key for one in (axis, *unused) for key in one.keys]
        found |= dict.fromkeys(differing(cells, covered))
    if not found:
        return []
    return [f"Within a row also differ: {', '.join(found)}; a difference may come from them."]
