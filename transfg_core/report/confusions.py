"""The pairs of classes that the runs of a data set confuse."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from transfg_core.report.per_class import Group, predicting, with_cautions
from transfg_core.report.tables import Table

MOST_PAIRS = 10  # rows on the page; the CSV file has all


@dataclass(frozen=True)
class Confusion:
    """Images of one class that runs take for another; `examples` are ids, the most often first."""

    label: int
    guess: int
    share: float  # of the class's images, mean over runs
    runs: int  # in which it occurs
    examples: tuple[str, ...]


def confusions(group: Group) -> list[Confusion]:
    """All confusions of a data set over all runs, the largest share first."""
    runs = [run for cell in group.cells for run in predicting(cell)]
    total: Counter[tuple[str, str]] = Counter()
    occurring: Counter[tuple[str, str]] = Counter()
    images: Counter[str] = Counter()
    examples: dict[tuple[str, str], Counter[str]] = {}
    for run in runs:
        images.update(label for label, _ in run.predictions.values())
        wrong = [(one, pair) for one, pair in run.predictions.items() if pair[0] != pair[1]]
        total.update(pair for _, pair in wrong)
        occurring.update({pair for _, pair in wrong})
        for image, pair in wrong:
            examples.setdefault(pair, Counter())[image] += 1
    found = [
        Confusion(
            int(pair[0]),
            int(pair[1]),
            count / images[pair[0]],
            occurring[pair],
            tuple(sorted(examples[pair], key=lambda image: (-examples[pair][image], image))),
        )
        for pair, count in total.items()
    ]
    return sorted(found, key=lambda one: (-one.share, one.label, one.guess))


def confusion_table(groups: Sequence[Group]) -> Table:
    """The pairs of classes that the runs of each data set confuse most."""
    rows = []
    for group in groups:
        runs = sum(len(predicting(cell)) for cell in group.cells)
        for one in confusions(group)[:MOST_PAIRS]:
            names = [group.name, group.classes[one.label], group.classes[one.guess]]
            rows.append([*names, f"{100 * one.share:.2f}", f"{one.runs} of {runs}"])
    header = ["data set", "class", "taken for", "% of its images", "in runs"]
    note = (
        "The share of a class's test images that the runs take for the other class, mean over all "
        "runs. tables/confusions.csv has every pair."
    )
    return Table("Confused classes", with_cautions(note, groups), header, rows, (3, 4))


def confusion_rows(groups: Sequence[Group]) -> list[list[object]]:
    """Rows for confusions.csv, the header first."""
    rows: list[list[object]] = [["data_set", "class", "taken_for", "share_percent", "in_runs"]]
    for group in groups:
        rows += [
            [
                group.name,
                group.classes[c.label],
                group.classes[c.guess],
                round(100 * c.share, 4),
                c.runs,
            ]
            for c in confusions(group)
        ]
    return rows
