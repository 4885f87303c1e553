"""The entry point of the `transfg` command; itself needs only the standard library.

If a package of the core is broken, no other module can be imported, not even `transfg doctor`. So
this module names the package and the command that repairs it.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from transfg.core_packages import report_broken_core


def main() -> None:
    """Run the command line, or name the package that prevents it."""
    if sys.argv[1:2] == ["doctor"] and report_broken_core():
        sys.exit(1)
    try:
        with quiet_interrupt():
            from transfg.app import run
    except ImportError:
        if report_broken_core():
            sys.exit(1)
        raise  # a bug of this program
    run()


@contextmanager
def quiet_interrupt() -> Iterator[None]:
    """End at once on Ctrl-C, with exit code 130.

    An exception would end up inside a half-imported package, which reports it in its own way.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # ignored, as in a shell's background jobs
        yield
        return
    signal.signal(signal.SIGINT, lambda number, _: os._exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


if __name__ == "__main__":
    main()
