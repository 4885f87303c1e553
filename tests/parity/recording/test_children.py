"""Processes of the sides: what they can import, what they say while they work, how they end."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_running_pairs import run, written

from parity.errors import ParityError
from parity.recording.processes import waiting
from parity.recording.processes.child import Child
from parity.recording.processes.runner import Runner, record_pair
from parity.recording.processes.waiting import last_of_compiling

ROOT = Path(__file__).resolve().parents[3]

PARENT = """
import sys
import numpy
sys.path.insert(0, {site!r})
from parity.recording.processes.runner import record_pair
from pathlib import Path
record_pair(Path({pair!r}), Path({out!r}))
"""


def clean():
    return {key: text for key, text in os.environ.items() if key != "PYTHONPATH"}


def test_a_side_sees_nothing_that_lies_beside_the_parents_parity(tmp_path):
    """As after an installation, where the parent's NumPy lies beside the package."""
    site = tmp_path / "site"
    ignored = shutil.ignore_patterns("__pycache__", "suite", "cases", "runs")
    shutil.copytree(ROOT / "parity", site / "parity", ignore=ignored)
    (site / "numpy").mkdir()
    (site / "numpy/__init__.py").write_text("raise RuntimeError('the NumPy of the parent')")
    (site / "beside.py").touch()
    code = "import importlib.util as u; assert not u.find_spec('beside'); return network(-1)"
    path = written(tmp_path, code, "float64=False, variants=0")
    script = PARENT.format(site=str(site), pair=str(path), out=str(tmp_path / "out"))
    done = subprocess.run(
        [sys.executable, "-c", script], env=clean(), cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/candidate-pass-float32.npz").is_file()


def test_a_side_without_numpy_gets_one_line_with_the_command(tmp_path):
    empty = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(empty)], check=True)
    python = str(empty / "bin/python")
    path = written(tmp_path)
    command = [sys.executable, "-m", "parity", "run", str(path), "--python", f"candidate={python}"]
    environment = clean() | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    last = done.stderr.rstrip().split("\n")[-1]
    assert last.startswith("error: candidate (numpy): NumPy is missing in its environment")
    assert last.endswith(f"{python} -m pip install numpy") and done.returncode == 2
    assert "Traceback" not in done.stderr and "the whole error" not in done.stderr


def test_a_wrong_interpreter_stands_once_in_its_message(tmp_path):
    wrong = tmp_path / "nowhere/python"
    with pytest.raises(ParityError) as raised:
        Child(wrong, tmp_path, tmp_path / "log", "candidate (numpy)")
    assert str(raised.value).count(str(wrong)) == 1


def test_an_interpreter_of_the_command_is_relative_to_the_present_folder(tmp_path, monkeypatch):
    """In the pair file, it is relative to that file."""
    (tmp_path / "pairs").mkdir()
    (tmp_path / "work").mkdir()
    path = written(tmp_path / "pairs", more="float64=False, variants=0")
    monkeypatch.chdir(tmp_path / "work")
    for name in ("work", "pairs"):
        script = tmp_path / name / "python"
        script.write_text(
            f'#!/bin/sh\ntouch {tmp_path / name / "used"}\nexec {sys.executable} "$@"\n'
        )
        script.chmod(0o755)
    record_pair(path, tmp_path / "out", {"candidate": "python"}, say=lambda line: None)
    assert (tmp_path / "work/used").exists() and not (tmp_path / "pairs/used").exists()
    path.write_text(path.read_text().replace("candidate), {", "candidate, python='python'), {"))
    record_pair(path, tmp_path / "out", say=lambda line: None)
    assert (tmp_path / "pairs/used").exists()


def test_a_side_that_takes_long_says_what_it_compiles(tmp_path, monkeypatch):
    """The child waits for a file, which the first line that it makes the parent say creates."""
    monkeypatch.setattr(waiting, "EVERY", 0.2)
    go = tmp_path / "go"
    code = (
        "sys.stderr.write('\\rCompiling Operators(71/90) used: 229s eta: 61.2s '); "
        "sys.stderr.flush(); "
        f"[time.sleep(0.05) for _ in iter(lambda: os.path.exists({str(go)!r}), True)]; "
        "return network(-1)"
    )
    lines = []

    def say(line):
        lines.append(line)
        if "Compiling" in line:
            go.touch()

    record_pair(written(tmp_path, code, "float64=False, variants=0"), tmp_path / "out", say=say)
    said = [line for line in lines if "Compiling" in line]
    assert said[0].startswith("candidate (numpy): start and build in float32, ")
    assert said[0].endswith(" s; Compiling Operators 71/90")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ""),
        ("some words\n", ""),
        ("Compiling Operators(3/9) used\rCompiling Operators(4/9) used: 2s\n", "Operators 4/9"),
        ("\x1b[38;5;2m\rCompiling gen(7/90) used: 3.0s\x1b[m", "Compiling gen(7/90) used: 3.0s"),
        (
            "Jittor compiles itself for this machine into {folder}: some minutes, once.\nother\n",
            "Jittor compiles itself, once: 2 object files",
        ),
    ],
)
def test_the_last_line_on_compiling(tmp_path, text, said):
    cache = tmp_path / "a folder/obj"
    cache.mkdir(parents=True)
    for name in ("one.o", "two.o", "three.cc"):
        (cache / name).touch()
    log = tmp_path / "log"
    log.write_text(text.format(folder=cache.parent), encoding="utf-8")
    assert last_of_compiling(log).endswith(said) and bool(last_of_compiling(log)) == bool(said)
    assert last_of_compiling(tmp_path / "absent") == ""


