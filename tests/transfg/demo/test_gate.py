"""What reaches gradio: requests of the page, to this server's own name, and no large ones."""

import asyncio
import socket

import pytest

from transfg.demo import gate as gate_module
from transfg.demo.address import Address
from transfg.demo.gate import BODIES, Gate
from transfg_core.errors import UserError

LOCAL = Address("127.0.0.1", 7860)
OPEN = Address("0.0.0.0", 7860)
PROXIED = Address("127.0.0.1", 7860, ("Demo.example",))
HOST = {"host": "127.0.0.1:7860"}


def refused(method, path, address=LOCAL, **headers):
    given = HOST | {key.replace("_", "-"): value for key, value in headers.items()}
    refusal = Gate(None, 1000, address).refusal(method, path, given)
    return refusal[0] if refusal else 0


@pytest.mark.parametrize(
    "path",
    ["/", "/zh", "/health", "/examples/3", "/config", "/theme.css", "/assets/index-AbC1.js"]
    + ["/gradio_api/queue/data", "/gradio_api/heartbeat/a1", "/gradio_api/info", "/fallback.ttf"],
)
def test_what_the_page_reads(path):
    assert refused("GET", path) == 0


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/gradio_api/upload"),
        ("GET", "/gradio_api/file=/etc/passwd"),
        ("GET", "/gradio_api/file/etc/passwd"),
        ("GET", "/gradio_api/proxy=http://example.org"),
        ("POST", "/gradio_api/component_server"),
        ("POST", "/gradio_api/vibe-edit"),
        ("POST", "/gradio_api/run/predict"),
        ("GET", "/gradio_api/deep_link"),
        ("GET", "/gradio_api/runs"),
        ("GET", "/monitoring"),
        ("POST", "/login"),
        ("GET", "/examples/../../etc/passwd"),
        ("GET", "/assets/../secret%00"),
        ("PUT", "/"),
        ("OPTIONS", "/"),
        ("POST", "/"),
    ],
)
def test_what_is_closed(method, path):
    assert refused(method, path) == 404


def test_other_names_of_this_server_are_refused():
    """Else a page of another site could reach it under a name that leads here (DNS rebinding)."""
    assert refused("GET", "/", host="evil.example:7860") == 400
    assert refused("GET", "/", host="") == 400
    assert refused("GET", "/", host="localhost") == 0
    assert refused("GET", "/", host="[::1]:7860") == 0
    assert refused("GET", "/", host="192.0.2.7:7860") == 400


def test_names_of_a_server_that_the_network_reaches():
    for host in ("192.0.2.7:7860", "[2001:db8::1]:7860", "localhost:7860", socket.gethostname()):
        assert refused("GET", "/", OPEN, host=host) == 0, host
    assert refused("GET", "/", OPEN, host="evil.example:7860") == 400
    assert refused("GET", "/", OPEN, host="192.0.2.7.evil.example") == 400
    named = Address("0.0.0.0", 7860, ("a.example", "b.example"))
    assert refused("GET", "/", named, host="b.example") == 0


def test_a_proxy_in_front_has_a_public_name():
    """It sends its own name as Host, or leaves that of the demo; the page's origin is https."""
    join, page = "/gradio_api/queue/join", "https://demo.example"
    for host in ("demo.example", "DEMO.example:443", "127.0.0.1:7860"):
        assert refused("POST", join, PROXIED, host=host, origin=page) == 0, host
    assert refused("POST", join, PROXIED, host="demo.example", origin="https://a.example") == 403
    assert refused("POST", join, PROXIED, host="a.example", origin="https://a.example") == 400
    assert refused("POST", join, host="127.0.0.1:7860", origin=page) == 403


@pytest.mark.parametrize("name", ["https://demo.example", "demo.example:80", "", "a b", "*"])
def test_public_names_are_names(name):
    with pytest.raises(UserError, match="expected a name such as demo.example"):
        Address("127.0.0.1", 7860, (name,))


