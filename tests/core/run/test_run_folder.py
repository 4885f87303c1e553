"""Run folders: what they hold, whom they refuse, and what a resumed run keeps."""

import csv
import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from transfg_core.config.loading import load_config
from transfg_core.errors import RunFailed, UserError
from transfg_core.run import folder
from transfg_core.run.environment import read_starts
from transfg_core.run.folder import RunFolder
from transfg_core.run.lock import LOCK
from transfg_core.run.metrics_log import read_records
from transfg_core.run.tensorboard import TAGS


@pytest.fixture
def config(tmp_path):
    return load_config(None, [f"run.dir={tmp_path}/runs", "run.name=trial", "train.keep=2"])


def train_record(update):
    return {"kind": "train", "update": update, "epoch": update // 4, "loss": 1 / update, "lr": 0.1}


def eval_record(update):
    return {"kind": "eval", "update": update, "loss": 0.5, "top1": update / 100, "top5": 1.0}


def at(update):
    return {"position": {"update": update}}


def rewind(run, update, evaluated=None):
    evaluated = update if evaluated is None else evaluated
    run.rewind(run.checkpoint_path("last"), update, evaluated)


def log_updates(run, first, last):
    for update in range(first, last + 1):
        run.log(train_record(update))
        if update % 2 == 0:
            run.log(eval_record(update))


def summary(run):
    with open(run.path / "summary.csv", newline="") as file:
        return list(csv.DictReader(file))


def updates(run):
    return [record["update"] for record in read_records(run.path / "metrics.jsonl")]


def test_the_files_of_a_run(config):
    with RunFolder.create(config) as run:
        run.record_environment(
            {"device": "cpu", "threads": np.int64(2)}, ["transfg", "train"], {"classes": 2}
        )
        run.log({"kind": "event", "event": "start", "backend": "torch", "update": 0})
        log_updates(run, 1, 4)
        run.save("last", {"x": np.zeros(2)}, at(4))
    assert run.path.name == "trial"
    assert load_config(run.path / "config.yaml") == config
    (start,) = read_starts(run.path)
    assert start["command"] == ["transfg", "train"] and start["device"]["threads"] == 2
    assert start["data"] == {"classes": 2}
    assert start["libraries"]["numpy"] == np.__version__ and start["cpu_count"] >= 1
    assert updates(run) == [0, 1, 2, 2, 3, 4, 4]
    rows = summary(run)
    assert list(rows[0])[:6] == "epoch train_loss eval_loss eval_top1 eval_top5 lr".split()
    assert [row["step"] for row in rows] == ["2", "4"]
    assert float(rows[1]["train_loss"]) == pytest.approx((1 / 3 + 1 / 4) / 2)
    assert float(rows[1]["eval_top1"]) == 4.0 and rows[1]["epoch"] == "1"
    assert run.checkpoint_path("last").exists()


def test_records_stay_json_whatever_the_numbers(config):
    with RunFolder.create(config) as run:
        bad = {"loss": float("nan"), "grad_norm": np.float32("inf"), "lr": np.float32(0.5)}
        run.log({"kind": "train", "update": np.int64(1), **bad})
        line = (run.path / "metrics.jsonl").read_text()
    expected = {"kind": "train", "update": 1, "loss": None, "grad_norm": None, "lr": 0.5}
    assert json.loads(line, parse_constant=pytest.fail) == expected


def test_each_record_is_on_disk_at_once(config):
    with RunFolder.create(config) as run:
        run.log(train_record(1))
        assert updates(run) == [1]


def test_a_full_disk_stops_the_run_with_a_message(config):
    with RunFolder.create(config) as run:
        (run.path / "metrics.jsonl").symlink_to("/dev/full")
        with pytest.raises(RunFailed, match="No space left"):
            run.log(train_record(1))
    RunFolder.open(run.path).close()  # the lock is free again


def test_a_folder_in_use_is_refused(config):
    RunFolder.create(config).close()
    with pytest.raises(UserError, match=r"--resume.*--overwrite"):
        RunFolder.create(config)


def test_overwrite_deletes_the_run_and_nothing_else(config):
    with RunFolder.create(config) as run:
        log_updates(run, 1, 2)
        run.save(1, {"x": np.zeros(2)}, at(1))
    (run.path / "notes.txt").write_text("mine")
    with RunFolder.create(config, overwrite=True) as run:
        left = {str(p.relative_to(run.path)) for p in run.path.rglob("*") if p.is_file()}
    assert left == {"config.yaml", "notes.txt", LOCK}


@pytest.mark.parametrize("name", ["thesis.tex", "config.yaml"])
def test_overwrite_never_touches_a_folder_that_is_not_a_run(config, tmp_path, name):
    folder = tmp_path / "runs" / "trial"
    folder.mkdir(parents=True)
    (folder / name).write_text("train: {steps: 5}\n")
    with pytest.raises(UserError, match="deletes nothing but a run"):
        RunFolder.create(config, overwrite=True)
    assert [entry.name for entry in folder.iterdir()] == [name]


def test_a_place_that_cannot_be_a_folder(config, tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(UserError, match="cannot make the run folder"):
        RunFolder.create(config)


def test_open_needs_a_run(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match="found no config.yaml"):
            RunFolder.open(path)


def test_two_processes_do_not_write_one_run(config):
    with RunFolder.create(config) as run:
        for again in (lambda: RunFolder.open(run.path), lambda: RunFolder.create(config, True)):
            with pytest.raises(UserError, match=rf"process {os.getpid()} on .* is writing"):
                again()
    RunFolder.open(run.path).close()


HOLDER = """
import sys
from pathlib import Path
from transfg_core.run.folder import RunFolder
run = RunFolder.open(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""


def test_a_killed_process_leaves_no_lock(config):
    run = RunFolder.create(config)
    run.close()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, run.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(UserError, match=f"process {holder.pid}"):
            RunFolder.open(run.path)
        holder.kill()
    RunFolder.open(run.path).close()


def test_resume_forgets_what_came_after_the_checkpoint(config):
    with RunFolder.create(config) as run:
        log_updates(run, 1, 7)
        for update in (2, 4, 6):
            run.save(update, {"x": np.zeros(1)}, at(update))
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write('{"kind": "train", "upd')  # killed while writing
    straight = (run.path / "summary.csv").read_text()
    lines = (run.path / "metrics.jsonl").read_text().splitlines()[:-1]

    with RunFolder.open(run.path) as resumed:
        assert resumed.config == config
        rewind(resumed, 5)
        assert updates(resumed) == [1, 2, 2, 3, 4, 4, 5]
        assert [row["step"] for row in summary(resumed)] == ["2", "4"]
        assert not resumed.checkpoint_path(6).exists() and resumed.checkpoint_path(4).exists()
        log_updates(resumed, 6, 7)
    assert (run.path / "metrics.jsonl").read_text().splitlines() == lines
    assert (run.path / "summary.csv").read_text() == straight


def test_an_evaluation_that_is_made_again_is_logged_once(config):
    """The checkpoint of update 4 was saved before its evaluation, which was logged."""
    with RunFolder.create(config) as run:
        log_updates(run, 1, 5)
    with RunFolder.open(run.path) as run:
        rewind(run, 4, evaluated=2)
        assert updates(run) == [1, 2, 2, 3, 4]
        run.log(eval_record(4))
    assert [row["step"] for row in summary(run)] == ["2", "4"]


def test_which_checkpoint_is_the_newest(config):
    with RunFolder.create(config) as run:
        assert run.describe_saved() == "no checkpoint is saved" and run.saved_update is None
        run.save(3, {"x": np.zeros(1)}, at(3))
        assert run.saved_update == 3
        assert run.describe_saved() == f"{run.checkpoint_path(3)} holds the state after update 3"
    with RunFolder.open(run.path) as run:
        rewind(run, 2)
        assert run.saved_update == 2


def test_a_full_disk_leaves_whole_records(config, monkeypatch):
    """A record that fits in part would spoil the next one."""

    class Full(io.FileIO):
        def write(self, data):
            if len(data) < 20:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data[:20])

    with RunFolder.create(config) as run:
        run.log(train_record(1))
        monkeypatch.setattr(folder, "open", lambda *args, **options: Full(*args[:2]), raising=False)
        with pytest.raises(RunFailed, match="No space left"):
            run.log(train_record(2))
        monkeypatch.undo()
        run.log(train_record(3))
    assert updates(run) == [1, 3]


def test_resume_before_anything_was_logged(config):
    RunFolder.create(config).close()
    with RunFolder.open(Path(config.run.dir) / config.run.name) as run:
        rewind(run, 0)
        log_updates(run, 1, 2)
    assert updates(run) == [1, 2, 2]


def test_a_damaged_line_in_the_middle_is_named(config):
    with RunFolder.create(config) as run:
        log_updates(run, 1, 1)
    path = run.path / "metrics.jsonl"
    path.write_text("not json\n" + path.read_text())
    with RunFolder.open(run.path) as run, pytest.raises(UserError, match="line 1"):
        rewind(run, 1)


def test_only_the_newest_numbered_checkpoints_stay(config):
    with RunFolder.create(config) as run:
        run.save("best", {"x": np.zeros(1)}, at(1))
        for update in (5, 10, 999_999, 1_000_000):
            run.save(update, {"x": np.zeros(1)}, at(update))
        names = sorted(path.name for path in (run.path / "checkpoints").iterdir())
    kept = ["best.safetensors", "step_1000000.safetensors", "step_999999.safetensors"]
    assert names == kept


def test_starts_are_appended(config):
    with RunFolder.create(config) as run:
        run.record_environment({}, ["a"], {})
    with RunFolder.open(run.path) as run:
        run.record_environment({}, ["b"], {})
    assert [start["command"] for start in read_starts(run.path)] == [["a"], ["b"]]


def test_predictions(config):
    logits = np.array([[0.0, np.log(3.0)], [2.0, 2.0]], np.float32)
    with RunFolder.create(config) as run:
        run.write_predictions(["a,b.jpg", "ü.jpg"], np.array([1, 1]), logits)
    with open(run.path / "predictions.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["image", "label", "predicted", "correct", "probability"]
    assert rows[1:] == [
        ["a,b.jpg", "1", "1", "1", "0.750000"],
        ["ü.jpg", "1", "0", "0", "0.500000"],
    ]


def events(folder):
    """Events of TensorBoard files: length, its checksum, message, its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.glob("events.*")):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            yield Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def test_tensorboard_tags_and_purge(config):
    pytest.importorskip("tensorboardX", reason="tensorboardX is optional")
    with RunFolder.create(config) as run:
        log_updates(run, 1, 4)
    with RunFolder.open(run.path) as run:
        rewind(run, 2)
        log_updates(run, 3, 3)
    found = list(events(run.path / "tensorboard"))
    points = {(value.tag, one.step) for one in found for value in one.summary.value}
    assert {tag for tag, _ in points} == {*TAGS.values(), "test/accuracy"}
    assert ("test/accuracy", 4) in points and ("train/loss", 3) in points
    assert 3 in [one.step for one in found if one.HasField("session_log")]


WATCH = """
import sys
from pathlib import Path
from transfg_core.config.loading import load_config
from transfg_core.run.folder import RunFolder
with RunFolder.create(load_config(None, [f"run.dir={sys.argv[1]}"])) as run:
    run.log({"kind": "train", "update": 1, "loss": 1.0, "lr": 0.1})
    assert list((run.path / "tensorboard").iterdir()) or "tensorboardX" not in sys.modules
assert not {"torch", "jittor"} & sys.modules.keys(), "a framework was imported"
"""


def test_logging_imports_no_framework(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WATCH, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
