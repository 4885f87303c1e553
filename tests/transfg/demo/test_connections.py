"""Connections that never send the head of a request do not keep others out for long."""

import contextlib
import http.client
import socket
import threading
import time

import pytest
from conftest import needs
from running import wait_for

from transfg.demo import connections
from transfg.demo.address import Address

MOST = 5  # connections
SECONDS = 0.6  # for a head


async def app(scope, receive, send):
    """Answers after a second, longer than a head may take."""
    import asyncio

    await asyncio.sleep(1.0 if scope["path"] == "/slow" else 0)
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"answer"})


@pytest.fixture
def port(monkeypatch):
    """The port of a server with such limits."""
    needs("uvicorn")
    import uvicorn

    monkeypatch.setattr(connections, "HEAD_SECONDS", SECONDS)
    config = uvicorn.Config(
        app, http=connections.protocol(), limit_concurrency=MOST, log_level="error", lifespan="off"
    )
    server = uvicorn.Server(config)
    with Address("127.0.0.1", 0).take() as taken:
        thread = threading.Thread(target=server.run, args=([taken],))
        thread.start()
        wait_for(lambda: server.started, 20)
        yield taken.getsockname()[1]
        server.should_exit = True
        thread.join()


def get(port, path="/", connection=None):
    """Status and text of an answer."""
    asking = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    asking.request("GET", path)
    reply = asking.getresponse()
    said = reply.status, reply.read()
    if connection is None:
        asking.close()
    return said


@contextlib.contextmanager
def connected(port, count, *parts):
    """Connections that send some text."""
    with contextlib.ExitStack() as stack:
        opened = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            for _ in range(count)
        ]
        for each in opened:
            for part in parts:
                each.sendall(part)
        yield opened


@pytest.mark.parametrize("head", [b"", b"GET / HTTP/1.1\r\nHost: a\r\nX"])
def test_connections_without_a_head_are_closed(port, head):
    with connected(port, MOST, head) as opened:
        wait_for(lambda: get(port)[0] == 503, 5)
        began = time.monotonic()
        assert opened[0].recv(100) == b"", "the server has closed it"
        assert time.monotonic() - began < SECONDS + 2
        wait_for(lambda: get(port) == (200, b"answer"), 5)


def test_a_head_that_comes_byte_by_byte_is_cut_off(port):
    with connected(port, 1) as (slow,), pytest.raises(OSError):
        began = time.monotonic()
        for _ in range(100):
            slow.sendall(b"x")
            time.sleep(0.05)
            assert time.monotonic() - began < SECONDS + 2


def test_a_second_head_that_stays_away_is_cut_off(port):
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    with connected(port, 1, request) as (kept,):
        said = b""
        while b"answer" not in said:
            said += kept.recv(10_000)
        kept.sendall(b"GET")
        kept.settimeout(SECONDS + 2)
        while kept.recv(10_000):
            pass  # what ends the first answer


def test_answers_may_take_longer_and_connections_are_used_again(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    for _ in range(2):
        assert get(port, "/slow", connection) == (200, b"answer")
        held = connection.sock
        time.sleep(SECONDS + 0.2)  # uvicorn's own limit of idle time is longer
    assert connection.sock is held
    connection.close()
