"""Accuracy class by class, and averages over classes.

They come from the predictions of the final evaluation. C classes, B images.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean

import numpy as np
from numpy.typing import NDArray

from transfg_core.checkpoints.file import load_metadata
from transfg_core.checkpoints.training import run_checkpoints
from transfg_core.errors import UserError
from transfg_core.report.axes import AXES
from transfg_core.report.cells import Cell, Column, cautions, mean_text
from transfg_core.report.tables import Table
from transfg_core.run.reading import Run

MOST_CLASSES = 10  # rows on the page; the CSV file has all
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Group:
    """The cells of one data set: their runs have the same C classes."""

    name: str
    classes: tuple[str, ...]
    cells: tuple[Cell, ...]

    @cached_property
    def images(self) -> NDArray[np.int64]:
        """(C,) test images of each class, of the cell with the most."""
        most: NDArray[np.int64] = np.max([self.images_of(cell) for cell in self.cells], axis=0)
        return most

    def images_of(self, cell: Cell) -> NDArray[np.int64]:
        """(C,) test images of each class: the sum over folds, each of its first run."""
        folds = {run.config.data.fold: run for run in reversed(predicting(cell))}
        each = [counts(run, len(self.classes))[1] for run in folds.values()]
        total: NDArray[np.int64] = np.sum(each, axis=0)
        return total

    def recalls(self, cell: Cell) -> Floats:
        """(S, C) share of each class's images that each of S runs classifies correctly."""
        rows = []
        for run in predicting(cell):
            right, images, _ = counts(run, len(self.classes))
            rows.append(right / np.where(images, images, np.nan))
        return np.array(rows, dtype=float)


def predicting(cell: Cell) -> list[Run]:
    """The finished runs that have predictions."""
    return [run for run in cell.finished if run.predictions]


def counts(run: Run, classes: int) -> tuple[NDArray[np.int64], ...]:
    """Correct images, images, and predictions of each class, each (C,)."""
    table = np.array([pair for pair in run.predictions.values()], dtype=np.int64)
    labels, guesses = table[:, 0], table[:, 1]
    right = np.bincount(labels[labels == guesses], minlength=classes)
    return right, np.bincount(labels, minlength=classes), np.bincount(guesses, minlength=classes)


def over(rows: Floats) -> Floats:
    """(S, C) -> (C,): means without NaN; NaN for a class without images."""
    present = np.isfinite(rows)
    means: Floats = np.full(rows.shape[1], np.nan)
    totals = np.where(present, rows, 0).sum(axis=0)
    return np.divide(totals, present.sum(axis=0), out=means, where=present.any(axis=0))


def groups_of(cells: Sequence[Cell]) -> list[Group]:
    """Cells with predictions by data set and classes."""
    found: dict[tuple[str, tuple[str, ...]], list[Cell]] = {}
    for cell in cells:
        runs = predicting(cell)
        if runs:
            key = AXES[0].value(cell.settings), class_names(runs[0])
            found.setdefault(key, []).append(cell)
    return [Group(name, classes, tuple(own)) for (name, classes), own in found.items()]


def class_names(run: Run) -> tuple[str, ...]:
    """The names of the classes in the order of labels: from a checkpoint of the run.

    Without a checkpoint, a class has the name of the folder that holds all of its images, or else
    its label.
    """
    labels = [max(int(label), int(guess)) for label, guess in run.predictions.values()]
    size = max([*labels, (run.config.model.classes or 1) - 1]) + 1
    for path in run_checkpoints(run.path):
        try:
            names = load_metadata(path).get("dataset", {}).get("classes")
        except UserError:  # a damaged checkpoint costs the names, not the report
            continue
        if isinstance(names, list) and len(names) == size:
            return tuple(map(str, names))
    folders: list[set[str]] = [set() for _ in range(size)]
    for image, (label, _) in run.predictions.items():
        folders[int(label)].add(os.path.dirname(image))
    names = [next(iter(own)) if len(own) == 1 else "" for own in folders]
    unique = len(set(names) - {""}) == sum(map(bool, names))
    return tuple((unique and name) or str(label) for label, name in enumerate(names))


