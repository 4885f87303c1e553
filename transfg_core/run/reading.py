"""Reading of run folders, finished or not."""

import csv
import re
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transfg_core.config.loading import load_config
from transfg_core.config.sections import Config
from transfg_core.errors import UserError
from transfg_core.run.environment import read_starts
from transfg_core.run.lock import is_run
from transfg_core.run.metrics_log import PREDICTIONS, Record, read_records

UNKNOWN = "unknown"
CLASS = re.compile(r"[0-9]{1,6}")  # a label in predictions.csv
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
        return [record for record in self._on(self.chosen_on) if record.get("weights") != "best"]

    @property
    def knn(self) -> dict[str, Any]:
        """How `transfg knn` classified, under dotted keys; empty for a run of training.

        `knn.trained` is false if the features are those of weights that no run has trained.
        """
        final = self.final
        if final.get("method") != "knn":
            return {}
        votes = {f"knn.{name}": final.get(name) for name in ("k", "temperature")}
        return votes | {"knn.trained": final["update"] > 0}

    @property
    def final(self) -> Record:
        """The last evaluation of the test split with the last weights; empty if there was none.

        With averaged weights, these are the last average.
        """
        tests = [record for record in self._on("test") if record.get("weights") != "best"]
        return tests[-1] if tests else {}

    @property
    def best(self) -> Record:
        """The evaluation of the test split with the best weights; empty if there was none.

        The test split itself may have chosen them; see `chosen_on`. Of equal steps, the earliest
        counts.
        """
        tests = self._on("test")
        if self.chosen_on == "validation":
            return next((one for one in reversed(tests) if one.get("weights") == "best"), {})
        scored = [record for record in tests if record.get("top1") is not None]
        return max(scored, key=lambda record: float(record["top1"]), default={})

    def _on(self, split: str) -> list[Record]:
        """The evaluations of a split without test-time augmentation."""
        plain = (record for record in self.evals if not record.get("tta"))
        return [record for record in plain if record.get("split", "test") == split]

    @property
    def trained_by(self) -> str:
        """The backends that made the updates, and the update at which the run took over another.

        For neighbours, the backend that made the features.
        """
        if self.knn:
            return self.backend
        starts = [event for event in self.events if event.get("event") in ("start", "resume")]
        names = [str(start["backend"]) for start in starts if "backend" in start]
        if not names:
            return self.backend
        first = starts[0]["update"]
        changes = [name for k, name in enumerate(names) if k == 0 or name != names[k - 1]]
        return ", then ".join(changes) + (f" from update {first}" if first else "")

    @property
    def images_seen(self) -> int | None:
        """Training images of all updates, with repetitions; None for neighbours."""
        return None if self.knn else self.update * self.config.train.batch_size

    @property
    def device(self) -> dict[str, Any]:
        """`Backend.device_info()` of the last start; empty if there was none."""
        device = self.starts[-1].get("device") if self.starts else None
        return device if isinstance(device, dict) else {}

    @property
    def machines(self) -> frozenset[tuple[str, ...]]:
        """What distinguishes the machines of all starts, with their threads.

        Empty if that of one start is not recorded.
        """
        found = set()
        for start in self.starts:
            device = start.get("device")
            device = device if isinstance(device, dict) else {}
            facts = [start.get("platform"), start.get("cpu_count"), device.get("device")]
            if None in facts:
                return frozenset()
            found.add((*map(str, facts), str(device.get("threads"))))
        return frozenset(found)

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
        """Wall time of all starts; None if that of one is not known, as after a kill."""
        ends = [event for event in self.events if event.get("event") in STATES]
        starts = [event for event in self.events if event.get("event") in ("start", "resume")]
        spent = _present(ends, "seconds")
        return sum(spent) if spent and len(spent) == max(len(starts), len(ends)) else None


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


def run_folders(paths: Sequence[Path]) -> list[Path]:
    """The paths, with the run folders inside in place of a folder that is no run, by name."""
    found = []
    for path in paths:
        inside = sorted(path.iterdir()) if path.is_dir() and not is_run(path) else []
        found += [child for child in inside if is_run(child)] or [path]
    return found


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
                if not all(CLASS.fullmatch(number) for number in fields[1:3]):
                    raise _no_predictions(
                        f"{path}, line {rows.line_num}", "the number of a class", str(fields)
                    )
                # many runs of one data set share these texts
                found[sys.intern(fields[0])] = sys.intern(fields[1]), sys.intern(fields[2])
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
