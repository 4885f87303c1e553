"""Memory of this process: what is in use, beside what the system counts as resident.

Resident memory also holds free pieces between those in use, so it moves although nothing is kept.
"""

import ctypes
import os
from pathlib import Path


class _MallInfo(ctypes.Structure):
    """`struct mallinfo2` of glibc 2.33 (mallinfo(3))."""

    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]


def memory_use() -> dict[str, int | None]:
    """Resident bytes, and bytes in use: `in_use` is None without glibc."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        resident: int | None = pages * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        resident = None
    return {"resident": resident, "in_use": _in_use()}


def _in_use() -> int | None:
    try:
        info = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return None
    info.restype = _MallInfo
    found = info()
    return int(found.uordblks + found.hblkhd)
