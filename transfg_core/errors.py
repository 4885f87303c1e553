"""The exceptions for problems that the user can fix."""


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
