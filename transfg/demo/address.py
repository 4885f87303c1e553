"""Where the demo listens."""

import socket
from dataclasses import dataclass

from transfg_core.errors import UserError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Address:
    """Where the server listens."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return self.host in LOOPBACK

    @property
    def text(self) -> str:
        """The address for a browser."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{name}:{self.port}"

    def take(self) -> socket.socket:
        """Take the port; port 0 takes any free one.

        Raises:
            UserError: it is not free, or not allowed.
        """
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        taken = socket.socket(family, socket.SOCK_STREAM)
        try:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind((self.host, self.port))
        except (OSError, OverflowError) as error:
            taken.close()
            raise UserError(
                f"--host {self.host} --port {self.port}: cannot listen there: {error}; choose "
                "another port, such as --port 7861"
            ) from error
        return taken
