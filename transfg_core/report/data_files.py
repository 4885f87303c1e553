"""The numbers of a report as CSV, for other programs: one row for each run, and for each cell."""

import statistics
from collections.abc import Sequence

from transfg_core.report.cells import Cell, axis_columns, other_differences, text_of
from transfg_core.report.measures import MEASURES
from transfg_core.run.reading import Run

Rows = list[list[object]]


def run_rows(cells: Sequence[Cell]) -> Rows:
    """One row for each run: axes, differing keys, measures, folder and caution."""
    axes, others = axis_columns(), other_differences(cells)
    header: list[object] = [axis.name for axis in axes]
    header += [*others, "seed", "state", "updates", *(measure.key for measure in MEASURES)]
    header += ["best_update", "device", "folder", "caution"]
    rows = [header]
    for cell in cells:
        labels = [axis.value(cell) for axis in axes]
        labels += [text_of(cell.settings.get(key)) for key in others]
        for run in cell.runs:
            numbers = [_rounded(measure.value(run)) for measure in MEASURES]
            facts = [
                run.best.get("weights_update", run.best.get("update")),
                run.device.get("device"),
                str(run.path),
            ]
            rows.append([*labels, *_state(run), *numbers, *facts, run.caution])
    return rows


def _state(run: Run) -> list[object]:
    return [run.config.run.seed, run.state, run.update]


def cell_rows(cells: Sequence[Cell]) -> Rows:
    """One row for each cell: axes, differing keys, seeds, means and deviations, folders."""
    axes, others = axis_columns(), other_differences(cells)
    header: list[object] = [axis.name for axis in axes]
    header += [*others, "runs", "n"]
    header += [f"{m.key}_{what}" for m in MEASURES for what in ("mean", "sd")]
    rows = [[*header, "folders", "caution"]]
    for cell in cells:
        row: list[object] = [axis.value(cell) for axis in axes]
        row += [text_of(cell.settings.get(key)) for key in others]
        row += [len(cell.runs), len(cell.finished)]
        for measure in MEASURES:
            numbers = cell.values(measure.value)
            row.append(_rounded(statistics.mean(numbers)) if numbers else None)
            row.append(_rounded(statistics.stdev(numbers)) if len(numbers) > 1 else None)
        folders = " ".join(str(run.path) for run in cell.finished)
        rows.append([*row, folders, cell.runs[0].caution])
    return rows


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 6)
