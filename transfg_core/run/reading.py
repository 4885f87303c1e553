"""Reading of run folders, finished or not, and comparison of two runs."""

import csv
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from transfg_core.config.loading import differing_keys, load_config
from transfg_core.config.sections import Config
from transfg_core.errors import UserError
from transfg_core.run.environment import read_starts
from transfg_core.run.lock import is_run
from transfg_core.run.metrics_log import PREDICTIONS, Record, read_records

UNKNOWN = "unknown"
NAMES = ("run.name", "run.dir")  # keys that do not belong to the experiment
STATES = {"finish": "finished", "interrupted": "interrupted"}  # events that end a start


@dataclass(frozen=True)
class Run:
    """The content of a run folder, finished or not. Accuracies and part hits are fractions."""

    path: Path
    name: str  # of the folder, which may have been renamed since the run
    config: Config
    train: list[Record]
    evals: list[Record]
    events: list[Record]
    starts: list[dict[str, Any]]  # env.json
    predictions: dict[str, tuple[str, str]]  # image -> (label, predicted)

    @property
    def backend(self) -> str:
        """Name of the twin that made the last update, or `unknown` if none started."""
        newest_first = reversed(self.events)
        return next((str(e["backend"]) for e in newest_first if "backend" in e), UNKNOWN)

    @property
    def weights(self) -> dict[str, Any]:
        """The file of model.pretrained that the run started from; empty if there was none."""
        return next((start["weights"] for start in self.starts if "weights" in start), {})

    @property
    def caution(self) -> str:
        """What a reader of an accuracy on the run's data set must know; empty if nothing."""
        data = self.starts[-1].get("data") if self.starts else None
        return str(data.get("caution", "")) if isinstance(data, dict) else ""

    @property
    def label(self) -> str:
        """Name for legends and tables."""
        return f"{self.name} ({self.backend})"

    @property
    def update(self) -> int:
        """Updates logged so far."""
        records = self.train + self.evals + self.events
        return max((record["update"] for record in records), default=0)

    @property
    def state(self) -> str:
        """`finished`, `interrupted`, or `unfinished` (in progress, or killed)."""
        last = self.events[-1].get("event") if self.events else None
        return STATES.get(str(last), "unfinished")

    @property
    def chosen_on(self) -> str:
        """The split that chose the best step: validation or test."""
        return "test" if self.config.data.validation is None else "validation"

    @property
    def tracked(self) -> list[Record]:
        """The evaluations during training, of the split `chosen_on`."""
        return [record for record in self.evals if record.get("split", "test") == self.chosen_on]

    @property
    def final(self) -> Record:
        """The last evaluation of the test split with the last weights; empty if there was none."""
        return next(self._of_test("last"), {})

    @property
    def best(self) -> Record:
        """The evaluation of the test split with the best weights; empty if there was none.

        The test split itself may have chosen them; see `chosen_on`.
        """
        if self.chosen_on == "validation":
            return next(self._of_test("best"), {})
        scored = [record for record in self.evals if record.get("top1") is not None]
        return max(scored, key=lambda record: record["top1"], default={})

    @property
    def best_top1(self) -> float | None:
        """Top-1 accuracy on the test split with the best weights."""
        return self.best.get("top1")

    def _of_test(self, weights: str) -> Iterator[Record]:
        """The evaluations of the test split with these weights, newest first."""
        for record in reversed(self.evals):
            if (record.get("split", "test"), record.get("weights", "last")) == ("test", weights):
                yield record

    @property
    def images_per_second(self) -> float | None:
        """Median over the logged training updates; ignores slow first updates (compilation)."""
        speeds = _present(self.train, "images_per_second")
        return statistics.median(speeds) if speeds else None

    @property
    def peak_memory_bytes(self) -> float | None:
        """Largest peak of all starts."""
        return max(_present(self.events, "peak_memory_bytes"), default=None)

    @property
    def seconds(self) -> float | None:
        """Wall time of all starts that were not killed."""
        ends = [event for event in self.events if event.get("event") in STATES]
        spent = _present(ends, "seconds")
        return sum(spent) if spent else None


