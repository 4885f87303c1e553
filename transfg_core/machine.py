"""What the machine and this process report about themselves."""

import os
import platform
import re
import shlex
import sys
from contextlib import suppress
from pathlib import Path


def install_command(extra: str) -> str:
    """What installs an extra of this project into the running environment, from its folder."""
    return f"{shlex.quote(sys.executable)} -m pip install -e '.[{extra}]' -c constraints.txt"


def peak_rss() -> int:
    """Largest resident memory of this process so far, in bytes.

    From /proc, since getrusage's maximum is inherited from the parent across fork and exec.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 0


def forget_peak_rss() -> None:
    """Let `peak_rss` start anew from what is resident now, where the system can (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def cpu_name() -> str:
    """The processor's name, or the architecture where the system does not tell."""
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()


def child_environment(threads: int | None = None) -> dict[str, str]:
    """For a child that imports this project's packages; `threads` of OpenMP, else all."""
    root = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH")) if part)
    more = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    return os.environ | {"PYTHONPATH": path} | more


def usable_cpus() -> int:
    """Processors this process may run on."""
    return len(os.sched_getaffinity(0))
