"""The web server: the page, examples, the health address, and a graceful stop.

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
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from transfg import __version__
from transfg.demo.gate import Gate
from transfg.demo.limits import base64_length
from transfg.demo.memory import memory_use
from transfg.demo.service import Service
from transfg_core.errors import UserError
from transfg_core.fonts import BUNDLED

LOOPBACK = ("127.0.0.1", "localhost", "::1")
SPARE = 10_000  # bytes of a request beside its picture
CONNECTIONS = 200  # at a time; more are answered with 503
SESSIONS = 1000  # readers that gradio remembers; it knows nothing that a new one lacks
DELIVERY = 0.5  # seconds for the last answer to reach its reader

# Read by gradio and its packages when they are imported: no telemetry, no look at versions, no
# server-side rendering by Node.
QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SSR_MODE": "False",
    "GRADIO_RUN_HISTORY": "False",
    "GRADIO_MCP_SERVER": "False",
    "GRADIO_SHARE": "False",
    "GRADIO_ANALYTICS_MAX_EVENTS": "100",  # of the times that gradio notes
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}


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


def prepare(folder: Path) -> None:
    """Environment for gradio, before it is imported; `folder` is for what it writes."""
    os.environ.update(QUIET | {"GRADIO_TEMP_DIR": str(folder), "TMPDIR": str(folder)})


def application(service: Service, kinds: Sequence[str], address: Address) -> Any:
    """The ASGI application. `kinds` are the media types of the examples."""
    import fastapi
    import gradio

    from transfg.demo.page import appearance, build

    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    began = time.monotonic()

    @app.get("/health")
    def health() -> dict[str, Any]:
        workers = service.pool.health()
        ready = all(worker["state"] == "ready" for worker in workers.values())
        status = "stopping" if service.pool.stopping else "ok" if ready else "degraded"
        return {
            "status": status,
            "version": __version__,
            "models": list(service.names),
            "workers": workers,
            "memory": memory_use(),
            "uptime_seconds": round(time.monotonic() - began, 1),
        }

    @app.get("/examples/{number}")
    def example(number: int) -> fastapi.Response:
        if number >= len(kinds):
            return fastapi.Response(status_code=404)
        return fastapi.Response(service.examples[number], media_type=kinds[number])

    @app.get("/fallback.ttf")
    def chinese_font() -> fastapi.Response:
        return fastapi.responses.FileResponse(BUNDLED, media_type="font/ttf")

    @app.middleware("http")
    async def language(request: fastapi.Request, proceed: Any) -> Any:
        """A reader whose browser prefers Chinese gets the Chinese page, unless English is asked."""
        prefers = request.headers.get("accept-language", "").lower().startswith("zh")
        if request.url.path == "/" and prefers and "lang" not in request.query_params:
            return fastapi.responses.RedirectResponse("/zh", status_code=302)
        return await proceed(request)

    blocks = build(service)
    blocks.state_session_capacity = SESSIONS
    with warnings.catch_warnings():
        # of the two pages, in spite of ssr_mode=False
        warnings.filterwarnings("ignore", "SSR mode is not supported", UserWarning)
        mounted = gradio.mount_gradio_app(
            app,
            blocks,
            path="",
            server_name=address.host,
            server_port=address.port,
            footer_links=[],
            run_history=False,
            show_error=True,
            max_file_size=1,  # bytes: nothing is uploaded as a file
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            **appearance(),
        )
    hosts = {*LOOPBACK, "[::1]", address.host} if address.is_loopback else None

    def forget() -> None:
        """Drop what gradio keeps of each session: the last picture and its answer."""
        for session in blocks.state_holder.session_data.values():
            session.config_values.clear()

    return Gate(mounted, base64_length(service.megabytes) + SPARE, hosts, forget)


def serve(service: Service, kinds: Sequence[str], address: Address, taken: socket.socket) -> None:
    """Answer requests until a signal asks to stop."""
    import uvicorn

    app = application(service, kinds, address)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=20,
        ws="none",
        server_header=False,
        lifespan="on",
    )

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Generator[None, None, None]:
            yield  # `stopped_by_signal` has them

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            await super().shutdown(sockets)
            if self.force_exit:
                await self.lifespan.shutdown()

    server = Server(config)
    with stopped_by_signal(service, server):
        taken.listen()  # from here on, a browser's request waits for its answer
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
