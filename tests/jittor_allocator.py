"""The bytes that Jittor's allocator holds at the end of a script, which runs in a new process."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

BEFORE = """
import sys
from transfg_jt import runtime
runtime.prepare()
import jittor as jt
switch = bool(int(sys.argv[1]))
"""

AFTER = """
info = jt.get_mem_info()
print("held", info.total_cuda_used if jt.flags.use_cuda else info.total_cpu_used)
"""


def held_bytes(script: str, switch: bool) -> int:
    """Run a script that uses `jt` and `switch`; the allocator never returns memory by itself."""
    command = [sys.executable, "-c", BEFORE + script + AFTER, str(int(switch))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])
