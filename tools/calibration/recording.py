"""Record pairs in processes that stay: one for each processor setting."""

import sys
from pathlib import Path
from threading import Lock
from typing import Any

from parity.recording.processes.child import Child
from parity.recording.processes.runner import Recorded, Runner
from tools.calibration.design import SETTINGS, Case

ROOT = Path(__file__).resolve().parents[2]  # pairs and their process import `tools`
PAIR = '''"""A pair of the calibration."""

from tools.calibration.design import pair_of

pair = pair_of("{name}")
'''


class Pool:
    """The processes by setting; each starts at first use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.processes: dict[str, Child] = {}
        self.locks: dict[str, Lock] = {}

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: Any) -> None:
        for process in self.processes.values():
            process.close()

    def lend(self, setting: str, key: str) -> Child:
        """A worker inside the process of a setting."""
        lock = self.locks.setdefault(setting, Lock())
        with lock:
            return Lent(self.process(setting), key, lock)

    def process(self, setting: str) -> Child:
        """The process of a setting."""
        if setting not in self.processes:
            self.folder.mkdir(parents=True, exist_ok=True)
            log = self.folder / f"{setting.replace(' ', '-')}.log"
            native = SETTINGS["native"] | {"PYTHONPATH": str(ROOT)}
            variables = native | {"OMP_WAIT_POLICY": "PASSIVE"} | SETTINGS[setting]
            python, module = Path(sys.executable), "tools.calibration.worker"
            child = Child(python, self.folder, log, setting, module, variables)
            self.processes[setting] = child
        return self.processes[setting]


class Lent(Child):
    """A worker inside a process of the pool; both sides may use the process, one at a time."""

    def __init__(self, process: Child, key: str, lock: Lock) -> None:
        self.owner, self.key, self.lock = process, key, lock

    def ask(self, action: str, what: str = "", **options: Any) -> dict[str, Any]:
        """See `Child`."""
        with self.lock:
            return self.owner.ask("request", key=self.key, asked=action, options=options)

    def close(self) -> None:
        """Free the worker; the process stays."""
        with self.lock:
            self.owner.ask("forget", key=self.key)

    def kill(self) -> None:
        """As `close`."""
        self.close()


class PoolRunner(Runner):
    """A recording whose children are lent by a pool."""

    def __init__(self, path: Path, case: Case, pool: Pool) -> None:
        super().__init__(path, path.parent, {}, True, lambda line: None)
        self.case, self.pool = case, pool

    def start(self, side: str, precision: str) -> Child:
        """See `Runner`: the baseline is always computed natively."""
        setting = self.case.entry.setting if side == "candidate" else "native"
        return self.pool.lend(setting, f"{self.case.name} {side} {precision}")


def record(case: Case, folder: Path, pool: Pool) -> Recorded:
    """Record all traces of a case into a folder.

    Raises:
        ParityError: as in `record_pair`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "pair.py"
    path.write_text(PAIR.format(name=case.name))
    with PoolRunner(path, case, pool) as runner:
        runner.prepare()
        runner.record_all()
    return runner.recorded
