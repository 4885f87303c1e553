"""The entry point of the `transfg` command; itself needs only the standard library.

If a package of the core is broken, no other module can be imported, not even `transfg doctor`. So
this module names the package and the command that repairs it.
"""

import sys

from transfg.core_packages import report_broken_core


def main() -> None:
    """Run the command line, or name the package that prevents it."""
    if sys.argv[1:2] == ["doctor"] and report_broken_core():
        sys.exit(1)
    try:
        from transfg.app import run
    except ImportError:
        if report_broken_core():
            sys.exit(1)
        raise  # a bug of this program
    run()


if __name__ == "__main__":
    main()
