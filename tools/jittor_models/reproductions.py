"""Run the lines of code of upstream.yaml, each framework in a process of its own."""

import os
import subprocess
import sys
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

ENTRIES = Path(__file__).with_name("upstream.yaml")
# What has to be there before the lines of an entry
SETUP = {
    "jittor": "from transfg_jt import runtime\nruntime.prepare()\nimport jittor as jt\n",
    "pytorch": "import warnings\nwarnings.simplefilter('ignore')\nimport torch\n",
}
TIMEOUT = 300  # seconds; Jittor compiles what an entry uses


@dataclass(frozen=True)
class Entry:
    """A fault of Jittor: where it is, what it does, and lines that show it."""

    id: str
    title: str
    codes: tuple[str, ...]
    source: str
    effect: str
    jittor: str
    jittor_prints: str
    pytorch: str
    pytorch_prints: str
    patterns: tuple[str, ...] = ("*",)
    kind: str = ""

    def explains(self, code: str, place: str, kind: str) -> bool:
        """Whether the entry describes a finding of this code and kind at this place."""
        right_kind = self.kind in ("", kind)
        placed = any(fnmatchcase(place, pattern) for pattern in self.patterns)
        return code in self.codes and right_kind and placed


def load_entries() -> list[Entry]:
    """The entries of upstream.yaml."""
    entries: list[dict[str, Any]] = yaml.safe_load(ENTRIES.read_text(encoding="utf-8"))
    lists = ("codes", "patterns")
    return [
        Entry(**{key: tuple(v) if key in lists else v for key, v in entry.items()})
        for entry in entries
    ]


def printed(framework: str, code: str) -> str:
    """What the lines print in a new process; the end of its error output if it fails."""
    child = subprocess.run(
        [sys.executable, "-c", SETUP[framework] + code],
        env=os.environ | {"OMP_NUM_THREADS": "1", "log_silent": "1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    text = child.stdout if child.returncode == 0 else child.stderr
    lines = [line for line in text.splitlines() if line.strip() and "Compiling" not in line]
    return lines[-1].strip() if lines else ""


def confirm(entry: Entry) -> list[str]:
    """What an entry's lines print otherwise than it says; empty if all is as it says."""
    wrong = []
    for framework, code, expected in (
        ("jittor", entry.jittor, entry.jittor_prints),
        ("pytorch", entry.pytorch, entry.pytorch_prints),
    ):
        found = printed(framework, code)
        if found != expected:
            wrong.append(f"{entry.id}: {framework} prints {found!r}, expected {expected!r}")
    return wrong
