"""The process of one cell: `transfg` with a pipe that ends it together with its parent.

    python -m transfg.sweep.child FD train CONFIG ...

FD is the end of a pipe for reading. The parent keeps the other end open as long as it lives. If the
parent is killed, the run gets a SIGTERM, as from a user: it saves `last` and ends. So no run of a
killed sweep competes with the runs of the next one. FD stays inheritable: Jittor's restart after it
has rebuilt itself (`transfg_jt/setup/start.py`) runs this program again with the same arguments.
"""

import os
import runpy
import signal
import sys
import threading


def main() -> None:
    """Run the command that follows FD."""
    pipe = int(sys.argv[1])
    del sys.argv[1]
    threading.Thread(target=_end_with_parent, args=(pipe,), daemon=True).start()
    runpy.run_module("transfg", run_name="__main__", alter_sys=True)  # python -m transfg


def _end_with_parent(pipe: int) -> None:
    os.read(pipe, 1)  # returns when the parent has ended
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