RESTART = """
import numpy as np
from parity.recording.adapter import RestartNeededError
from parity.recording.frameworks.numpy.adapter import NumpyAdapter
from pathlib import Path

class Again(NumpyAdapter):
    def start(self, precision):
        starts = Path({starts!r})
        done = starts.read_text() if starts.is_file() else ""
        starts.write_text(done + "x")
        if len(done) < {times}:
            raise RestartNeededError("again: run the command again")
        return super().start(precision)
"""


@pytest.mark.parametrize("times", [1, 2])
def test_a_framework_that_asks_for_a_new_process_gets_one_once(tmp_path, times):
    starts = tmp_path / "starts"
    (tmp_path / "again.py").write_text(RESTART.format(starts=str(starts), times=times))
    path = written(tmp_path, more="float64=False, variants=0")
    path.write_text(path.read_text().replace('Side("numpy", cand', 'Side("again:Again", cand'))
    if times == 1:
        _, lines = run(path, tmp_path / "out")
        assert any("starts again" in line for line in lines) and starts.read_text() == "xx"
    else:
        with pytest.raises(ParityError, match="run the command again$"):
            run(path, tmp_path / "out")
        assert starts.read_text() == "xx"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_command_says_so_and_leaves_no_process(tmp_path, number):
    """Ctrl-C, or the end of the terminal, while a side compiles: no compiler is left."""
    mark = tmp_path / "pid"
    code = (
        "import subprocess; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
        f"open({str(mark)!r}, 'w').write(str(child.pid)); time.sleep(600)"
    )
    command = [sys.executable, "-m", "parity", "run", str(written(tmp_path, code))]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (mark.exists() and mark.read_text()):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    last = errors.rstrip().split("\n")[-1]
    assert last == "interrupted; what is recorded stays; run the command again to resume"
    assert process.returncode == 130 and "Traceback" not in errors
    assert ended(int(mark.read_text()))


def test_a_killed_command_leaves_no_process(tmp_path):
    """kill -9: the side and what it has started end by themselves."""
    mark = tmp_path / "pid"
    code = (
        "import subprocess; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
        f"open({str(mark)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}'); time.sleep(600)"
    )
    path, out = str(written(tmp_path, code)), str(tmp_path / "out")
    script = PARENT.format(site=str(ROOT), pair=path, out=out)
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL)
    while not (mark.exists() and len(mark.read_text().split()) == 2):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert all(ended(int(number)) for number in mark.read_text().split())


def ended(number):
    """Whether a process has ended; one whose new parent has not asked for its exit code has."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ('"x": normal(5, 6)', None),
        ('"img": normal(5, 6)', "inputs are passed by order: img as x"),
        ('"x": normal(5, 6), "m": normal(5)', "each argument of forward.x., found 2: x, m"),
        ('"x": uniform(0, 1, 5)', "forward of model: ValueError.*tiny_framework.py"),
    ],
)
def test_inputs_are_compared_with_the_arguments_before_the_candidate_is_built(
    tmp_path, inputs, words
):
    (tmp_path / "tiny_framework.py").symlink_to(Path(__file__).parent / "tiny_framework.py")
    built = tmp_path / "built"
    (tmp_path / "pair.py").write_text(TINY.format(inputs=inputs, built=str(built)))
    lines = []
    with Runner(tmp_path / "pair.py", tmp_path / "out", {}, False, lines.append) as runner:
        if words is None or "as x" in words:
            runner.prepare_baseline()
            assert [words in line for line in lines if "order" in line] == ([True] if words else [])
        else:
            with pytest.raises(ParityError, match=f"baseline .*{words}"):
                runner.prepare()
            assert not built.exists()


TINY = """
import numpy as np
from parity import Pair, Side, normal, uniform
from parity.errors import ParityError

def baseline():
    from tiny_framework import Dense
    return Dense(weight=np.zeros((3, 6)), bias=np.zeros(3))

def candidate():
    open({built!r}, "w")
    return baseline()

pair = Pair(Side("tiny_framework:TinyAdapter", baseline),
            Side("tiny_framework:TinyAdapter", candidate), {{{inputs}}})
"""
