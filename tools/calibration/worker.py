"""A process that records many pairs, because starting PyTorch takes longer than a small recording.

python -m tools.calibration.worker      # started by recording.py
"""

import sys
from typing import Any

from parity.recording.processes.worker import Worker, main


class Workers:
    """A `Worker` for each side and precision of each pair, in one process."""

    def __init__(self) -> None:
        self.workers: dict[str, Worker] = {}

    def request(self, key: str, asked: str, options: dict[str, Any]) -> Any:
        """One request to one of the workers; the first makes it."""
        worker = self.workers.setdefault(key, Worker())
        if worker.side:
            import torch

            torch.set_default_dtype(getattr(torch, worker.side.precision))
        return getattr(worker, asked)(**options)

    def forget(self, key: str) -> dict[str, Any]:
        """Free a worker."""
        self.workers.pop(key, None)
        return {}


if __name__ == "__main__":
    sys.exit(main(Workers()))
