"""The answer of a report: one row for each configuration, and what differs between them."""

from collections.abc import Sequence
from statistics import mean

from transfg_core.report.axes import AXES, BACKEND
from transfg_core.report.cells import (
    Cell,
    Column,
    axis_columns,
    cautions,
    label,
    mean_text,
    other_differences,
    text_of,
    values_of,
)
from transfg_core.report.measures import BEST, HOURS, MEMORY, PART_HITS, SEEN, SPEED, TOP1, Measure
from transfg_core.report.numbers import NONE
from transfg_core.report.tables import Table

MOST_TIES = 4  # cells of one accuracy that are listed by name
MOST_OTHERS = 12  # keys without an axis that are listed by name
ALWAYS = (
    "model.size", "data.crop", "model.classes", "model.pretrained", "train.steps",
    "train.batch_size", "run.precision", "optim.ema",
)  # fmt: skip
WEIGHTS = "model.pretrained"  # said also where there are none
NOTE = (
    "Mean ± standard deviation over n runs that differ only in the seed (or in the fold of a "
    "cross-validation). The last step is the one to compare."
)
ON_TEST = "A best step that is chosen on the test split is too good: it saw the answers."


def summary(cells: Sequence[Cell], columns: Sequence[Column]) -> Table:
    """The results of each cell, over its finished runs."""
    chosen = {run.chosen_on for cell in cells for run in cell.finished if run.best}
    bests = [BEST[split] for split in BEST if split in chosen]
    measures = [TOP1, *bests, PART_HITS, HOURS, SEEN, SPEED, MEMORY]
    used = [m for m in measures if m is TOP1 or any(cell.values(m.value) for cell in cells)]
    rows = [
        [
            *(column.value(cell) for column in columns),
            cell.seeds,
            *(_value(cell, measure) for measure in used),
        ]
        for cell in cells
    ]
    header = [*(column.name for column in columns), "n", *(measure.name for measure in used)]
    note = [NOTE, *([ON_TEST] if "test" in chosen else []), *cautions(cells)]
    return Table("Results", " ".join(note), header, rows, range(len(columns), len(header)))


def _value(cell: Cell, measure: Measure) -> str:
    return mean_text(cell.values(measure.value), measure.form, NONE)


def sentences(cells: Sequence[Cell], columns: Sequence[Column]) -> list[str]:
    """How many runs there are, what differs, what is the same, and which accuracy is highest."""
    runs = [run for cell in cells for run in cell.runs]
    seeds = sorted({run.config.run.seed for run in runs})
    listed = ", ".join(map(str, seeds[:MOST_OTHERS])) + (", ..." * (len(seeds) > MOST_OTHERS))
    folds = {run.config.data.fold for run in runs} - {None}
    listed += f"; {_count(len(folds), 'fold')}" if folds else ""
    configurations = _count(len({cell.configuration for cell in cells}), "configuration")
    counted = (
        f"{_count(len(runs), 'run')} of {configurations}; {_count(len(seeds), 'seed')}: {listed}."
    )
    return [counted, *_different(cells, columns), *_same(cells), *_highest(cells, columns)]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _different(cells: Sequence[Cell], columns: Sequence[Column]) -> list[str]:
    varying = [column for column in columns if len(values_of(cells, column)) > 1]
    if not varying:
        return []
    texts = [f"{column.name} ({', '.join(values_of(cells, column)[:8])})" for column in varying]
    others = [key for key in other_differences(cells) if key not in {c.name for c in columns}]
    also = ""
    if others:
        more = f" and {len(others) - MOST_OTHERS} more" if len(others) > MOST_OTHERS else ""
        also = f" With them also differ: {', '.join(others[:MOST_OTHERS])}{more}."
    return [f"What differs: {'; '.join(texts)}.{also}"]


def _same(cells: Sequence[Cell]) -> list[str]:
    same = [c for c in axis_columns() if c.name != BACKEND and len(values_of(cells, c)) == 1]
    texts = [f"{column.name} {values_of(cells, column)[0]}" for column in same]
    settings = cells[0].settings
    others = set(other_differences(cells))
    texts += [
        f"{key} {text_of(settings[key])}"
        for key in ALWAYS
        if key not in others and (key == WEIGHTS or settings.get(key) is not None)
    ]
    return [f"The same in all: {'; '.join(texts)}."]


def _highest(cells: Sequence[Cell], columns: Sequence[Column]) -> list[str]:
    """The highest mean of each data set, of the cells with the most runs; ties are all named."""
    data_set = AXES[0]
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.values(TOP1.value):
            groups.setdefault(data_set.value(cell.settings), []).append(cell)
    lines = []
    for name, group in groups.items():
        most = max(len(cell.finished) for cell in group)
        compared = [cell for cell in group if len(cell.finished) == most]
        if len(compared) > 1:
            top = max(_rounded_mean(cell) for cell in compared)
            best = [cell for cell in compared if _rounded_mean(cell) == top]
            text = mean_text(best[0].values(TOP1.value)) if len(best) == 1 else f"{top:.2f}"
            lines.append(
                f"Highest mean of the last step on {name}: {text} % (n {most}), "
                f"{_named(best, columns)}. It is chosen on the test split, so it is too good."
            )
    return lines


def _rounded_mean(cell: Cell) -> float:
    """Mean top-1 accuracy of the last step in percent, as the table shows it."""
    return round(mean(cell.values(TOP1.value)), 2)


def _named(best: Sequence[Cell], columns: Sequence[Column]) -> str:
    """The labels of the best cells."""
    names = [label(cell, columns) for cell in best[:MOST_TIES]]
    more = [f"{len(best) - MOST_TIES} more"] if len(best) > MOST_TIES else []
    return " and ".join(["; ".join(names), *more])
