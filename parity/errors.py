"""The errors of this package that a user can act on; commands print them without a traceback."""


class ParityError(ValueError):
    """Bad input: a file, a name or a setting. The message says where, what was expected, what was
    found and what to do. A command that ends with it exits with `exit_code`."""

    exit_code = 2


class CannotWrite(ParityError):
    """The operating system cannot write a file, for example because the disk is full."""

    exit_code = 1


class NothingInCommon(ParityError):
    """Two recordings have no computed tap in common: nothing can be compared."""
