"""Interrupting and killing real runs: what they save, and that resuming changes no result."""

import os
import pty
import signal
import subprocess
import sys

import pytest
from running import CONFIG, environment, python, records, transfg, wait_for

from transfg_core.checkpoints import file as checkpoint

ENDLESS = ("train.steps=1000000", "train.eval_every=1000000", "train.save_every=null")
TRAIN = ("train", "config.yaml")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a configuration and one run from start to end."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "config.yaml").write_text(CONFIG)
    done = transfg(folder, *TRAIN, "run.name=straight", "train.steps=6")
    assert done.returncode == 0, done.stderr
    return folder


def last(place, name):
    return checkpoint.load(place / f"runs/{name}/checkpoints/last.safetensors")


def assert_same_numbers(place, name, other="straight"):
    """Bit-identical state, and each update logged once with the same losses."""
    (left, metadata), (right, expected) = last(place, name), last(place, other)
    assert left.keys() == right.keys()
    assert [key for key in left if left[key].tobytes() != right[key].tobytes()] == []
    assert metadata["position"] == expected["position"]
    both = [
        [(one["update"], one["loss"], one["grad_norm"]) for one in records(place / "runs" / run)]
        for run in (name, other)
    ]
    assert both[0] == both[1] and [update for update, _, _ in both[0]] == list(range(1, 7))
    evals = [
        [(one["update"], one["loss"]) for one in records(place / "runs" / run, "eval")]
        for run in (name, other)
    ]
    assert evals[0] == evals[1]
    predictions = [(place / f"runs/{run}/predictions.csv").read_text() for run in (name, other)]
    assert predictions[0] == predictions[1]


KILLED = """
import os, signal, sys
from transfg import main
sync, seen = os.fsync, []
def fsync(descriptor):
    seen.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    if sum(".last.safetensors." in name for name in seen) == 5:  # before the evaluation of 4
        os.ftruncate(descriptor, 1000)
        os.kill(os.getpid(), signal.SIGKILL)
    sync(descriptor)
os.fsync = fsync
sys.argv = ["transfg", *sys.argv[1:]]
main.main()
"""


def test_kill_during_a_checkpoint_write(place):
    run = place / "runs/killed"
    settings = (*TRAIN, "run.name=killed", "train.steps=6")
    done = python(place, ["-c", KILLED, *settings])
    assert done.returncode == -signal.SIGKILL
    assert last(place, "killed")[1]["position"]["update"] == 3
    assert [one["update"] for one in records(run)] == [1, 2, 3, 4]
    assert list((run / "checkpoints").glob(".*tmp*")), "the window was missed"
    done = transfg(place, *settings, "--resume")
    assert done.returncode == 0, done.stderr
    assert "step_000004.safetensors: resuming after update 4" in done.stderr
    assert not list((run / "checkpoints").glob(".*tmp*"))
    assert_same_numbers(place, "killed")
    assert [one["event"] for one in records(run, "event")] == ["start", "resume", "finish"]


def test_resume_of_a_finished_run_is_cheap(place):
    def times():
        found = (place / "runs/straight").rglob("*")
        return {path: path.stat().st_mtime_ns for path in found if path.name != ".lock"}

    before = times()
    code = "import sys; from transfg import main; sys.modules['torch'] = None; main.main()"
    done = python(
        place, ["-c", code, *TRAIN, "run.name=straight", "train.steps=6", "--resume"], timeout=30
    )
    assert done.returncode == 0 and "already at update 6 of 6" in done.stderr, done.stderr
    assert before == times()


def start(place, name, *args, **options):
    command = [sys.executable, "-m", "transfg", *TRAIN, *ENDLESS, f"run.name={name}"]
    return subprocess.Popen([*command, *args], cwd=place, env=environment(), **options)


def saved_update(place, name):
    """The update of `last`, which is the last one in metrics.jsonl."""
    update = last(place, name)[1]["position"]["update"]
    assert [one["update"] for one in records(place / "runs" / name)] == list(range(1, update + 1))
    return update


