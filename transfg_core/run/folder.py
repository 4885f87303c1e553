"""The folder of one run: its files, its lock, and what a resumed run keeps.

    runs/<name>/
      config.yaml          fully resolved; repeats the run
      env.json             one record per start: versions, machine, device, commit, command
      metrics.jsonl        one record per line (transfg_core.run.metrics_log)
      summary.csv          one row per evaluation
      predictions.csv      the final evaluation, image by image
      split.csv            which image is for what, if data.split drew the split
      checkpoints/         last, best and step_000100 .safetensors
      tensorboard/         event files, if tensorboardX is installed

metrics.jsonl is the source; summary.csv and the TensorBoard files are views of it. A killed run may
have logged more updates than it saved. A resumed run therefore cuts metrics.jsonl back to the
update of its checkpoint.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Literal

from numpy.typing import NDArray

from transfg_core.backend import Array
from transfg_core.checkpoints import file as checkpoint
from transfg_core.checkpoints.training import run_checkpoints
from transfg_core.checkpoints.weight_file import Origin
from transfg_core.closing import Closing
from transfg_core.config.loading import dump_config, load_config
from transfg_core.config.sections import Config
from transfg_core.errors import RunFailed, UserError
from transfg_core.run.environment import describe_environment, read_starts
from transfg_core.run.lock import HEADER, is_run, lock_folder, refuse_if_used
from transfg_core.run.metrics_log import (
    SUMMARY,
    Summary,
    clean,
    csv_text,
    json_line,
    prediction_rows,
    read_records,
)
from transfg_core.run.tensorboard import ScalarWriter

# The files that a run writes besides config.yaml and its checkpoints.
OURS = (
    "env.json",
    "metrics.jsonl",
    "summary.csv",
    "predictions.csv",
    "split.csv",
    "tensorboard/events.out.tfevents.*",
)

Which = Literal["last", "best"] | int  # a number: the checkpoint saved after that update


class RunFolder(Closing):
    """One run's folder, locked against a second writer until `close`."""

    def __init__(self, path: Path, config: Config, lock: IO[bytes]) -> None:
        """Use `create` or `open`."""
        self.path = path
        self.config = config
        self._lock = lock
        self._saved: tuple[Path, int] | None = None  # the newest intact checkpoint and its update
        self._summary = Summary()
        self._scalars = ScalarWriter(path / "tensorboard")

    @classmethod
    def create(cls, config: Config, overwrite: bool = False) -> "RunFolder":
        """Create the folder `run.dir`/`run.name`; with `overwrite`, delete an existing run first.

        This deletes only files that a run writes, and only if the folder has a config.yaml of this
        program.

        Raises:
            UserError: the folder is not empty, is not a run, or another process is writing it.
            RunFailed: the disk is full.
        """
        path = Path(config.run.dir) / config.run.name
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{path}: cannot make the run folder: {error.strerror}") from error
        refuse_if_used(path, overwrite)
        run = cls(path, config, lock_folder(path))
        try:
            refuse_if_used(path, overwrite)  # again: another process may have been faster
            run.start_over(config)
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Open an existing run to resume it; call `rewind` before the first `log`.

        Raises:
            UserError: there is no run, its config.yaml is damaged, or another process is writing
                it.
        """
        if not is_run(path):
            raise UserError(
                f"{path}: expected the folder of a run, found no config.yaml of a run; "
                "check the path, or train without --resume"
            )
        lock = lock_folder(path)
        try:
            return cls(path, load_config(path / "config.yaml"), lock)
        except BaseException:
            lock.close()
            raise

    def start_over(self, config: Config) -> None:
        """Delete what the run wrote, and write its configuration.

        Raises:
            RunFailed: the disk is full.
        """
        others = [file for pattern in OURS for file in self.path.glob(pattern)]
        # checkpoints first: without one, nothing resumes a run that is half deleted
        for old_file in (*run_checkpoints(self.path), *others):
            old_file.unlink()
        self.write_config(config)
        (self.path / "checkpoints").mkdir(exist_ok=True)

    def write_config(self, config: Config) -> None:
        """Write config.yaml; a resumed run may have another name and other folders.

        Raises:
            RunFailed: the disk is full.
        """
        self.config = config
        text = HEADER + dump_config(config)
        checkpoint.replace_file(self.path / "config.yaml", text.encode())

    def record_environment(
        self,
        device: Mapping[str, Any],
        command: Sequence[str],
        data: Mapping[str, Any],
        weights: Origin | None = None,
    ) -> None:
        """Append this start to env.json: machine, `Backend.device_info()`, command and data.

        `data` counts the files that were read and left out. `weights` is the file of
        model.pretrained, if the start read it.
        """
        record = describe_environment(device, command, data)
        if weights:
            record["weights"] = asdict(weights)
        starts = clean([*read_starts(self.path), record])
        text = json.dumps(starts, indent=2) + "\n"
        checkpoint.replace_file(self.path / "env.json", text.encode())

    def write_split(self, text: str) -> None:
        """Write split.csv, the list of a drawn split."""
        checkpoint.replace_file(self.path / "split.csv", text.encode())

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one record with `kind`, `update` and more; non-finite numbers become null.

        Raises:
            RunFailed: the disk is full.
        """
        sound = clean(record)
        assert sound["kind"] in ("train", "eval", "event") and sound["update"] >= 0
        try:
            _append(self.path / "metrics.jsonl", json_line(sound))
            row = self._summary.row(sound)
            if row is not None:
                summary = self.path / "summary.csv"
                _append(summary, csv_text([row] if summary.exists() else [SUMMARY, row]))
            self._scalars.log(sound)
        except OSError as error:
            raise RunFailed(f"{self.path}: cannot write the metrics: {error.strerror}") from error

    def rewind(self, source: Path, update: int, evaluated: int) -> None:
        """Keep what belongs to the checkpoint `source`, the state after update `update`.

        Later records and numbered checkpoints are deleted, and an incomplete last line of
        metrics.jsonl. So are the evaluations that the resumed run makes again: those after update
        `evaluated`, and those of the test split that end a run with a validation split. `best` is
        kept, even if it is later: its parameters can still be used.

        Raises:
            UserError: metrics.jsonl is damaged.
        """
        records = read_records(self.path / "metrics.jsonl")
        limits = {"eval": evaluated}
        kept = [row for row in records if row["update"] <= limits.get(row["kind"], update)]
        if self.config.data.validation is not None:
            kept = [row for row in kept if (row["kind"], row.get("split")) != ("eval", "test")]
        self._scalars.close()
        self._summary = Summary()
        rows = [row for row in map(self._summary.row, kept) if row is not None]
        lines = "".join(map(json_line, kept))
        checkpoint.replace_file(self.path / "metrics.jsonl", lines.encode())
        checkpoint.replace_file(self.path / "summary.csv", csv_text([SUMMARY, *rows]).encode())
        for number, path in self._numbered():
            if number > update:
                path.unlink()
        self._scalars = ScalarWriter(self.path / "tensorboard", purge_step=update + 1)
        self._saved = source, update

    def checkpoint_path(self, which: Which) -> Path:
        """The path of a checkpoint, which may not exist yet."""
        name = f"step_{which:06d}" if isinstance(which, int) else which
        return self.path / "checkpoints" / f"{name}.safetensors"

    def save(self, which: Which, arrays: Mapping[str, Array], metadata: Mapping[str, Any]) -> None:
        """Write one checkpoint; keep only the newest `train.keep` numbered checkpoints.

        Log the records of an update before saving, and save `last` after the other checkpoints.
        Then a resumed run repeats everything that a kill in between loses.

        Raises:
            RunFailed: the disk is full; the older checkpoint is intact.
        """
        path = self.checkpoint_path(which)
        checkpoint.save(path, arrays, metadata)
        self._saved = path, metadata["position"]["update"]
        for _, path in self._numbered()[: -self.config.train.keep]:
            path.unlink()

    @property
    def saved_update(self) -> int | None:
        """The update of the newest checkpoint; None if there is none."""
        return self._saved and self._saved[1]

    def describe_saved(self) -> str:
        """Which checkpoint is the newest intact one, as a sentence without its full stop."""
        if self._saved is None:
            return "no checkpoint is saved"
        path, update = self._saved
        return f"{path} holds the state after update {update}"

    def write_predictions(
        self, images: Sequence[str], labels: NDArray[Any], logits: NDArray[Any]
    ) -> None:
        """Write predictions.csv of the final evaluation; see `metrics_log.prediction_rows`."""
        text = csv_text(prediction_rows(images, labels, logits))
        checkpoint.replace_file(self.path / "predictions.csv", text.encode())

    def close(self) -> None:
        """Flush everything and release the lock."""
        try:
            with suppress(OSError):  # a full disk loses only curves, which metrics.jsonl also has
                self._scalars.close()
        finally:
            self._lock.close()

    def _numbered(self) -> list[tuple[int, Path]]:
        """The numbered checkpoints, oldest first."""
        numbers = ((path.stem.removeprefix("step_"), path) for path in run_checkpoints(self.path))
        return sorted((int(digits), path) for digits, path in numbers if digits.isdecimal())


def _append(path: Path, text: str) -> None:
    """Append to a file; if the disk is full, leave no part of the text in it."""
    with open(path, "ab", buffering=0) as file:
        size = file.tell()
        data = text.encode()
        try:
            while data:
                data = data[file.write(data) :]
        except OSError:
            with suppress(OSError):
                file.truncate(size)
            raise
