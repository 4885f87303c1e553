"""The demo as a whole, over HTTP: answers, health, what it refuses, how it stops."""

import http.client
import importlib.util
import json
import os
import signal
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from conftest import HOSTILE, installed_backends, needs, write_checkpoint
from running import wait_for

from tools.demo_load.checks import offline_answers, problems_of, unanswered
from tools.demo_load.malformed import malformed_files
from tools.demo_load.pictures import good_pictures, odd_pictures, png_of
from tools.demo_load.running import Clients, Demo
from transfg.demo.address import Address
from transfg_core.errors import UserError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None, reason="gradio not installed"
)
LIMIT = 5.0  # seconds for the answer to a malformed file


def ask(demo, content, **options):
    (sent,) = Clients(demo.address, 1, options).ask([("picture", content)])
    return sent.answer


def status(demo, path, method="GET", body=None, **headers):
    """The status of a plain request."""
    connection = http.client.HTTPConnection(demo.address.removeprefix("http://"), timeout=20)
    try:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        connection.request(method, path, body, named)
        return connection.getresponse().status
    finally:
        connection.close()


def test_every_answer_of_many_clients_is_the_offline_one(demo, checkpoints, tmp_path):
    """`python -m tools.demo_load` does the same with 500 requests."""
    pictures = good_pictures(16)
    for name, content in pictures.items():
        (tmp_path / name).write_bytes(content)
    known = offline_answers(checkpoints, ["torch"], tmp_path)
    sent = Clients(demo.address, 4, {"models": list(checkpoints)}).ask(list(pictures.items()) * 2)
    assert len(sent) == 32 and problems_of(sent, known) == []
    first = sent[0].answer["answers"][0]
    first["probabilities"][0] += 1e-15
    assert len(problems_of(sent[:1], known)) == 1, "a difference in the last digit is found"


def test_odd_pictures_have_answers_and_drawings(demo):
    sent = Clients(demo.address, 2, {"pictures": True}).ask(list(odd_pictures().items()))
    for request in sent:
        (answer,) = request.answer["answers"]
        assert answer["photo"].startswith("data:image/jpeg;base64,"), request.name
        assert list(answer["maps"]) == ["scores", "rollout", "saliency"]
        boxes = [side for box in answer["boxes"] for side in box]
        assert len(answer["boxes"]) == 2 and 0 <= min(boxes) and max(boxes) <= 1
    sizes = {request.name: request.answer["answers"][0]["size"] for request in sent}
    assert sizes["line.png"] == [1, 3000] and sizes["pixel.png"] == [1, 1]
    assert sizes["wide.jpg"] == [2500, 4000]


def test_malformed_files_get_answers(demo):
    """`python -m tools.demo_load` sends 200 of them."""
    sent = Clients(demo.address, 2, {"pictures": True}).ask(list(malformed_files(40, seed=5)))
    assert len(sent) == 40 and unanswered(sent, LIMIT) == []
    errors = {request.name: request.answer.get("error") for request in sent}
    assert errors["eps"] == errors["svg"] == errors["noise"] == "unreadable"
    assert errors["png of 100 megapixels"] == errors["jpeg that claims 65535 x 65535"]
    assert errors["png of 100 megapixels"] == "too_many_pixels"
    assert demo.health()["workers"]["torch"]["restarts"] == 0


def test_limits(demo):
    assert ask(demo, bytes(20_000_001))["error"] == "too_many_bytes"
    asked = demo.health()["workers"]["torch"]["requests"]
    body = b'{"data": ["' + b"x" * 30_000_000 + b'"]}'
    try:
        assert status(demo, "/gradio_api/queue/join", "POST", body) == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # the server hangs up while the body is on its way
    assert demo.health()["status"] == "ok"
    assert demo.health()["workers"]["torch"]["requests"] == asked, "no worker saw it"
    assert ask(demo, png_of(7000, 7000, 7000))["answers"], "49 megapixels are allowed"


