"""Run the lines of code of upstream.yaml, each framework in a process of its own."""

import os
import subprocess
import sys

from parity.diagnose.upstream import Entry

# What has to be there before the lines of an entry
SETUP = {
    "jittor": "from transfg_jt import runtime\nruntime.prepare()\nimport jittor as jt\n",
    "pytorch": "import warnings\nwarnings.simplefilter('ignore')\nimport torch\n",
}
TIMEOUT = 300  # seconds; Jittor compiles what an entry uses


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
