"""The engine `ray`: runs as tasks of a Ray cluster, or of one that is started here.

All machines need this program and see the same files under the same paths.
"""

import os
import signal
import socket
from pathlib import Path
from typing import Any

from transfg.sweep.engines import Running, thread_overrides
from transfg.sweep.grid import Cell
from transfg.sweep.process import CellProcess, wait_for_end
from transfg_core.closing import Closing
from transfg_core.errors import RunFailed, UserError
from transfg_core.machine import child_environment, install_command


def run_cell(command: list[str], log: str, threads: int | None, folder: str) -> int:
    """The task: one run from its start to its end."""
    with CellProcess(command, Path(log), threads, Path(folder)) as cell:
        return wait_for_end(cell)


def check_reachable(address: str) -> None:
    """Refuse an address HOST:PORT where nobody listens, for which Ray would wait for minutes.

    Raises:
        UserError: nobody does.
    """
    host, _, port = address.rpartition(":")
    if not host or "/" in address or not port.isdigit():
        return  # auto, ray://...
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--address {address}: no Ray cluster answers there ({error}); `ray start --head` "
            "starts one and prints its address"
        ) from error


class RayEngine(Closing):
    """Tasks of a Ray cluster, each with `threads` processors and `gpus` devices."""

    def __init__(self, jobs: int, threads: int | None, gpus: float, address: str | None) -> None:
        """Connect to the cluster at `address`, or start one on this machine.

        Raises:
            UserError: Ray is not installed, or there is no cluster at the address.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it reports nothing to anybody
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # devices stay visible
        try:
            import ray
        except ImportError as error:
            raise UserError(
                f"--engine ray: Ray is not installed; run: {install_command('ray')}"
            ) from error
        self._ray, self.jobs, self._threads = ray, jobs, threads
        processors = threads or 1
        here: dict[str, Any] = {"num_cpus": jobs * processors, "include_dashboard": False}
        if address:
            check_reachable(address)
        try:
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env={"env_vars": {"PYTHONPATH": child_environment()["PYTHONPATH"]}},
                **({} if address else here),
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"--engine ray: {reason}. If the cluster asks for a token, set RAY_AUTH_MODE=token "
                "and have the token in ~/.ray/auth_token"
            ) from error
        # the driver has its own rule for runs that were killed
        self._task = ray.remote(num_cpus=processors, num_gpus=gpus, max_retries=0)(run_cell)

    def start(self, cell: Cell) -> Running:
        """Submit a cell's run; it waits until the cluster has room."""
        command = cell.command(thread_overrides(cell, self._threads))
        log = str(cell.log.absolute())
        return RayRun(self._ray, self._task.remote(command, log, self._threads, os.getcwd()))

    def close(self) -> None:
        """Leave the cluster, or end the one that was started here."""
        self._ray.shutdown()


class RayRun(Closing):
    """One task."""

    def __init__(self, ray: Any, task: Any) -> None:
        self._ray, self._task = ray, task

    def poll(self) -> int | None:
        """The run's exit code; None while it waits or runs.

        Raises:
            RunFailed: the task could not start the run.
        """
        done, _ = self._ray.wait([self._task], timeout=0)
        errors = self._ray.exceptions
        if not done:
            return None
        try:
            return int(self._ray.get(self._task))
        except errors.TaskCancelledError:
            return 128 + signal.SIGTERM
        except errors.RayTaskError as error:
            raise RunFailed(f"ray: {error.cause}") from error
        except errors.RayError:  # the worker or its machine died
            return -signal.SIGKILL

    def stop(self) -> None:
        """Interrupt the task, which stops its run; a task that waits for room is withdrawn."""
        self._ray.cancel(self._task, force=False)

    def close(self) -> None:
        """Nothing to free."""