def test_what_is_closed(demo):
    boundary = (
        b"--x\r\nContent-Disposition: form-data; name=files; filename=../a.png\r\n\r\nx\r\n--x--"
    )
    kind = "multipart/form-data; boundary=x"
    assert status(demo, "/gradio_api/upload", "POST", boundary, Content_Type=kind) == 404
    assert status(demo, "/gradio_api/file=/etc/passwd") == 404
    assert status(demo, "/examples/999") == 404
    assert status(demo, "/", Host="evil.example") == 400
    assert (
        status(demo, "/gradio_api/queue/join", "POST", b"{}", Origin="http://evil.example") == 403
    )


def test_behind_a_proxy(demo):
    """The page asks the address that the browser knows, and the server takes it for its own."""
    proxy = {"Host": "demo.example", "X-Forwarded-Proto": "https"}
    asked = urllib.request.Request(demo.address + "/config", headers=proxy)
    with urllib.request.urlopen(asked, timeout=20) as reply:
        assert json.load(reply)["root"] == "https://demo.example"
    body, kind = b'{"data": ["example:0", null, null, false]}', "application/json"
    call, page = "/gradio_api/call/predict", "https://demo.example"
    head = {"Content_Type": kind, "Origin": page}
    assert status(demo, call, "POST", body, Host="demo.example", **head) == 200
    assert status(demo, call, "POST", body, Host="other.example", **head) == 400
    assert status(demo, call, "POST", body, **head | {"Origin": "https://b.example"}) == 403


def test_health(demo):
    said = demo.health()
    assert said["status"] == "ok" and said["workers"]["torch"]["state"] == "ready"
    assert said["models"] == ["parts.safetensors", "plain.safetensors"]


def test_readers_of_chinese_get_the_chinese_page(demo):
    assert status(demo, "/", Accept_Language="zh-CN,zh;q=0.9") == 302
    assert status(demo, "/?lang=en", Accept_Language="zh-CN") == 200
    assert status(demo, "/", Accept_Language="de,zh;q=0.5") == 200
    for path, words in (("/", "What does the model see?"), ("/zh", "模型看到了什么")):
        with urllib.request.urlopen(demo.address + path, timeout=20) as reply:
            page = reply.read().decode()
            assert "default-src 'self'" in reply.headers["content-security-policy"]
        assert words in page or json.dumps(words)[1:-1] in page


def test_a_worker_that_dies_is_replaced_and_a_missing_run_fails_alone(demo, checkpoints, tmp_path):
    (picture,) = good_pictures(1).values()
    path = checkpoints["plain.safetensors"]
    away = path.rename(tmp_path / path.name)
    try:
        os.kill(demo.health()["workers"]["torch"]["process"], signal.SIGKILL)
        wait_for(lambda: demo.health()["workers"]["torch"]["state"] == "down", 10)
        assert ask(demo, picture)["answers"][0]["label"] in HOSTILE
        assert demo.health()["workers"]["torch"]["restarts"] == 1
        missing = ask(demo, picture, models=[path.name])
        assert missing["error"] == "model" and str(path.parent) not in str(missing)
    finally:
        away.rename(path)
    assert ask(demo, picture, models=[path.name])["answers"], "it is loaded as soon as it is there"
    said = demo.output()
    assert "demo: the torch worker ended with status -9" in said
    assert f"demo: {path} in torch: model: {path}: " in said


# --- start and stop

