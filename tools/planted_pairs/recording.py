"""Record a pair of PyTorch models in this process, and compare: no child processes are started.

    comparison, traces = record_and_compare(pair_file, folder)

The recordings are those of `parity run`, made by the same code, but some times faster: PyTorch is
imported once. `LocalChild` has the interface of `parity.recording.processes.child.Child`.
"""

import threading
from pathlib import Path
from typing import Any

import torch

from parity.comparison.trace import Trace
from parity.comparison.verdict import Comparison
from parity.folder import compare_folder
from parity.matching.declared import Declared
from parity.recording.processes.runner import Runner
from parity.recording.processes.worker import Worker

ONE_AT_A_TIME = threading.Lock()


class LocalChild:
    """A side that answers requests in this process."""

    def __init__(self) -> None:
        self.worker = Worker()

    def ask(self, action: str, what: str = "", **options: Any) -> dict[str, Any]:
        """The answer to one request; errors are raised as they are.

        The runner asks both sides at once. Here, one waits for the other: a recording changes the
        default type and the functions of PyTorch.
        """
        with ONE_AT_A_TIME:
            side = self.worker.side
            if side is not None:
                torch.set_default_dtype(getattr(torch, side.precision))
            answer: dict[str, Any] = getattr(self.worker, action)(**options)
        return answer

    def close(self) -> None:
        """Forget the model."""
        self.worker.side = None

    def kill(self) -> None:
        """As `close`."""
        self.close()


class LocalRunner(Runner):
    """A runner whose sides answer in this process."""

    def start(self, side: str, precision: str) -> Any:
        """A side that answers in this process."""
        return LocalChild()


def record_and_compare(file: Path, folder: Path) -> tuple[Comparison, list[Trace], list[str]]:
    """Record the pair of a file into a folder, and judge it: verdicts, traces of the pass, notes.

    Raises:
        ParityError: as in `record_pair` and `compare_folder`.
    """
    default = torch.get_default_dtype()
    try:
        with LocalRunner(file, folder, {}, fresh=True, say=lambda line: None) as runner:
            runner.prepare()
            runner.record_all()
    finally:
        torch.set_default_dtype(default)
    recorded = runner.recorded
    declared = Declared(recorded.pair.names, recorded.pair.layouts)
    comparison, traces = compare_folder(recorded.folder, declared)
    return comparison, traces, recorded.notes
