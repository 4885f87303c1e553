"""A sweep that is killed at random ends as an unbroken one, and the check sees what is lost."""

import shutil

import pytest
from running import python

from tools import sweep_kills


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Both sweeps, after two kills."""
    out = tmp_path_factory.mktemp("kills") / "out"
    options = ("--kills", "2", "--longest", "6", "--updates", "300")
    done = python(out.parent, ["-m", "tools.sweep_kills", str(out), *options], timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kill 2: " in done.stdout and "nothing lost, nothing repeated" in done.stdout
    return out


def test_a_killed_sweep_ends_as_an_unbroken_one(out):
    assert len(sweep_kills.cells(out, "killed")) == 4


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("metrics.jsonl", "updates are lost, or logged twice"),
        ("predictions.csv", "other predictions"),
        ("checkpoints/last.safetensors", "other values"),
    ],
)
def test_what_is_lost_is_seen(out, tmp_path, monkeypatch, name, problem):
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    run = copy / "killed/sweep/vit_seed-1"
    if name == "metrics.jsonl":
        lines = (run / name).read_text().splitlines(keepends=True)
        (run / name).write_text("".join(lines[:9] + lines[10:]))
    else:
        shutil.copy(copy / "killed/sweep/vit_seed-2" / name, run / name)
    monkeypatch.setattr(sweep_kills, "start", lambda *args: Done())
    problems = sweep_kills.check(copy, 300)
    assert len(problems) == 1 and problems[0].startswith(f"vit_seed-1: {problem}")


class Done:
    """A driver that did nothing."""

    def wait(self):
        return 0