def test_other_origins_are_refused():
    join = "/gradio_api/queue/join"
    assert refused("POST", join, origin="http://evil.example") == 403
    assert refused("POST", join, origin="null") == 403
    assert refused("POST", join, origin="http://127.0.0.1:7860") == 0


def test_large_bodies_are_refused_by_their_head():
    join = "/gradio_api/queue/join"
    assert refused("POST", join, content_length="1000") == 0
    assert refused("POST", join, content_length="1001") == 413
    assert refused("POST", join, content_length="-5") == 413
    assert refused("POST", join, content_length="x") == 413


JOIN = {"type": "http", "method": "POST", "path": "/gradio_api/queue/join"}


def scope_of(**headers):
    named = {"host": "localhost"} | {key.replace("_", "-"): v for key, v in headers.items()}
    return JOIN | {"headers": [(key.encode(), value.encode()) for key, value in named.items()]}


def test_large_bodies_are_cut_off_if_their_head_does_not_say():
    read = []

    async def app(scope, receive, send):
        for _ in range(9):
            message = await receive()
            read.append(message)
            if message["type"] == "http.disconnect":
                return

    async def receive():
        return {"type": "http.request", "body": bytes(400), "more_body": True}

    async def send(message):
        raise AssertionError(message)

    asyncio.run(Gate(app, 1000, LOCAL)(scope_of(), receive, send))
    assert [message["type"] for message in read] == ["http.request"] * 2 + ["http.disconnect"]


def in_flight(monkeypatch, seconds, count, **headers):
    """Send `count` requests at once; return how many the application had at a time, and statuses.

    It takes 0.05 s for each, and then answers 200.
    """
    monkeypatch.setattr(gate_module, "BODY_SECONDS", seconds)
    inside, statuses = [0], []

    async def app(scope, receive, send):
        inside.append(inside[-1] + 1)
        await asyncio.sleep(0.05)
        inside.append(inside[-1] - 1)
        await send({"type": "http.response.start", "status": 200})

    async def send(message):
        statuses.extend([message["status"]] if "status" in message else [])

    async def all_of_them():
        gate = Gate(app, 30_000_000, LOCAL)
        await asyncio.gather(*(gate(scope_of(**headers), None, send) for _ in range(count)))

    asyncio.run(all_of_them())
    return max(inside), statuses


def test_few_large_bodies_are_read_at_a_time(monkeypatch):
    """Each takes memory until it is in the queue, which has a limit of its own."""
    large = {"content_length": "27000000"}
    assert in_flight(monkeypatch, 10, 20, **large) == (BODIES, [200] * 20)
    assert in_flight(monkeypatch, 10, 20)[0] == BODIES, "also if the head does not say how long"
    assert in_flight(monkeypatch, 10, 20, content_length="1000") == (20, [200] * 20)
    _, statuses = in_flight(monkeypatch, 0.02, BODIES + 2, **large)
    assert sorted(statuses) == [200] * BODIES + [503] * 2, "they do not wait for ever"


def test_a_body_that_does_not_come_ends_and_a_long_answer_does_not(monkeypatch):
    monkeypatch.setattr(gate_module, "BODY_SECONDS", 0.05)
    read = []

    async def app(scope, receive, send):
        read.append((await receive())["type"])
        read.append((await asyncio.wait_for(receive(), 5))["type"])

    async def never():
        await asyncio.sleep(60)

    messages = [{"type": "http.request", "body": b"x", "more_body": True}]

    async def stuck():
        return messages.pop() if messages else await never()

    asyncio.run(Gate(app, 1000, LOCAL)(scope_of(), stuck, None))
    assert read == ["http.request", "http.disconnect"]

    read.clear()
    messages.append({"type": "http.request", "body": b"x", "more_body": False})

    async def until_the_reader_leaves():
        if messages:
            return messages.pop()
        await asyncio.sleep(0.2)
        return {"type": "http.disconnect", "reader": "left"}

    async def answering(scope, receive, send):
        read.extend([await receive(), await receive()])

    asyncio.run(Gate(answering, 1000, LOCAL)(scope_of(), until_the_reader_leaves, None))
    assert read[1] == {"type": "http.disconnect", "reader": "left"}
