"""Workers that die or hang are replaced, one request at a time; the worker here has no model."""

import sys
import threading
import time

import pytest

from transfg.demo import process as process_module
from transfg.demo.pool import Pool
from transfg.demo.process import Settings
from transfg_core.errors import RunFailed, UserError

# It speaks as transfg/demo/worker.py does; the content of a request says what it shall do.
WORKER = """
import json, os, sys, time
job = json.loads(sys.argv[1])
answers = open(job["answers"], "w")
def send(content):
    print(json.dumps(content), file=answers, flush=True)
if job["runs"][0] == "refused":
    send({"refused": "refused: no such run"})
    sys.exit()
if job["runs"][0] == "dies":
    sys.exit(3)
send({"models": [{"facts": run} for run in job["runs"]], "process": os.getpid()})
for line in iter(sys.stdin.buffer.readline, b""):
    request = json.loads(line)
    content = sys.stdin.buffer.read(request["length"])
    if content == b"die":
        os._exit(9)
    if content == b"hang":
        time.sleep(60)
    if content == b"wait":
        time.sleep(0.5)
    send({"length": len(content), "run": request["run"], "process": os.getpid()})
"""


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
        assert pool.ask("torch", 1, content, True)["length"] == len(content)
    assert pool.ask("torch", 1, b"x", False)["run"] == 1


@pytest.mark.parametrize(("content", "code"), [(b"die", "crashed"), (b"hang", "too_slow")])
def test_a_worker_that_dies_or_hangs_is_replaced(start, content, code):
    pool = start("a", seconds=1.0)
    first = pool.ask("torch", 0, b"x", False)["process"]
    began = time.monotonic()
    assert pool.ask("torch", 0, content, False)["error"] == code
    assert time.monotonic() - began < 4
    assert pool.health()["torch"]["state"] != "down", "the next one loads before it is asked"
    again = pool.ask("torch", 0, b"x", False)
    assert again["length"] == 1 and again["process"] != first
    assert pool.health()["torch"]["restarts"] == 1


def test_one_request_at_a_time_over_all_backends(start):
    pool = start("a", backends=("torch", "jittor"))
    spans = []

    def ask(backend):
        pool.ask(backend, 0, b"wait", False)
        spans.append(time.monotonic())

    began = time.monotonic()
    threads = [threading.Thread(target=ask, args=(b,)) for b in ("torch", "jittor", "torch")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [round((end - began) / 0.5) for end in sorted(spans)] == [1, 2, 3]


def test_a_closed_pool_lets_the_present_request_finish_and_refuses_others(start):
    pool = start("a")
    answers = []
    asking = threading.Thread(target=lambda: answers.append(pool.ask("torch", 0, b"wait", False)))
    asking.start()
    time.sleep(0.2)
    pool.close()
    asking.join()
    assert answers[0]["length"] == 4
    assert pool.ask("torch", 0, b"x", False)["error"] == "stopping"
    assert pool.health()["torch"]["state"] == "down"


def test_a_run_that_cannot_be_loaded(start):
    with pytest.raises(UserError, match="no such run"):
        start("refused")
    with pytest.raises(RunFailed, match="backend torch: cannot start: .* with status 3"):
        start("dies")
