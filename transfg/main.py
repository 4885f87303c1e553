"""The first step of the `transfg` command, in the standard library alone.

Where a package of the core is broken, no other module would import, not even `transfg doctor`. So
the package is named here, with the command that repairs it.
"""

import sys

from transfg.core_packages import report_broken_core


def main() -> None:
    """Run the command line, or say which package keeps it from running."""
    if sys.argv[1:2] == ["doctor"] and report_broken_core():
        sys.exit(1)
    try:
        from transfg.app import run
    except ImportError:
        if report_broken_core():
            sys.exit(1)
        raise  # a fault of our own
    run()


if __name__ == "__main__":
    main()
