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

import fcntl
import json
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Literal

from numpy.typing import NDArray

from transfg_core.backend import Array
from transfg_core.checkpoints import file as checkpoint
from transfg_core.closing import Closing
from transfg_core.config.loading import dump_config, load_config
from transfg_core.config.sections import Config
from transfg_core.errors import RunFailed, UserError
from transfg_core.run.environment import describe_environment, read_starts
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

HEADER = "# A run of TransFG, fully resolved: train with this file to repeat it.\n"
LOCK = ".lock"

# The files that a run writes besides config.yaml. `overwrite` deletes these and no others.
OURS = (
    "env.json",
    "metrics.jsonl",
    "summary.csv",
    "predictions.csv",
    "split.csv",
    "checkpoints/*.safetensors",
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
        lock = _lock(path)
        try:
            refuse_if_used(path, overwrite)  # again: another process may have been faster
            for old_file in [file for pattern in OURS for file in path.glob(pattern)]:
                old_file.unlink()
            text = HEADER + dump_config(config)
            checkpoint.replace_file(path / "config.yaml", text.encode())
            (path / "checkpoints").mkdir(exist_ok=True)
        except BaseException:
            lock.close()
            raise
        return cls(path, config, lock)

    @classmethod
    def open(cls, path: Path, config: Config | None = None) -> "RunFolder":
        """Open an existing run to resume it; call `rewind` before the first `log`.

        `config` is the configuration of the resumed run, if it differs from config.yaml.

        Raises:
            UserError: there is no run, its config.yaml is damaged, or another process is writing
                it.
        """
        if not is_run(path):
            raise UserError(
                f"{path}: expected the folder of a run, found no config.yaml of a run; "
                "check the path, or train without --resume"
            )
        saved = load_config(path / "config.yaml")
        return cls(path, config or saved, _lock(path))

    def record_environment(
        self, device: Mapping[str, Any], command: Sequence[str], data: Mapping[str, Any]
    ) -> None:
        """Append this start to env.json: machine, `Backend.device_info()`, command and data."""
        starts = clean([*read_starts(self.path), describe_environment(device, command, data)])
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
            with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
                file.write(json_line(sound))
            row = self._summary.row(sound)
            if row is not None:
                with open(self.path / "summary.csv", "a", encoding="utf-8") as file:
                    file.write(csv_text([row] if file.tell() else [SUMMARY, row]))
            self._scalars.log(sound)
        except OSError as error:
            raise RunFailed(f"{self.path}: cannot write the metrics: {error.strerror}") from error

    def rewind(self, update: int) -> None:
        """Delete records and numbered checkpoints that are later than update `update`.

        An incomplete last line of metrics.jsonl goes as well. `best` is kept, even if it is
        later: its parameters can still be used.

        Raises:
            UserError: metrics.jsonl is damaged.
        """
        records = read_records(self.path / "metrics.jsonl")
        kept = [record for record in records if record["update"] <= update]
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
        checkpoint.save(self.checkpoint_path(which), arrays, metadata)
        for _, path in self._numbered()[: -self.config.train.keep]:
            path.unlink()

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
        paths = (self.path / "checkpoints").glob("step_*.safetensors")
        numbers = ((path.stem.removeprefix("step_"), path) for path in paths)
        return sorted((int(digits), path) for digits, path in numbers if digits.isdecimal())


def is_run(path: Path) -> bool:
    """Whether the folder holds a config.yaml that a run wrote."""
    try:
        return (path / "config.yaml").read_bytes().startswith(HEADER.encode())
    except OSError:
        return False


def refuse_if_used(path: Path, overwrite: bool) -> None:
    """Refuse to start a run at `path` unless it is empty, or a run that may be overwritten.

    Raises:
        UserError: the folder holds other files, or a run without `overwrite`.
    """
    try:
        used = any(entry.name != LOCK for entry in path.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{path}: cannot make the run folder: {error.strerror}") from error
    if used and not is_run(path):
        raise UserError(
            f"{path}: expected an empty folder or a run of this program, found other files and "
            "no config.yaml of a run; --overwrite deletes nothing but a run: choose another "
            "run.name, or empty the folder yourself"
        )
    if used and not overwrite:
        raise UserError(
            f"{path}: the run folder is not empty; --resume resumes the run, --overwrite "
            "deletes it, run.name=... starts another run"
        )


def _lock(path: Path) -> IO[bytes]:
    """Lock the folder until the returned file is closed or the process ends."""
    try:
        file = open(path / LOCK, "a+b", buffering=0)
    except OSError as error:
        raise UserError(f"{path}: cannot write the run folder: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    except OSError as error:
        file.seek(0)
        holder = file.read().decode(errors="replace").strip() or "another process"
        file.close()
        busy = isinstance(error, BlockingIOError)
        raise UserError(
            f"{path}: {holder} is writing this run; stop it, or choose another run.name"
            if busy
            else f"{path / LOCK}: cannot lock the run folder: {error.strerror}"
        ) from error
    return file