def macro_table(groups: Sequence[Group], columns: Sequence[Column]) -> Table:
    """Averages over classes of each cell, and its weakest class."""
    header = [column.name for column in columns]
    header += ["n", "top-1 %", "mean class accuracy %", "mean class F1 %", "weakest class", "%"]
    rows = []
    for group in groups:
        for cell in group.cells:
            recalls = group.recalls(cell)
            means = over(recalls)
            weakest = int(np.nanargmin(means))
            rows.append(
                [
                    *(column.value(cell) for column in columns),
                    str(len(recalls)),
                    mean_text([100 * micro(run) for run in predicting(cell)]),
                    mean_text([100 * float(np.nanmean(row)) for row in recalls]),
                    mean_text(
                        [100 * macro_f1(run, len(group.classes)) for run in predicting(cell)]
                    ),
                    group.classes[weakest],
                    f"{100 * means[weakest]:.2f}",
                ]
            )
    note = (
        "Of the final predictions, over n runs. Each class counts the same in the averages over "
        "classes, however many images it has. A class without predictions has F1 0."
    )
    first = len(columns)
    right = [*range(first, first + 4), first + 5]
    return Table("Averages over classes", with_cautions(note, groups), header, rows, right)


def with_cautions(note: str, groups: Sequence[Group]) -> str:
    """The note, and the cautions of the data sets."""
    return " ".join([note, *cautions([cell for group in groups for cell in group.cells])])


def micro(run: Run) -> float:
    """Share of all images that are classified correctly."""
    return mean(label == guess for label, guess in run.predictions.values())


def macro_f1(run: Run, classes: int) -> float:
    """Mean over classes with images of 2 TP / (images + predictions)."""
    right, images, guesses = counts(run, classes)
    used = images > 0
    return float((2 * right[used] / (images[used] + guesses[used])).mean())


def weakest_table(groups: Sequence[Group]) -> Table:
    """The classes with the lowest accuracy on each data set, over all cells."""
    rows = []
    for group in groups:
        over_cells = np.array([over(group.recalls(cell)) for cell in group.cells])
        means = over(over_cells)
        order = [k for k in np.argsort(means, kind="stable").tolist() if group.images[k]]
        for k in order[:MOST_CLASSES]:
            low, high = 100 * np.nanmin(over_cells[:, k]), 100 * np.nanmax(over_cells[:, k])
            numbers = [f"{100 * means[k]:.2f}", f"{low:.2f}", f"{high:.2f}"]
            rows.append([group.name, group.classes[k], str(group.images[k]), *numbers])
    header = ["data set", "class", "test images", "mean accuracy %", "lowest %", "highest %"]
    note = (
        f"The {MOST_CLASSES} classes of each data set with the lowest accuracy: mean, lowest and "
        "highest over the configurations. tables/per_class.csv has every class and configuration."
    )
    return Table("Weakest classes", with_cautions(note, groups), header, rows, range(2, 6))


def per_class_rows(groups: Sequence[Group], columns: Sequence[Column]) -> list[list[object]]:
    """Rows for per_class.csv, the header first; accuracies in percent."""
    header: list[object] = [column.name for column in columns]
    header += ["data_set", "label", "class", "test_images", "n", "accuracy", "sd"]
    rows = [header]
    for group in groups:
        for cell in group.cells:
            recalls, images = 100 * group.recalls(cell), group.images_of(cell)
            for k, name in enumerate(group.classes):
                own = recalls[np.isfinite(recalls[:, k]), k]  # of the runs with such images
                if not own.size:
                    continue
                spread = round(float(own.std(ddof=1)), 4) if own.size > 1 else None
                accuracy = round(float(own.mean()), 4)
                labels = [column.value(cell) for column in columns]
                numbers = [int(images[k]), own.size, accuracy, spread]
                rows.append([*labels, group.name, k, name, *numbers])
    return rows
