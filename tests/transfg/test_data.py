"""`transfg data` as a user runs it: exit codes, streams, files, Ctrl-C."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from running import environment, transfg, wait_for

SMALL = ("data.resize=40", "data.crop=32")


def picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    few = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(few).resize((60, 50)).save(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Class folders with a split: twelve training images of each class, two test images."""
    folder = tmp_path_factory.mktemp("a place")
    for k in range(28):
        split, name = ("val", "train")[k % 14 > 1], ("robin", "wren")[k // 14]
        picture(folder / "photographs" / split / name / f"{k}.png", k)
    return folder


def test_check_without_problems(place):
    done = transfg(place, "data", "check", "photographs", "--out", "report", *SMALL)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "folder in photographs: 2 classes, 24 training and 4 test images"
    assert lines[-2:] == ["No problem found: 0 problems, 0 warnings, 0 notes", "report/check.html"]
    assert json.loads((place / "report/check.json").read_text())["problems"] is False
    assert "Traceback" not in done.stderr


def test_check_with_a_problem(place, tmp_path):
    twin = place / "photographs/val/wren/twin.png"
    twin.write_bytes((place / "photographs/train/robin/2.png").read_bytes())
    try:
        done = transfg(place, "data", "check", "photographs", *SMALL)
    finally:
        twin.unlink()
    assert done.returncode == 1 and "problem: equal across splits: 1 set" in done.stdout
    assert "problem: equal with other labels: 1 set" in done.stdout


def test_strict_makes_warnings_problems(place):
    for strict, code in (((), 0), (("--strict",), 1)):
        done = transfg(place, "data", "check", "photographs", "--few", "13", *strict, *SMALL)
        assert done.returncode == code, done.stdout
        assert "warning: small classes: 2 classes have fewer than 13" in done.stdout


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (("check", "nowhere"), ["nowhere: expected a configuration (YAML) or the folder"]),
        (("stats", "nowhere"), ["nowhere: expected a configuration (YAML) or the folder"]),
        (("check", "photographs", "data.corp=3"), ["data.corp", "data.crop"]),
        (("check", "photographs", "--near", "40"), ["--near 40", "0 to 10 bits"]),
        (("check", "photographs", "--out", "photographs/x"), ["outside the data set"]),
        (("check", "photographs/train/robin"), ["photographs/train/robin", "class"]),
        (("stats", "photographs", "--out", "photographs"), ["--out", "a folder"]),
        (("stats", "photographs", "--out", "x.txt"), ["--out", ".json"]),
    ],
)
def test_wrong_input_is_named(place, args, parts):
    before = sorted(place.rglob("*"))
    done = transfg(place, "data", *args)
    assert done.returncode == 2, done.stdout
    assert all(part in done.stderr for part in parts), done.stderr
    assert "Traceback" not in done.stderr and sorted(place.rglob("*")) == before


def test_near_without_the_package_names_the_command(place):
    (place / "imagehash.py").write_text("raise ImportError('not here')")
    try:
        path = os.pathsep.join([str(place), environment()["PYTHONPATH"]])
        done = transfg(
            place, "data", "check", "photographs", "--near", "4", *SMALL,
            env=environment(PYTHONPATH=path),
        )  # fmt: skip
    finally:
        (place / "imagehash.py").unlink()
    assert done.returncode == 2 and "pip install -e '.[near]'" in done.stderr


def test_stats(place, tmp_path):
    out = tmp_path / "stats.json"
    done = transfg(place, "data", "stats", "photographs", "--out", out, *SMALL)
    assert done.returncode == 0, done.stderr
    assert "suggested: data.resize [48, 48], data.crop [32, 32]" in done.stdout
    assert json.loads(out.read_text())["pixels"] == 24 * 40 * 48


def test_warnings_of_pillow_are_hidden(place):
    """A file above Pillow's own limit: the check names it, and nothing else does."""
    huge = place / "photographs/train/wren/huge.png"
    Image.new("1", (14_000, 14_000)).save(huge)
    try:
        done = transfg(place, "data", "check", "photographs", *SMALL)
    finally:
        huge.unlink()
    assert done.returncode == 1 and "14000 x 14000 pixels, more than" in done.stdout
    assert "Warning" not in done.stderr


@pytest.mark.parametrize("workers", [0, 1])
def test_ctrl_c_ends_it_and_leaves_nothing(place, tmp_path, workers):
    """SIGINT to the whole group, as a terminal sends it, while images are read."""
    root = tmp_path / "many"
    for k in range(4):
        picture(root / ("val", "train")[k % 2] / ("robin", "wren")[k // 2] / f"{k}.png", k)
    large = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
    )
    large.save(root / "train/wren/large.png")
    for k in range(400):
        (root / f"train/wren/large{k}.png").symlink_to(root / "train/wren/large.png")
    out = tmp_path / "report"
    command = [
        sys.executable, "-m", "transfg", "data", "check", str(root), "--out", str(out),
        f"data.workers={workers}", *SMALL,
    ]  # fmt: skip
    child = subprocess.Popen(
        command, cwd=tmp_path, env=environment(), start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    wait_for(lambda: child.poll() is not None or "large" in opened(child.pid, workers))
    assert child.poll() is None
    os.killpg(child.pid, signal.SIGINT)
    stdout, stderr = child.communicate(timeout=60)
    assert child.returncode == 130, stderr
    assert "Traceback" not in stderr and stdout == ""
    assert not out.exists()
    wait_for(lambda: not any_left(child.pid))


def any_left(group):
    """Whether a process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def opened(pid, workers):
    """The files that a process and its children have open, as text."""
    found = []
    children = [str(pid)]
    if workers:
        listed = subprocess.run(["pgrep", "-g", str(pid)], capture_output=True, text=True)
        children += listed.stdout.split()
    for child in children:
        try:
            links = os.listdir(f"/proc/{child}/fd")
            found += [os.readlink(f"/proc/{child}/fd/{link}") for link in links]
        except OSError:
            continue
    return " ".join(found)
