"""The engine `slurm`: runs as jobs of a Slurm cluster, by submitit.

All machines need this program and see the same files under the same paths. A job outlives a driver
that is killed; the next driver finds its number in `.slurm/jobs.json` and waits for it.
"""

import json
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transfg.sweep.engines import Running, thread_overrides
from transfg.sweep.grid import Cell
from transfg.sweep.process import CellProcess, wait_for_end
from transfg_core.checkpoints.file import replace_file
from transfg_core.closing import Closing
from transfg_core.config.yaml_text import parse_yaml
from transfg_core.errors import RunFailed, UserError
from transfg_core.machine import install_command

JOBS = "jobs.json"


def sbatch_settings(items: Sequence[str]) -> dict[str, Any]:
    """The settings of `--slurm KEY=VALUE`, with numbers as numbers.

    Raises:
        UserError: an item does not have this form.
    """
    settings = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not (key and equals and text):
            raise UserError(f"--slurm {item}: expected KEY=VALUE, such as time=240")
        settings[key] = parse_yaml(text, f"--slurm {item}")[0]
    return settings


def read_numbers(path: Path) -> dict[str, str]:
    """Cell -> number of its newest job; empty if no job was submitted yet.

    Raises:
        UserError: the file is damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        found = error
    if not isinstance(found, dict):
        raise UserError(
            f"{path}: expected the numbers of the sweep's jobs, found {found}; cancel jobs that "
            "squeue still shows, and delete the file"
        )
    return {str(name): str(number) for name, number in found.items()}


class SlurmTask:
    """What a job does: one run from its start to its end."""

    def __init__(self, command: list[str], log: Path, threads: int | None, folder: Path) -> None:
        self._call = command, log, threads, folder
        self._cell: CellProcess | None = None

    def __call__(self) -> int:
        """Run it and return its exit code."""
        with CellProcess(*self._call) as self._cell:
            return wait_for_end(self._cell)

    def checkpoint(self) -> Any:
        """Before the time of the job is over: stop the run, and submit the same command again."""
        from submitit.helpers import DelayedSubmission

        if self._cell is not None:
            self._cell.stop()
            self._cell.process.wait()
        return DelayedSubmission(SlurmTask(*self._call))


class SlurmEngine(Closing):
    """Jobs with `threads` processors each; `settings` are options of sbatch."""

    def __init__(
        self,
        jobs: int,
        threads: int | None,
        folder: Path,
        settings: Mapping[str, Any],
        cluster: str = "slurm",
    ) -> None:
        """Jobs that have their scripts and output in `folder`; tests use other clusters.

        Raises:
            UserError: submitit or Slurm is not installed, or it does not know a setting.
        """
        try:
            import submitit
        except ImportError as error:
            raise UserError(
                f"--engine slurm: submitit is not installed; run: {install_command('slurm')}"
            ) from error
        self.jobs, self._threads, self._folder = jobs, threads, folder.absolute()
        try:
            self._executor = submitit.AutoExecutor(self._folder, cluster=cluster)
            self._executor.update_parameters(
                cpus_per_task=threads or 1,
                # since Slurm 22.05 srun does not take this number from sbatch
                slurm_srun_args=[f"--cpus-per-task={threads or 1}"],
                **{f"slurm_{key}": value for key, value in settings.items()},
            )
        except (RuntimeError, NameError, ValueError) as error:
            raise UserError(f"--engine slurm: {error}") from error
        self._job_class = self._executor._executor.job_class
        self._numbers = read_numbers(self._folder / JOBS)

    def start(self, cell: Cell) -> Running:
        """Submit a job for a cell, or find the one that an earlier driver submitted.

        Raises:
            RunFailed: Slurm refused the job.
        """
        earlier = self._numbers.get(cell.name)
        if earlier:
            job = self._job_class(self._folder, earlier)
            if not job.done(force_check=True):
                return SlurmRun(job)
        command = cell.command(thread_overrides(cell, self._threads))
        task = SlurmTask(command, cell.log.absolute(), self._threads, Path.cwd())
        self._executor.update_parameters(name=cell.name)
        try:
            job = self._executor.submit(task)
        except Exception as error:  # submitit has several kinds
            raise RunFailed(f"sbatch: {error}") from error
        self._numbers[cell.name] = str(job.job_id)
        replace_file(self._folder / JOBS, (json.dumps(self._numbers, indent=1) + "\n").encode())
        return SlurmRun(job)

    def close(self) -> None:
        """Nothing to free: jobs that wait or run are Slurm's."""


class SlurmRun(Closing):
    """One job."""

    def __init__(self, job: Any) -> None:
        self._job = job

    def poll(self) -> int | None:
        """The run's exit code; None while the job waits or runs.

        Raises:
            RunFailed: the job could not start the run.
        """
        if not self._job.done():
            return None
        error = self._job.exception()
        if error is None:
            return int(self._job.result())
        if type(error).__name__ == "FailedJobError":
            trace = str(error).split("-" * 22)[1]  # submitit's frame around it
            raise RunFailed(f"job {self._job.job_id}: {trace.strip().splitlines()[-1]}")
        return -signal.SIGKILL  # ended without a result: cancelled, or its machine failed

    def stop(self) -> None:
        """Cancel the job: Slurm sends SIGTERM, and SIGKILL after its own delay."""
        self._job.cancel(check=False)

    def close(self) -> None:
        """Nothing to free."""
