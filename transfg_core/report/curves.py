"""The curves of a report: what is drawn of which runs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from transfg_core.report.cells import Cell, Column, label, replicate
from transfg_core.report.measures import TOP1
from transfg_core.report.pairs import Pair
from transfg_core.report.plots import Band, Curve, Point, Points, draw_curves
from transfg_core.run.reading import Run

PER_ROW = 4  # configurations in one pair of panels
MOST_ROWS = 6
MOST_POINTS = 150  # of one loss curve; more are averaged over windows


class Drawn(NamedTuple):
    """The picture, and what its reader must know."""

    svg: str
    note: str


def draw(cells: Sequence[Cell], columns: Sequence[Column], pairs: Sequence[Pair]) -> Drawn:
    """Draw all cells, or the most accurate ones if there are too many for one picture."""
    groups: dict[tuple[str, int], list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.key, []).append(cell)
    shown = list(groups.values())
    limit = PER_ROW * MOST_ROWS
    notes = ["A line is the mean over seeds, a band their range."]
    if len(shown) > limit:
        best = sorted(shown, key=_accuracy, reverse=True)[:limit]
        notes.append(f"Only the {limit} most accurate of {len(shown)} configurations are drawn.")
        shown = [group for group in shown if group in best]
    backends = list(dict.fromkeys(cell.backend for cell in cells))
    runs = [run for group in shown for cell in group for run in _drawn(cell)]
    splits = dict.fromkeys(run.chosen_on for run in runs)
    width = max((_window(run) for run in runs), default=1)
    if width > 1:
        notes.append(f"The loss is a mean over windows of {width} logged updates.")
    rows = []
    for first in range(0, len(shown), PER_ROW):
        rows.append(
            [
                Curve(
                    _label(cell, columns),
                    _over_seeds(_loss(run, width) for run in _drawn(cell)),
                    _over_seeds(points(run.tracked, "top1", 100) for run in _drawn(cell)),
                    colour,
                    backends.index(cell.backend),
                )
                for colour, group in enumerate(shown[first : first + PER_ROW])
                for cell in group
            ]
        )
    gaps, note = _gaps(pairs)
    return Drawn(draw_curves(rows, " or ".join(splits), gaps), " ".join([*notes, *note]))


def _label(cell: Cell, columns: Sequence[Column]) -> str:
    """The cell's label; a single run has its name instead, if nothing else distinguishes it."""
    text = label(cell, columns)
    number = len(_drawn(cell))
    return f"{text} (n {number})" if number > 1 else text


def _accuracy(group: Sequence[Cell]) -> float:
    means = [sum(values) / len(values) for cell in group if (values := cell.values(TOP1.value))]
    return max(means, default=-1.0)


def _drawn(cell: Cell) -> tuple[Run, ...]:
    """The finished runs; all runs if none is finished."""
    return cell.finished or cell.runs


def _window(run: Run) -> int:
    return max(1, -(-len(run.train) // MOST_POINTS))


def _loss(run: Run, width: int) -> Points:
    """The training loss; means over windows of `width` logged updates, at their last update."""
    found = list(points(run.train, "loss", 1).items())
    windows = [found[k : k + width] for k in range(0, len(found), width)]
    return {window[-1][0]: sum(loss for _, loss in window) / len(window) for window in windows}


def points(records: Sequence[Mapping[str, Any]], key: str, factor: float) -> Points:
    """Update -> value times factor, of the records that have the value."""
    return {
        record["update"]: factor * record[key] for record in records if record.get(key) is not None
    }


def _over_seeds(curves: Iterable[Points]) -> Band:
    """Mean and range at the updates that all curves have."""
    several = list(curves)
    common = [update for update in several[0] if all(update in other for other in several)]
    band = {}
    for update in common:
        values = [curve[update] for curve in several]
        band[update] = Point(sum(values) / len(values), min(values), max(values))
    return band


def _gaps(pairs: Sequence[Pair]) -> tuple[Points | None, list[str]]:
    """Differences of the training losses of the first pair of runs with one seed, and a note.

    There is nothing to draw if the losses are equal.
    """
    for pair in pairs:
        seeds = {replicate(run): run for run in pair.right.runs}
        for run in pair.left.runs:
            other = seeds.get(replicate(run))
            if other is None:
                continue
            left, right = points(run.train, "loss", 1), points(other.train, "loss", 1)
            gaps = {k: abs(left[k] - right[k]) for k in left if k in right}
            names = f"{run.label} and {other.label}"
            if any(gaps.values()):
                return gaps, [f"The lowest panel compares {names}."]
            return None, [f"The training losses of {names} are exactly equal."] if gaps else []
    return None, []