AUDIT = """
import os, sys
def hook(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        with open(os.environ["AUDIT_LOG"], "a") as log:
            log.write(f"{event} {args[1] if event != 'socket.getaddrinfo' else args[0]!r}\\n")
sys.addaudithook(hook)
if sys.orig_argv[1:3] in (["-m", "transfg"], ["-m", "transfg.demo.worker"]):
    with open(os.environ["AUDIT_LOG"], "a") as log:
        log.write(f"watching {sys.orig_argv[2]}\\n")
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder for temporary files, and a log of every connection of the server and its workers."""
    importlib.import_module("gradio_client")  # chooses a folder of its own for temporary files
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", None)
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(AUDIT, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("AUDIT_LOG", str(tmp_path / "connections.log"))
    yield tmp_path
    monkeypatch.undo()
    tempfile.tempdir = None


@pytest.fixture
def start():
    """Start a demo; it ends with the test, also if that fails."""
    demos = []

    def started(*arguments):
        demos.append(Demo(*arguments))
        return demos[-1]

    yield started
    for demo in demos:
        if demo.process.poll() is None:
            demo.stop(signal.SIGKILL)


def test_nothing_is_left_after_a_kill_or_a_signal(own, start):
    """The next start removes what a killed demo left. A signal lets the request finish."""
    needs("torch")
    path, temporary = write_checkpoint(own / "model.safetensors"), own / "tmp"
    killed = start(str(path))
    worker = killed.health()["workers"]["torch"]["process"]
    (left,) = temporary.glob("transfg-demo-*")
    assert killed.stop(signal.SIGKILL) == -signal.SIGKILL and left.exists()
    wait_for(lambda: not alive(worker), 20)  # a worker ends with its server

    demo = start(str(path))
    assert not left.exists()
    for content in good_pictures(3).values():
        assert ask(demo, content, pictures=True)["answers"]
    assert [each for each in temporary.rglob("*") if each.is_file()] == []
    state, answers = demo.health()["workers"]["torch"], []
    slow = threading.Thread(target=lambda: answers.append(ask(demo, png_of(6900, 6900, 6900))))
    slow.start()
    wait_for(lambda: demo.health()["workers"]["torch"]["requests"] > state["requests"])
    assert demo.stop(signal.SIGINT) == 0
    slow.join()
    assert answers[0]["answers"] and not alive(state["process"])
    assert list(temporary.iterdir()) == []
    lines = (own / "connections.log").read_text().splitlines()
    for module in ("transfg", "transfg.demo.worker"):
        assert lines.count(f"watching {module}") == 2, "of each demo, both processes are watched"
    connections = [line for line in lines if not line.startswith("watching ")]
    assert [
        each for each in connections if "127.0.0.1" not in each and "localhost" not in each
    ] == []


def alive(process):
    return Path(f"/proc/{process}").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], "absent: expected the folder of a run"),
        (["absent", "--examples", "nowhere"], "--examples nowhere: cannot read it"),
        (["absent", "--host", "203.0.113.1"], "cannot listen there.*address of this machine"),
        (["absent", "--host", "no-such-host.invalid"], "cannot listen there.*of this machine"),
        (["absent", "--time-limit", "nan"], "less than or equal to 3600"),
        (["absent", "--time-limit", "inf"], "less than or equal to 3600"),
        (["absent", "--public-name", "http://a"], "expected a name such as"),
        (["absent", "--backend", "tensorflow"], "expected one of torch, jittor, both"),
    ],
)
def test_a_demo_that_cannot_start_says_why(arguments, message):
    needs("torch")
    with pytest.raises(RuntimeError, match=message):
        Demo(*arguments)


def test_a_demo_that_hangs_at_its_start_is_ended(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("import time\ntime.sleep(60)\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="did not start"):
        Demo("absent", seconds=0.5)
    assert time.monotonic() - began < 20


def test_a_second_demo_on_a_port_is_refused_before_it_loads():
    """The first one may still be loading its models."""
    with Address("127.0.0.1", 0).take() as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match="choose another port"):
            Address("127.0.0.1", port).take()


# --- both frameworks


def test_both_backends_agree(tmp_path):
    if len(installed_backends()) < 2:
        pytest.skip("needs both torch and jittor")
    path = write_checkpoint(tmp_path / "model.safetensors")
    demo = Demo(str(path), "--backend", "both")
    try:
        for content in good_pictures(3).values():
            answer = ask(demo, content, backends=["torch", "jittor"], pictures=True)
            assert [each["backend"] for each in answer["answers"]] == ["torch", "jittor"]
            assert all(each["seconds"]["classify"] > 0 for each in answer["answers"])
            (agreement,) = answer["agreement"]
            assert agreement["same_class"] and agreement["same_patches"]
            assert agreement["difference"] < 1e-5
        assert set(demo.health()["workers"]) == {"torch", "jittor"}
    finally:
        assert demo.stop() == 0
