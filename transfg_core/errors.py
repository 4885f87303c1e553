"""The exceptions for problems that the user can fix."""

import re

# messages of PyTorch's devices, PyTorch's CPU allocator, C++ and oneDNN
NO_MEMORY = re.compile(r"out of memory|can't allocate|bad_alloc|is memory short")


class UserError(ValueError):
    """Bad input, configuration or environment: shown as a message, never as a traceback.

    The message says where, what was expected, what was found and what to do. The command line
    prints it and exits with `exit_code`: 2 for usage and configuration, 1 for a run that failed.
    """

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class RunFailed(UserError):
    """A run that started and could not continue (not-a-number, unreadable image, full disk)."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_code=1)


class Diverged(RunFailed):
    """The numbers of a run are not finite, so that its state is not worth saving."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether Python, NumPy or a framework could not allocate memory."""
    return isinstance(error, MemoryError) or bool(NO_MEMORY.search(str(error)))
