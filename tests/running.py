"""The command line in a process of its own, with a model that is small enough to wait for."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from transfg_core.machine import thread_variables

ROOT = Path(__file__).parents[1]

CONFIG = """\
run: {name: trial}
data: {crop: 32, resize: 36, toy: {train_per_class: 3, test_per_class: 1}}
model: {size: tiny, depth: 2, width: 24, heads: 2, mlp: 32, dropout: 0.1}
optim: {warmup: 1}
train: {steps: 4, batch_size: 8, eval_batch_size: 8, eval_every: 2, save_every: 1, keep: 9}
"""


def environment(**extra):
    """This process's, with the source tree on the path and one thread, so that numbers repeat."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path} | thread_variables(1) | extra


def transfg(folder, *args, **options):
    """Run a command to its end in `folder`; what it prints is text."""
    command = [sys.executable, "-m", "transfg", *map(str, args)]
    return python(folder, command[1:], **options)


def python(folder, args, **options):
    """Run an interpreter to its end."""
    options = {"env": environment(), "timeout": 300, **options}
    return subprocess.run(
        [sys.executable, *args], cwd=folder, capture_output=True, text=True, **options
    )


def records(run, kind="train"):
    """Records of one kind in a run's metrics.jsonl, and none if there is no such file yet."""
    path = run / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    found = [json.loads(line) for line in lines]
    return [record for record in found if record["kind"] == kind]


def wait_for(condition, seconds=120):
    """Poll until the condition holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"{condition} did not come true in {seconds} s"
        time.sleep(0.05)
