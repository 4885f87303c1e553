"""Where the demo listens, and the names by which readers may reach it."""

import errno
import ipaddress
import re
import socket
from dataclasses import dataclass

from transfg_core.errors import UserError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*", re.IGNORECASE)


@dataclass(frozen=True)
class Address:
    """Where the server listens; `names` are public ones, such as that of a proxy in front."""

    host: str
    port: int
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.names:
            if not NAME.fullmatch(name):
                raise UserError(
                    f"--public-name {name}: expected a name such as demo.example, without "
                    "http:// and without a port"
                )

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
        """Take the port and listen; port 0 takes any free one.

        A reader who comes while the models load waits, and a second demo on this port is refused
        before it loads any.

        Raises:
            UserError: the port is not free, or not allowed, or the host is not of this machine.
        """
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        taken = socket.socket(family, socket.SOCK_STREAM)
        try:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind((self.host, self.port))
            taken.listen()
        except (OSError, OverflowError, UnicodeError) as error:
            taken.close()
            raise UserError(
                f"--host {self.host} --port {self.port}: cannot listen there: {error}; "
                f"{remedy(error)}"
            ) from error
        return taken

    def allows(self, host: str) -> bool:
        """Whether a reader may call this server so, in the Host header of a request.

        Any other name may be one that a page of somebody else's has led here (DNS rebinding). An
        IP address cannot be.
        """
        name = host_name(host).lower()
        if name in {*LOOPBACK, self.host.lower(), *map(str.lower, self.names)}:
            return True
        return not self.is_loopback and (is_ip(name) or name in own_names())

    def allows_origin(self, origin: str, host: str) -> bool:
        """Whether a page of this origin may ask: one of this server, or of a public name."""
        place = origin.partition("://")[2].lower()
        return place == host.lower() or host_name(place) in map(str.lower, self.names)


def host_name(host: str) -> str:
    """The name in a Host header, without the port and the brackets of IPv6."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def is_ip(name: str) -> bool:
    """Whether this is an address in numbers."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def own_names() -> set[str]:
    """How this machine calls itself, also in a local network (mDNS)."""
    full = socket.gethostname().lower()
    short = full.partition(".")[0]
    return {full, short, f"{short}.local"}


def remedy(error: Exception) -> str:
    """What to do about an address that cannot be taken."""
    if isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EACCES):
        return "choose another port, such as --port 7861"
    if isinstance(error, socket.gaierror | UnicodeError) or (
        isinstance(error, OSError) and error.errno == errno.EADDRNOTAVAIL
    ):
        return "choose an address of this machine, such as --host 127.0.0.1 or --host 0.0.0.0"
    return "choose another address"
