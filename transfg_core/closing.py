"""A base class for objects that must be closed after use."""

from typing import Any, Self


class Closing:
    """An object that a `with` block closes at its end, also after an exception."""

    def close(self) -> None:
        """Release files, processes and other resources."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()
