"""What reaches gradio: only the requests that the page needs, and no large ones.

gradio has many more routes, such as for uploads, which write files, and for files and proxies.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from transfg.demo.address import Address

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

READ = re.compile(
    r"/|/zh|/health|/examples/\d{1,4}|/config/?|/theme\.css|/favicon\.ico|/manifest\.json"
    r"|/robots\.txt|/fallback\.ttf|/(?:assets|static|svelte)/[\w./@-]+"
    r"|/gradio_api/(?:info/?|app_id/?|startup-events|theme\.css|queue/data|heartbeat/\w+"
    r"|call/\w+/\w+)"
)
ANSWERS = re.compile(r"/gradio_api/(?:queue/data|call/\w+/\w+)")
WRITE = re.compile(r"/gradio_api/(?:queue/join|call/\w+|cancel|reset/?)")

BODIES = 4  # pictures that are read at a time; each takes some 100 MB until it is in the queue
SMALL = 1_000_000  # bytes of a body that need not wait for others
BODY_SECONDS = 120  # for a body; 20 MB take 107 seconds at 2 Mbit/s

# The browser itself refuses whatever is not of this server; gradio's page needs inline scripts.
POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; font-src 'self' data:; worker-src 'self' blob:; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; connect-src 'self'; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Gate:
    """An ASGI application in front of another one."""

    def __init__(
        self,
        app: App,
        largest: int,
        address: Address,
        delivered: Callable[[], None] = lambda: None,
    ) -> None:
        """`largest` is the limit of a body in bytes; `address` knows by which names to answer.

        `delivered` is called after each stream of answers, in the server's event loop.
        """
        self.app, self.largest, self.address, self.delivered = app, largest, address, delivered
        self.bodies = asyncio.Semaphore(BODIES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it here."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no WebSocket is used
        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }
        refusal = self.refusal(scope["method"], scope["path"], headers)
        if refusal:
            await answer(send, *refusal)
            return
        if int(headers.get("content-length", self.largest)) <= SMALL or scope["method"] != "POST":
            await self.passed(scope, receive, send)
            return
        try:
            await asyncio.wait_for(self.bodies.acquire(), BODY_SECONDS)
        except TimeoutError:
            await answer(send, 503, "other pictures are on their way; try again")
            return
        try:
            await self.passed(scope, receive, send)
        finally:
            self.bodies.release()

    async def passed(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application answer."""
        try:
            await self.app(scope, self.limited(receive), with_headers(send))
        finally:
            if ANSWERS.match(scope["path"]):
                self.delivered()

    def refusal(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str] | None:
        """Status and reason of a request that is refused, from its head alone."""
        host = headers.get("host", "")
        if not self.address.allows(host):
            return 400, "this name is not of this server; --public-name NAME adds one"
        origin = headers.get("origin", "")
        if origin and not self.address.allows_origin(origin, host):
            return 403, "a page of another origin may not ask this server"
        known = READ if method in ("GET", "HEAD") else WRITE if method == "POST" else None
        if known is None or not known.fullmatch(path):
            return 404, "there is nothing here"
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self.largest:
            return 413, f"expected at most {self.largest} bytes"
        return None

    def limited(self, receive: Receive) -> Receive:
        """Count the bytes and the seconds of a body; its head need not say how long it is."""
        total, more = 0, True
        until = asyncio.get_running_loop().time() + BODY_SECONDS

        async def counted() -> Message:
            nonlocal total, more
            try:
                async with asyncio.timeout_at(until if more else None):
                    message = await receive()
            except TimeoutError:
                return {"type": "http.disconnect"}
            total += len(message.get("body", b""))
            more = message.get("more_body", False)
            if total > self.largest:
                return {"type": "http.disconnect"}
            return message

        return counted


def with_headers(send: Send) -> Send:
    """Add the headers of every answer."""
    extra = [(key.encode(), value.encode()) for key, value in HEADERS.items()]

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *extra]
        await send(message)

    return sending


async def answer(send: Send, status: int, reason: str) -> None:
    """A refusal as JSON."""
    body = json.dumps({"detail": reason}).encode()
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})
