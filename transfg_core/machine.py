"""Facts about the machine and this process: memory, processors, environment."""

import os
import platform
import re
import shlex
import sys
from contextlib import suppress
from pathlib import Path


def install_command(extra: str) -> str:
    """The shell command that installs an extra of this project; run it in the project's folder."""
    return f"{shlex.quote(sys.executable)} -m pip install -e '.[{extra}]' -c constraints.txt"


def peak_rss() -> int:
    """Largest resident memory of this process so far, in bytes; 0 without /proc.

    Not from getrusage: a child inherits its maximum from the parent across fork and exec.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    match = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(match.group(1)) * 1024 if match else 0


def forget_peak_rss() -> None:
    """Reset `peak_rss` to the memory that is resident now, if the system can (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def cpu_seconds() -> float:
    """Processor time of this process and of the children that it has now, in seconds."""
    return sum(map(_cpu_seconds_of, [os.getpid(), *_children_of(os.getpid())]))


def _cpu_seconds_of(process: int) -> float:
    """User and system time; 0 for a process that has ended."""
    with suppress(OSError):
        # fields 14 and 15, counted after the name in brackets, which may hold anything (proc(5))
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        ticks = text.rpartition(")")[2].split()[11:13]
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _children_of(process: int) -> list[int]:
    """Children, their children, and so on."""
    found: list[int] = []
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, path.read_text(encoding="ascii").split()):
                found += [child, *_children_of(child)]
    return found


def cpu_name() -> str:
    """The processor's name, or its architecture if the system does not report a name."""
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.machine()
    match = re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)
    return match.group(1).strip() if match else platform.machine()


def child_environment(threads: int | None = None) -> dict[str, str]:
    """Environment for a child process that imports this project's packages.

    Operators use `threads` threads; None leaves the number as it is.
    """
    root = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(folder for folder in (root, os.environ.get("PYTHONPATH")) if folder)
    return os.environ | {"PYTHONPATH": path} | (thread_variables(threads) if threads else {})


def thread_variables(threads: int) -> dict[str, str]:
    """Environment for this number of threads: MKL and OpenBLAS prefer their own variables."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return dict.fromkeys(names, str(threads))


def usable_cpus() -> int:
    """Number of processors that this process may run on."""
    return len(os.sched_getaffinity(0))
