"""The numbers of a run that reports show, in the units in which they show them."""

from collections.abc import Callable
from typing import NamedTuple

from transfg_core.report.cells import Value
from transfg_core.run.reading import Run


class Measure(NamedTuple):
    """One number of a run: its name for people, its name in CSV files, value and digits."""

    name: str
    key: str
    value: Callable[[Run], Value]
    form: str = ".2f"


def best_on(chosen_on: str) -> Callable[[Run], Value]:
    """Top-1 accuracy in percent of the best step, of runs whose best step this split chose."""

    def value(run: Run) -> Value:
        return times(100, run.best.get("top1")) if run.chosen_on == chosen_on else None

    return value


def times(factor: float, value: Value) -> Value:
    """The product; None stays None."""
    return None if value is None else factor * value


TOP1 = Measure("last top-1 %", "top1", lambda run: times(100, run.final.get("top1")))
TOP5 = Measure("last top-5 %", "top5", lambda run: times(100, run.final.get("top5")))
BEST = {
    "test": Measure("best top-1 % (chosen on test)", "best_top1_on_test", best_on("test")),
    "validation": Measure(
        "best top-1 % (chosen on validation)", "best_top1_on_validation", best_on("validation")
    ),
}
HOURS = Measure("hours", "hours", lambda run: times(1 / 3600, run.seconds))
SEEN = Measure("images seen", "images_seen", lambda run: run.images_seen, ".0f")
SPEED = Measure("images/s", "images_per_second", lambda run: run.images_per_second, ".1f")
MEMORY = Measure(
    "memory MiB", "peak_memory_mib", lambda run: times(2**-20, run.peak_memory_bytes), ".0f"
)
PART_HITS = Measure("part hits %", "part_hit", lambda run: times(100, run.final.get("part_hit")))
LOSS = Measure("test loss", "test_loss", lambda run: run.final.get("loss"), ".4f")
MEASURES = (TOP1, *BEST.values(), TOP5, LOSS, PART_HITS, HOURS, SEEN, SPEED, MEMORY)
