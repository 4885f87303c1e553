"""Workers that die or hang are replaced, one request at a time; the worker here has no model."""

import os
import signal
import sys
import threading
import time

import pytest
from running import wait_for

from transfg.demo import process as process_module
from transfg.demo.pool import Pool, Stopping
from transfg.demo.process import Settings
from transfg.demo.service import Service
from transfg_core.errors import RunFailed, UserError

# It speaks as transfg/demo/worker.py does; the content of a request says what it shall do.
WORKER = """
import json, os, sys, time
PANEL = {"probabilities": [1.0], "patches": None, "label": "bird"}
job = json.loads(sys.argv[1])
answers = open(job["answers"], "w")
def send(content):
    print(json.dumps(content), file=answers, flush=True)
if job["runs"][0] == "dies":
    sys.exit(3)
if (lock := job["runs"][0].partition("dies with ")[2]) and os.path.exists(lock):
    sys.exit(4)
missing = [run for run in job["runs"] if os.path.isabs(run) and not os.path.exists(run)]
models = [{"refused": f"{r}: no such run"} if r in missing else {"facts": r} for r in job["runs"]]
send({"models": models, "process": os.getpid()})
for line in iter(sys.stdin.buffer.readline, b""):
    request = json.loads(line)
    content = sys.stdin.buffer.read(request["length"])
    if content == b"die":
        os._exit(9)
    if job["runs"][request["run"]] in missing:
        send({"error": "model", "detail": f"{missing}:\\nno such run"})
        continue
    if content == b"hang":
        time.sleep(60)
    if content == b"wait":
        time.sleep(0.5)
    send({"length": len(content), "run": request["run"], "process": os.getpid()} | PANEL)
"""


def ask(pool, backend, run, content, pictures=False):
    """A request for one model alone."""
    with pool.turn():
        return pool.ask(backend, run, content, pictures)


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Start a pool of such workers."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER, encoding="utf-8")
    monkeypatch.setattr(process_module, "COMMAND", (sys.executable, str(script)))
    pools = []

    def started(*runs, backends=("torch",), seconds=10.0):
        pools.append(Pool(backends, Settings(runs, 50, seconds)))
        pools[-1].start()
        return pools[-1]

    yield started
    for pool in pools:
        pool.close()


def test_requests_reach_the_worker_whole(start):
    pool = start("a", "b")
    assert pool.models == [{"facts": "a"}, {"facts": "b"}]
    for content in (b"x", bytes(5_000_000), b"\n{}\n"):
        assert ask(pool, "torch", 1, content)["length"] == len(content)
    assert ask(pool, "torch", 1, b"x")["run"] == 1


@pytest.mark.parametrize(("content", "code"), [(b"die", "crashed"), (b"hang", "too_slow")])
def test_a_worker_that_dies_or_hangs_is_replaced(start, content, code):
    pool = start("a", seconds=1.0)
    first = ask(pool, "torch", 0, b"x")["process"]
    began = time.monotonic()
    assert ask(pool, "torch", 0, content)["error"] == code
    assert time.monotonic() - began < 4
    assert pool.health()["torch"]["state"] != "down", "the next one loads before it is asked"
    again = ask(pool, "torch", 0, b"x")
    assert again["length"] == 1 and again["process"] != first
    assert pool.health()["torch"]["restarts"] == 1


def test_a_worker_that_ended_between_two_requests_is_replaced(start, capfd):
    pool = start("a")
    first = pool.health()["torch"]["process"]
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: pool.health()["torch"]["state"] == "down", 10)
    again = ask(pool, "torch", 0, b"x")
    assert again["length"] == 1 and again["process"] != first, "the next picture is not blamed"
    assert pool.health()["torch"]["restarts"] == 1
    assert "demo: the torch worker ended with status -9 between two" in capfd.readouterr().err


def test_reasons_go_to_the_output_and_no_places_to_readers(start, capfd, tmp_path):
    run = tmp_path / "run"
    run.touch()
    pool = start("a", str(run))
    run.unlink()
    assert ask(pool, "torch", 0, b"die")["error"] == "crashed"
    said = ask(pool, "torch", 1, b"x")
    assert said["error"] == "model" and str(tmp_path) not in str(said)
    assert ask(pool, "torch", 0, b"x")["length"] == 1, "the other model still answers"
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("demo: ")]
    assert lines[0] == "demo: a in torch: crashed: the torch worker ended with status 9"
    assert lines[1] == f"demo: {run} in torch: model: ['{run}']: no such run"
    assert len(lines) == 2


def test_a_worker_that_cannot_start_again_is_not_the_fault_of_the_picture(start, tmp_path):
    lock = tmp_path / "broken"
    pool = start(f"dies with {lock}")
    lock.touch()
    assert ask(pool, "torch", 0, b"die")["error"] == "crashed"
    assert ask(pool, "torch", 0, b"x")["error"] == "model"
    wait_for(lambda: pool.health()["torch"]["state"] == "down", 10)
    lock.unlink()
    assert ask(pool, "torch", 0, b"x")["length"] == 1


def test_one_request_at_a_time_over_all_backends(start):
    pool = start("a", backends=("torch", "jittor"))
    spans = []

    def request(backend):
        ask(pool, backend, 0, b"wait")
        spans.append(time.monotonic())

    began = time.monotonic()
    threads = [threading.Thread(target=request, args=(b,)) for b in ("torch", "jittor", "torch")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [round((end - began) / 0.5) for end in sorted(spans)] == [1, 2, 3]


def test_a_closed_pool_lets_the_present_request_finish_and_refuses_others(start):
    pool = start("a")
    answers = []
    asking = threading.Thread(target=lambda: answers.append(ask(pool, "torch", 0, b"wait")))
    asking.start()
    time.sleep(0.2)
    pool.close()
    asking.join()
    assert answers[0]["length"] == 4
    with pytest.raises(Stopping):
        ask(pool, "torch", 0, b"x")
    assert pool.health()["torch"]["state"] == "down"


def test_a_stop_lets_all_models_of_the_present_request_finish(start):
    pool = start("a", "b", backends=("torch", "jittor"))
    service, image = Service(pool, ["a", "b"], [b"wait"]), "example:0"
    looked = []

    def look():
        looked.append(service.look(image, ["a", "b"], ["torch", "jittor"], False))

    asking = threading.Thread(target=look)
    asking.start()
    wait_for(lambda: pool.counts["torch"]["requests"], 10)
    pool.close()
    asking.join()
    assert looked[0].error == "" and len(looked[0].panels) == 4
    assert service.look(image, ["a", "b"], ["torch"], False).error == "stopping"


def test_a_run_that_cannot_be_loaded(start):
    with pytest.raises(UserError, match="no such run"):
        start("a", "/absent/run")
    with pytest.raises(RunFailed, match="backend torch: cannot start: .* with status 3"):
        start("dies")