def test_stopping_and_going_on(place):
    """Ctrl-C in a terminal, SIGTERM after a resume, SIGINT to a plain child after another."""
    run = place / "runs/stopped"
    master, slave = pty.openpty()
    child = start(
        place, "stopped", stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        preexec_fn=lambda: os.login_tty(os.dup(slave)),
    )  # fmt: skip
    os.close(slave)
    wait_for(lambda: len(records(run)) > 3)
    os.write(master, b"\x03")
    screen = read_all(master)
    assert child.wait(60) == 130, screen
    assert "stopping after this update" in screen and "resume with --resume" in screen
    assert "Traceback" not in screen
    update = saved_update(place, "stopped")
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        child = start(place, "stopped", "--resume", stderr=subprocess.PIPE, text=True)
        wait_for(lambda update=update: len(records(run)) > update + 3)
        child.send_signal(number)
        _, messages = child.communicate(timeout=60)
        assert child.returncode == code, messages
        assert "Traceback" not in messages and "resume with --resume" in messages
        later = saved_update(place, "stopped")
        assert later > update
        update = later
    events = [one["event"] for one in records(run, "event")]
    assert events == ["start", "interrupted", "resume", "interrupted", "resume", "interrupted"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_group_of_a_run_with_workers(place, number):
    """As `timeout`, schedulers and terminals send it."""
    name = f"group{int(number)}"
    child = start(
        place, name, "data.workers=2", start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: len(records(place / "runs" / name)) > 3)
    os.killpg(child.pid, number)
    _, messages = child.communicate(timeout=60)
    assert child.returncode == 128 + number, messages
    assert "Traceback" not in messages and "resume with --resume" in messages
    assert saved_update(place, name) > 3
    with pytest.raises(ProcessLookupError):  # no worker is left in the group
        wait_for(lambda: os.killpg(child.pid, 0), seconds=2)


def read_all(master):
    """Everything a terminal shows until its program ends."""
    shown = b""
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:  # how Linux tells that the other side is closed
            part = b""
        if not part:
            os.close(master)
            return shown.decode(errors="replace")
        shown += part


SLOW = """
import sys, time
from transfg import main
from transfg_torch.backend import TorchBackend
step = TorchBackend.train_step
def train_step(self, batches, lr):
    handle = step(self, batches, lr)
    if self.updates == 2:
        print("slow", flush=True)
        time.sleep(600)
    return handle
TorchBackend.train_step = train_step
sys.argv = ["transfg", *sys.argv[1:]]
main.main()
"""


def test_a_second_interrupt_ends_at_once(place):
    child = subprocess.Popen(
        [sys.executable, "-c", SLOW, *TRAIN, "run.name=slow"],
        cwd=place, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with child:
        assert child.stdout.readline() == "slow\n"
        child.send_signal(signal.SIGINT)
        lines = iter(child.stderr.readline, "")
        assert any("a second signal stops at once" in line for line in lines)
        child.send_signal(signal.SIGINT)
        assert child.wait(20) == 130
    assert last(place, "slow")[1]["position"]["update"] == 1  # as saved before


def test_a_checkpoint_of_one_backend_goes_on_in_the_other(place, request):
    if not {"torch", "jittor"} <= set(request.config.getoption("--backends").split(",")):
        pytest.skip("needs --backends torch,jittor")
    source = "runs/straight/checkpoints/step_000003.safetensors"
    settings = (*TRAIN, "model.dropout=0.0")
    for backend, name, start_from in (
        ("jittor", "jittor", source),
        ("torch", "back", "runs/jittor/checkpoints/step_000004.safetensors"),
    ):
        done = transfg(
            place, *settings, f"run.name={name}", "train.steps=6", "--backend", backend,
            "--resume-from", start_from,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        metadata = last(place, name)[1]
        assert metadata["backend"] == backend and metadata["position"]["update"] == 6
    jittor, back = (records(place / "runs" / name) for name in ("jittor", "back"))
    assert [one["update"] for one in jittor] == [4, 5, 6]
    for one, other in zip(jittor[1:], back, strict=True):
        assert one["update"] == other["update"]
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
