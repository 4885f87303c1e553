"""The base of what must be closed: `with` does it, whatever happens inside."""

from typing import Any, Self


class Closing:
    """Closed at the end of a `with` block."""

    def close(self) -> None:
        """Give back what is held."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()
