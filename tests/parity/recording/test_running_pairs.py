"""The runner, with sides that need only NumPy: each side and precision is a process of its own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from parity import compare, read_trace
from parity.errors import ParityError
from parity.recording.processes.apart import record_side
from parity.recording.processes.runner import record_pair

ROOT = Path(__file__).resolve().parents[3]

PAIR = """
import os, sys, time
import numpy as np
from parity import Pair, Side, normal

def network(order, slope=0.0):
    def forward(weights, inputs, training=False):
        w, x = weights["w"], inputs["x"]
        z = x[:, ::order] @ w[::order] + weights["bias"]
        return {{"z": z, "h": np.where(z > 0, z, slope * z), "losses/loss": (z * z).mean()}}
    weights = {{"w": np.zeros((6, 4)), "bias": np.zeros(4)}}
    return forward, weights

def baseline():
    return network(1)

def candidate():
    {candidate}

pair = Pair(Side("numpy", baseline), Side("numpy", candidate), {{"x": normal(5, 6)}}, {more})
"""


def written(folder, candidate="return network(-1)", more=""):
    path = folder / "pair.py"
    path.write_text(PAIR.format(candidate=candidate, more=more), encoding="utf-8")
    return path


def run(path, out, **options):
    """(what was recorded, the lines that it said)."""
    lines = []
    return record_pair(path, out, say=lines.append, **options), lines


def test_a_right_pair_is_equivalent_and_is_recorded_once(tmp_path):
    path = written(tmp_path)
    recorded, lines = run(path, tmp_path / "out")
    rows = compare(recorded.traces("pass"))
    assert {row.verdict for row in rows} <= {"equivalent", "vacuous"}
    assert {row.precision for row in rows} == {"float32", "float64"}
    assert {"forward", "losses", "training forward", "parameters"} <= {row.stage for row in rows}
    trace = read_trace(recorded.files["baseline-pass-float32"])
    weights = trace.manifest["subject"]["weights"]
    assert weights["w"]["shape"] == [6, 4] and np.std(trace.taps["parameters/w"]) > 0.1
    assert not any("unchanged" in line for line in lines)
    again, lines = run(path, tmp_path / "out")
    assert sum("unchanged" in line for line in lines) == len(again.files) == len(recorded.files)
    _, lines = run(path, tmp_path / "out", fresh=True)
    assert not any("unchanged" in line for line in lines)


def test_a_changed_side_is_recorded_again(tmp_path):
    """Beside the pair file, what it imports counts as well."""
    code = "from beside import slope; return network(-1, slope)"
    (tmp_path / "beside.py").write_text("slope = 0.0", encoding="utf-8")
    path = written(tmp_path, code)
    recorded, _ = run(path, tmp_path / "out")
    assert {row.verdict for row in compare(recorded.traces("pass"))} <= {"equivalent", "vacuous"}
    (tmp_path / "beside.py").write_text("slope = 0.01  # a fault", encoding="utf-8")
    recorded, lines = run(path, tmp_path / "out")
    assert any("unchanged" in line for line in lines if "baseline" in line) is False
    bad = {
        f"{r.stage}/{r.tap}" for r in compare(recorded.traces("pass")) if r.verdict == "different"
    }
    assert "forward/h" in bad and "forward/z" not in bad


def test_recordings_of_another_plan_are_removed(tmp_path):
    run(written(tmp_path), tmp_path / "out")
    recorded, _ = run(written(tmp_path, more="variants=0, float64=False"), tmp_path / "out")
    files = {path.name for path in (tmp_path / "out").glob("*-pass-*.npz")}
    assert files == {path.name for path in recorded.files.values()} and len(files) == 2


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        (
            "raise RuntimeError('no luck')",
            r"candidate \(numpy\): build: RuntimeError: no luck \(at pair.py:1",
        ),
        (
            "import no_such_framework",
            "build: ModuleNotFoundError: No module named 'no_such_framework'",
        ),
        ("return 3", "build: expected a function"),
        (
            "return (lambda weights, inputs: {'y': inputs['x'] @ weights['w'].T}), network(1)[1]",
            r"forward: ValueError: .* \(at pair.py:",
        ),
        ("return network(1)[0], {'w': np.zeros((4, 6)), 'bias': np.zeros(4)}", r"\(4, 6\)"),
        ("print('last words', flush=True); os._exit(7)", "(?s)ended with exit code 7.*last words"),
    ],
)
def test_what_fails_in_a_side_is_told_with_its_place(tmp_path, candidate, words):
    with pytest.raises(ParityError, match=words):
        run(written(tmp_path, candidate), tmp_path / "out")


def test_a_missing_interpreter_is_told(tmp_path):
    pythons = {"candidate": str(tmp_path / "env/bin/python")}
    with pytest.raises(ParityError, match="candidate.*cannot start.*--python SIDE=PATH"):
        run(written(tmp_path), tmp_path / "out", pythons=pythons)
    with pytest.raises(ParityError, match="--python other: expected one of baseline, candidate"):
        run(written(tmp_path), tmp_path / "out", pythons={"other": "python"})


def test_what_a_side_prints_disturbs_nothing(tmp_path):
    code = "print('{\"answer\": 1}'); sys.stdout.flush(); os.write(1, b'noise'); return network(-1)"
    recorded, _ = run(written(tmp_path, code), tmp_path / "out")
    assert {row.verdict for row in compare(recorded.traces("pass"))} <= {"equivalent", "vacuous"}
    assert "noise" in (tmp_path / "out/candidate-float32.log").read_text(encoding="utf-8")


def test_an_interrupt_ends_the_sides(tmp_path):
    """Ctrl-C in the middle of a recording: no process of a side is left."""
    mark = tmp_path / "pid"
    code = f"open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    path = written(tmp_path, code)
    script = (
        "from pathlib import Path; from parity.recording.processes.runner import record_pair; "
        f"record_pair(Path({str(path)!r}), Path({str(tmp_path / 'out')!r}))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", script], env=environment, stderr=subprocess.DEVNULL
    )
    while not (mark.exists() and mark.read_text()):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)


def test_two_machines_record_into_one_folder(tmp_path):
    """Each step tells the next; the order matters; the result is that of one machine."""
    path, out = written(tmp_path), tmp_path / "out"
    with pytest.raises(ParityError, match="first run `parity record PAIR baseline"):
        record_side(path, "candidate", out)
    with pytest.raises(ParityError, match="expected one of baseline, candidate"):
        record_side(path, "both", out)
    for side in ("baseline", "candidate", "baseline"):
        record_side(path, side, out, say=lambda line: None)
    recorded, _ = run(path, tmp_path / "one")
    apart = {file.name: read_trace(file) for file in out.glob("*-pass-*.npz")}
    assert set(apart) == {file.name for file in recorded.files.values()}
    for name, trace in apart.items():
        for tap, value in read_trace(tmp_path / "one" / name).taps.items():
            np.testing.assert_array_equal(trace.taps[tap], value)


def test_a_function_that_changes_its_weights_starts_each_mode_anew(tmp_path):
    text = PAIR.replace('w, x = weights["w"]', 'weights["bias"] += 1.0; w, x = weights["w"]')
    code = text.format(candidate="return network(-1)", more="variants=0, float64=False")
    (tmp_path / "pair.py").write_text(code, encoding="utf-8")
    recorded, _ = run(tmp_path / "pair.py", tmp_path / "out")
    taps = read_trace(recorded.files["baseline-pass-float32"]).taps
    np.testing.assert_array_equal(taps["forward/z"], taps["training forward/z"])
