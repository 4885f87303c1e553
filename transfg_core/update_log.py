"""The log of a run's updates, and the check that their numbers are finite."""

import math
from typing import Any

from transfg_core.backend import Backend
from transfg_core.errors import Diverged
from transfg_core.run.folder import RunFolder
from transfg_core.run.progress import Progress


class UpdateLog:
    """Fetches each update's numbers one update late, so that the device never waits for the host.

    The host checks for NaN here, because kernels compiled with fast maths may miss it.
    """

    def __init__(self, backend: Backend, run: RunFolder, progress: Progress) -> None:
        self._backend, self._run, self._progress = backend, run, progress
        self._pending: tuple[Any, dict[str, Any]] | None = None

    def put(self, handle: Any, record: dict[str, Any]) -> None:
        """Remember an issued update; call `flush` for the previous one first."""
        assert self._pending is None
        self._pending = handle, record

    def flush(self) -> None:
        """Wait for the pending update, if any, and log it.

        Raises:
            Diverged: its loss or gradient norm is not finite.
        """
        if self._pending is None:
            return
        handle, record = self._pending
        self._pending = None
        values = {name: float(value) for name, value in self._backend.fetch(handle).items()}
        record = {"kind": "train"} | record | values
        self._run.log(record)
        self._progress.updated(record)
        broken = [name for name in ("loss", "grad_norm") if not math.isfinite(values[name])]
        if broken:
            raise Diverged(
                f"update {record['update']}: {broken[0]} is {values[broken[0]]}, expected a finite "
                f"number; {self._run.describe_saved()}. Start another run"
                + (", also from there with --resume-from," if self._run.saved_update else "")
                + " with a smaller optim.lr, a longer optim.warmup or a smaller optim.clip"
            )
