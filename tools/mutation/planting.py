"""Planted faults: read their list, plant one in a copy of the packages, and record that copy.

The working tree is never changed.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from parity.suite.jobs import BASELINE, Job, as_argument
from parity.suite.plan import device_of
from transfg_core.backend import BACKENDS
from transfg_core.errors import UserError
from transfg_core.machine import thread_variables

ROOT = Path(__file__).resolve().parents[2]
MUTATIONS = Path(__file__).with_name("mutations.yaml")
PACKAGES = ("transfg_core", "transfg_torch", "transfg_jt", "parity")
FIELDS = ("name", "file", "replace", "with", "count", "also", "tap", "cause", "threads", "note")
TWINS = {"transfg_torch": "torch", "transfg_jt": "jittor", "transfg_core": "core"}
# Runs the recorder, but only from the copy: an installed package must not take its place.
CHILD = """
import sys, transfg_core, parity.suite.record
root = sys.argv.pop(1)  # the recorder gets the jobs alone
for module in (transfg_core, parity):
    assert module.__file__.startswith(root), module.__file__
sys.exit(parity.suite.record.main())
"""
TIMEOUT = 600  # seconds for one process
# Of a recording, unless the entry says otherwise. Idle threads spin while they wait; on a busy
# machine this slows the recording.
THREADS = 1


@dataclass(frozen=True)
class Edit:
    """One substitution: `old` must stand in `file` exactly `count` times."""

    file: str
    old: str
    new: str
    count: int = 1

    def apply(self, root: Path) -> None:
        """Substitute in the tree at `root`.

        Raises:
            UserError: the text does not stand there `count` times.
        """
        path = root / self.file
        text = path.read_text(encoding="utf-8")
        if text.count(self.old) != self.count:
            raise UserError(
                f"{MUTATIONS.name}: {self.file}: expected {self.count} times, found "
                f"{text.count(self.old)} times: {self.old!r}; update the entry to the code"
            )
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


@dataclass(frozen=True)
class Mutation:
    """One planted fault, and the place where the suite should find it."""

    name: str
    edits: tuple[Edit, ...]
    taps: tuple[str, ...]  # patterns of `stage/tap`
    cause: str = ""  # the code, or words of the sentence, of a likely cause
    threads: int = THREADS  # one thread hides a fault in how threads share their work
    note: str = ""

    @property
    def twin(self) -> str:
        """Where the fault is: torch, jittor, core or both."""
        owners = {TWINS[edit.file.partition("/")[0]] for edit in self.edits}
        return owners.pop() if len(owners) == 1 else "both"

    @property
    def backend(self) -> str:
        """The backend that records it."""
        return self.twin if self.twin in BACKENDS else BASELINE


def control(backend: str, threads: int) -> Mutation:
    """No fault at all: a substitution by the same text."""
    package = next(name for name, twin in TWINS.items() if twin == backend)
    text = "LAYER_NORM_EPS = 1e-6"
    edit = Edit(f"{package}/models/layers.py", text, text)
    return Mutation(f"control-{backend}-threads-{threads}", (edit,), (), threads=threads)


def load_mutations(path: Path = MUTATIONS) -> list[Mutation]:
    """The entries of the file.

    Raises:
        UserError: an entry has an unknown field, or lacks a field.
    """
    entries: list[dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [_mutation(entry, path) for entry in entries]


def _mutation(entry: dict[str, Any], path: Path) -> Mutation:
    unknown = set(entry) - set(FIELDS)
    missing = {"name", "file", "replace", "with", "tap"} - set(entry)
    if unknown or missing:
        raise UserError(
            f"{path}: {entry.get('name', entry)}: unknown {sorted(unknown)}, missing "
            f"{sorted(missing)}; the fields are {', '.join(FIELDS)}"
        )
    places = [entry, *entry.get("also", [])]
    taps = entry["tap"] if isinstance(entry["tap"], list) else [entry["tap"]]
    return Mutation(
        name=entry["name"],
        edits=tuple(Edit(p["file"], p["replace"], p["with"], p.get("count", 1)) for p in places),
        taps=tuple(taps),
        cause=entry.get("cause", ""),
        threads=entry.get("threads", THREADS),
        note=entry.get("note", ""),
    )


def plant(mutation: Mutation, target: Path) -> None:
    """Copy the packages' sources and stored numbers to `target`, with the fault in them.

    Raises:
        UserError: the fault's text is not in the code.
    """
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                place = target / path.relative_to(ROOT)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place)
    for edit in mutation.edits:
        edit.apply(target)


class MutantFailed(Exception):
    """A mutant does not run; the message is the line that says why."""


def record_copy(root: Path, jobs: Sequence[Job], threads: int = THREADS) -> None:
    """Record with the packages at `root`, each precision in its own process, one after the other:
    Jittor cannot record both in one process.

    Raises:
        MutantFailed: the process crashed, refused or took too long.
    """
    more = {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", **thread_variables(threads)}
    for precision in dict.fromkeys(job.precision for job in jobs):
        some = [job for job in jobs if job.precision == precision]
        try:
            child = subprocess.run(
                [sys.executable, "-c", CHILD, str(root), as_argument(some)],
                cwd=root,
                env=os.environ | more | device_of(some),
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
            )
        except subprocess.TimeoutExpired as error:
            raise MutantFailed(f"not done after {TIMEOUT} s") from error
        if child.returncode:
            raise MutantFailed(complaint(child.stderr) or f"status {child.returncode}")


def complaint(printed: str) -> str:
    """The line that says what went wrong: the last line that names an error, else the last."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", printed)
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(\w+\.)*\w*(Error|Exception|error)\b", line)]
    return [*lines, *errors][-1] if lines else ""
