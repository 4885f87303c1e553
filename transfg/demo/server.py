"""The web server: it serves the page until a signal, and stops gracefully.

A signal (Ctrl-C or SIGTERM) refuses new requests, lets the present one finish, ends the workers
and removes the temporary folder. A second signal ends everything at once.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from types import FrameType
from typing import Any

from transfg.demo.address import Address
from transfg.demo.application import configuration
from transfg.demo.service import Service

DELIVERY = 0.5  # seconds for the last answer to reach its reader


def serve(service: Service, kinds: Sequence[str], address: Address, taken: socket.socket) -> None:
    """Answer requests until a signal asks to stop."""
    import uvicorn

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Generator[None, None, None]:
            yield  # `stopped_by_signal` has them

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            await super().shutdown(sockets)
            if self.force_exit:
                await self.lifespan.shutdown()

    server = Server(configuration(service, kinds, address))
    with stopped_by_signal(service, server):
        print(address.text, flush=True)
        if not address.is_loopback:
            print("note: others on the network can open this page", file=sys.stderr)
        server.run(sockets=[taken])


@contextlib.contextmanager
def stopped_by_signal(service: Service, server: Any) -> Iterator[None]:
    """Stop the server at SIGINT or SIGTERM, after the present request; at once at a second one."""

    def finish() -> None:
        service.pool.close()
        time.sleep(DELIVERY)
        server.should_exit = server.force_exit = True

    def on_signal(number: int, _: FrameType | None) -> None:
        if service.pool.stopping:
            service.pool.kill()
            os._exit(128 + number)
        service.pool.stopping = True
        threading.Thread(target=finish, daemon=True).start()

    with handled(on_signal):
        yield


@contextlib.contextmanager
def ended_by_signal() -> Iterator[None]:
    """Leave the block at SIGINT or SIGTERM, with exit code 128 + n: nothing is served yet."""

    def on_signal(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    with handled(on_signal):
        yield


@contextlib.contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Give SIGINT and SIGTERM to this handler."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
