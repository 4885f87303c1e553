"""Connections that send nothing: uvicorn has no limit for the time until a request's head is there.

uvicorn counts every connection, and refuses all requests above its limit (`limit_concurrency`).
"""

import asyncio
from typing import Any

HEAD_SECONDS = 10  # for the head of a request, from its first byte or the start of the connection


def protocol() -> type[asyncio.Protocol]:
    """uvicorn's protocol, which closes a connection whose request has no head in time."""
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    class WithHeadLimit(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        _head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._limit_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._limit_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget_timer()
            super().connection_lost(exc)

        def _limit_head(self) -> None:
            """Start the time of a head, which further bytes of it do not prolong."""
            if self._has_request():
                self._forget_timer()
            elif self._head_timer is None:
                self._head_timer = self.loop.call_later(HEAD_SECONDS, self._close_without_head)

        def _close_without_head(self) -> None:
            self._head_timer = None
            self.transport.close()

        def _has_request(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _forget_timer(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

    return WithHeadLimit
