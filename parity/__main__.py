"""`python -m parity`: the command `parity`."""

import sys

from parity.command import main

if __name__ == "__main__":
    sys.exit(main())