def load_run(path: Path) -> Run:
    """Read the folder of a finished or unfinished run.

    Raises:
        UserError: it is not a run folder, or a file in it is damaged.
    """
    if not is_run(path):
        raise UserError(
            f"{path}: expected the folder of a run, found no config.yaml of a run; check the path"
        )
    records = read_records(path / "metrics.jsonl")
    train, evals, events = (
        [record for record in records if record["kind"] == kind]
        for kind in ("train", "eval", "event")
    )
    return Run(
        path=path,
        name=path.resolve().name,
        config=load_config(path / "config.yaml"),
        train=train,
        evals=evals,
        events=events,
        starts=read_starts(path),
        predictions=_read_predictions(path / "predictions.csv"),
    )


def load_runs(paths: Sequence[Path]) -> list[Run]:
    """Read several run folders; runs that would have the same label get their folder's path.

    Raises:
        UserError: a folder is not that of a run, is damaged, or is given twice.
    """
    seen: dict[Path, Path] = {}
    for path in paths:
        if path.resolve() in seen:
            raise UserError(
                f"{path}: is the same run folder as {seen[path.resolve()]}; give each one once"
            )
        seen[path.resolve()] = path
    runs = [load_run(path) for path in paths]
    labels = Counter(run.label for run in runs)
    return [replace(run, name=str(run.path)) if labels[run.label] > 1 else run for run in runs]


def real_differences(left: Run, right: Run, but: tuple[str, ...] = ()) -> list[str]:
    """The differences of two configurations, as `key: left -> right`.

    Names, folders and the keys in `but` are left out.
    """
    lines = differing_keys(left.config, right.config)
    return [line for line in lines if line.partition(":")[0] not in (*NAMES, *but)]


def over_seeds(runs: Sequence[Run]) -> list[list[Run]]:
    """Groups of at least two finished runs on one backend that differ only in the seed."""
    groups: list[list[Run]] = []
    for run in (run for run in runs if run.state == "finished"):
        for group in groups:
            differences = [real_differences(run, member) for member in group]
            only_seed = all(
                len(lines) == 1 and lines[0].startswith("run.seed:") for lines in differences
            )
            if only_seed and run.backend == group[0].backend:
                group.append(run)
                break
        else:
            groups.append([run])
    return [group for group in groups if len(group) > 1]


class Agreement(NamedTuple):
    """Final predictions of two runs, compared on the images that both predicted."""

    images: int
    same: int  # both predict the same class, right or wrong
    only_left: int  # only the left run is right
    only_right: int

    @property
    def difference(self) -> float:
        """Accuracy of the left run minus that of the right one, as a fraction."""
        return (self.only_left - self.only_right) / self.images


def agreement(left: Run, right: Run) -> Agreement | None:
    """Compare final predictions image by image; None if the runs have no image in common.

    Raises:
        UserError: the runs give one image different labels.
    """
    counts = dict.fromkeys(Agreement._fields, 0)
    for image in left.predictions.keys() & right.predictions.keys():
        label, left_class = left.predictions[image]
        right_label, right_class = right.predictions[image]
        if label != right_label:
            raise UserError(
                f"{left.path} and {right.path}: image {image} has label {label} in one and "
                f"{right_label} in the other, expected equal labels; compare runs on the same data"
            )
        counts["images"] += 1
        counts["same"] += left_class == right_class
        counts["only_left"] += left_class == label != right_class
        counts["only_right"] += right_class == label != left_class
    return Agreement(**counts) if counts["images"] else None


def _present(records: Sequence[Record], key: str) -> list[float]:
    return [record[key] for record in records if record.get(key) is not None]


def _read_predictions(path: Path) -> dict[str, tuple[str, str]]:
    """Dict: image -> (label, predicted class); empty if there is no such file."""
    found: dict[str, tuple[str, str]] = {}
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            if tuple(header) != PREDICTIONS:
                raise _no_predictions(f"{path}, line 1", ", ".join(PREDICTIONS), str(header))
            for fields in rows:
                if len(fields) != len(PREDICTIONS):
                    raise _no_predictions(
                        f"{path}, line {rows.line_num}", "five fields", str(fields)
                    )
                found[fields[0]] = fields[1], fields[2]
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _no_predictions(str(path), "predictions", str(error)) from error
    if not found:
        raise _no_predictions(str(path), "predictions", "none")
    return found


def _no_predictions(where: str, expected: str, found: str) -> UserError:
    return UserError(
        f"{where}: expected {expected}, found {found[:200]}; restore the file, or remove it to "
        "report without the predictions"
    )
