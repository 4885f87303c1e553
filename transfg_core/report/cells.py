"""Cells of a report: runs of one configuration on one backend, which differ in seed or fold.

`columns` are the axes and keys in which cells differ, and what every table begins with.
"""

import json
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from transfg_core.report.axes import AXES, BACKEND, BACKEND_ORDER, COVERED, Axis, Settings, rank
from transfg_core.run.comparison import experiment
from transfg_core.run.reading import Run

Value = float | None
REPLICATES = ("run.seed", "data.fold")  # keys in which the runs of a cell differ


@dataclass(frozen=True, eq=False)
class Cell:
    """Runs of one configuration on one backend, in the order of seeds and folds."""

    runs: tuple[Run, ...]
    settings: Settings  # of the experiment, without seed and fold
    backend: str
    repetition: int  # 0; more if the same seeds ran again

    @cached_property
    def finished(self) -> tuple[Run, ...]:
        """The runs whose numbers are final; only these are averaged."""
        return tuple(run for run in self.runs if run.state == "finished")

    @cached_property
    def configuration(self) -> str:
        """Equal for cells of one configuration."""
        return json.dumps(self.settings, sort_keys=True)

    @cached_property
    def key(self) -> tuple[str, int]:
        """Equal for cells of one configuration and repetition."""
        return self.configuration, self.repetition

    @property
    def seeds(self) -> str:
        """The number of finished runs, and of all if there are others."""
        done = len(self.finished)
        return str(done) if done == len(self.runs) else f"{done} of {len(self.runs)}"

    def values(self, value: Callable[[Run], Value]) -> list[float]:
        """A number of each finished run; empty if a run lacks it."""
        found = [value(run) for run in self.finished]
        present = [number for number in found if number is not None and math.isfinite(number)]
        return present if len(present) == len(found) else []


class Column(NamedTuple):
    """One column of labels: an axis, or a key in which cells differ."""

    name: str
    value: Callable[[Cell], str]
    order: tuple[str, ...] = ()
    named: bool = True


def cells_of(runs: Iterable[Run]) -> list[Cell]:
    """Group runs into cells, in the order of the axes, whatever the order of the runs."""
    groups: dict[tuple[str, str, int], list[Run]] = {}
    settings: dict[str, dict[str, Any]] = {}
    seen: dict[tuple[str, str, tuple[int, int]], int] = {}
    for run in sorted(runs, key=lambda run: str(run.path)):
        flat = experiment(run.config)
        for name in REPLICATES:
            del flat[name]
        flat |= run.knn  # else they would count as seeds of a training with this configuration
        seed = replicate(run)
        text = json.dumps(flat, sort_keys=True)
        settings[text] = flat
        again = seen.get((text, run.trained_by, seed), 0)  # the same seed again says nothing new
        seen[text, run.trained_by, seed] = again + 1
        groups.setdefault((text, run.trained_by, again), []).append(run)
    cells = [
        Cell(tuple(sorted(found, key=replicate)), settings[text], backend, again)
        for (text, backend, again), found in groups.items()
    ]
    return in_order(cells, all_columns(cells))


def replicate(run: Run) -> tuple[int, int]:
    """The seed, and the fold of a cross-validation: what makes a run one of several."""
    return run.config.run.seed, run.config.data.fold or 0


def in_order(cells: Sequence[Cell], columns: Sequence[Column]) -> list[Cell]:
    """The cells, sorted by the values of the columns from left to right."""

    def place(cell: Cell) -> list[tuple[int, float, str]]:
        return [rank(column.value(cell), column.order) for column in columns]

    return sorted(cells, key=place)


def axis_column(axis: Axis) -> Column:
    """The column of one axis."""
    return Column(axis.name, lambda cell: axis.value(cell.settings), axis.order, axis.named)


def axis_columns() -> list[Column]:
    """A column for each axis, the backend last."""
    return [
        *map(axis_column, AXES),
        Column(BACKEND, lambda cell: cell.backend, BACKEND_ORDER, named=False),
    ]


def values_of(cells: Iterable[Cell], column: Column) -> list[str]:
    """The values of a column that apply, each once, in order."""
    found = {column.value(cell) for cell in cells} - {""}
    return sorted(found, key=lambda value: rank(value, column.order))


def all_columns(cells: Sequence[Cell]) -> list[Column]:
    """The columns that give every cell a label of its own.

    These are the axes with more than one value, and keys in which cells of one label differ. The
    method and the backend are always there.
    """
    axes = axis_columns()
    kept = [
        column
        for column in axes
        if column.name in ("method", BACKEND) or len(values_of(cells, column)) > 1
    ]
    alike: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        alike.setdefault(tuple(column.value(cell) for column in kept), []).append(cell)
    keys = dict.fromkeys(key for group in alike.values() for key in differing(group))
    repeated = [Column("repetition", lambda cell: str(cell.repetition + 1))]
    settled = [*kept[:-1], *map(key_column, keys), kept[-1]]
    again = any(cell.repetition for cell in cells)
    return [*settled[:-1], *(repeated if again else []), settled[-1]]


def key_column(key: str) -> Column:
    """The column of one key of the configuration."""
    return Column(key, lambda cell: text_of(cell.settings.get(key)))


def differing(cells: Sequence[Cell], covered: Iterable[str] = ()) -> list[str]:
    """The keys in which the cells differ, except the covered ones."""
    keys = dict.fromkeys(key for cell in cells for key in cell.settings)
    left_out = set(covered)
    return [
        key
        for key in keys
        if key not in left_out and len({json.dumps(c.settings.get(key)) for c in cells}) > 1
    ]


def other_differences(cells: Sequence[Cell]) -> list[str]:
    """The keys in which the cells differ and for which there is no axis."""
    return differing(cells, COVERED)


def text_of(value: Any) -> str:
    """A value of the configuration as text; lists as 64 x 64."""
    if value is None:
        return "none"
    if isinstance(value, list):
        simple = all(isinstance(item, int | float) for item in value)
        return " x ".join(f"{item:g}" for item in value) if simple and value else json.dumps(value)
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def label(cell: Cell, columns: Sequence[Column]) -> str:
    """The values of the columns in one line, for legends and sentences."""
    parts = []
    for column in columns:
        value = column.value(cell)
        if value:
            parts.append(f"{column.name} {value}" if column.named else value)
    return ", ".join(parts)


def mean_text(numbers: Sequence[float], form: str = ".2f", missing: str = "") -> str:
    """Mean ± standard deviation (of a sample); the number alone if it is the only one."""
    if not numbers:
        return missing
    if form == ".0f" and min(numbers) == max(numbers):  # a count, not a measurement
        return f"{numbers[0]:.0f}"
    mean = format(statistics.mean(numbers), form)
    return mean if len(numbers) == 1 else f"{mean} ± {statistics.stdev(numbers):{form}}"


def cautions(cells: Sequence[Cell]) -> list[str]:
    """What a reader of accuracies on these data sets must know, each sentence once."""
    found = (run.caution for cell in cells for run in cell.runs)
    return [f"{caution}." for caution in dict.fromkeys(filter(None, found))]
