"""Kill a sweep's driver or one of its runs at random moments, and check that nothing is lost.

    python -m tools.sweep_kills OUT [--kills 10] [--longest 25] [--seed 0] [--backend torch]

A sweep of four small runs on toy birds is run twice in the folder OUT: unbroken, and with kills
(SIGKILL, half of them to the driver, half to a run), each followed by the same command again. The
second must end with the parameters and predictions of the first, bit by bit, and with each update
logged once. A run that was finished at a kill must not be started again.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from transfg_core.checkpoints import file as checkpoint
from transfg_core.machine import child_environment
from transfg_core.resume import is_finished
from transfg_core.run.lock import LOCK
from transfg_core.run.metrics_log import read_records

BASE = """\
data: {crop: 32, resize: 36, root: data, toy: {train_per_class: 3, test_per_class: 1}}
model: {size: tiny, depth: 2, width: 24, heads: 2, mlp: 32, dropout: 0.1}
optim: {warmup: 1}
train: {batch_size: 8, eval_batch_size: 8, eval_every: 150, save_every: 20, keep: 2}
"""
GRID = """\
base: base.yaml
set: [train.steps=%d, backend=%s]
grid:
  method: {vit: [model.placement=none], transfg: [model.placement=transfg]}
  run.seed: [1, 2]
"""


def main() -> None:
    """Parse the arguments, run the sweep twice, print what was done and what was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--longest", type=float, default=25.0, help="seconds between two kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--updates", type=int, default=600)
    given = parser.parse_args()
    prepare(given.out, given.backend, given.updates)
    code = start(given.out, "unbroken").wait()
    assert code == 0, f"the unbroken sweep ended with {code}"
    done = sweep_with_kills(given.out, given.kills, given.longest, random.Random(given.seed))
    print("\n".join(done))
    problems = check(given.out, given.updates)
    print("\n".join(problems) or "finished: nothing lost, nothing repeated")
    sys.exit(bool(problems) or len(done) < given.kills)


def prepare(out: Path, backend: str, updates: int) -> None:
    """Write the configuration and the sweep file, and render the toy set."""
    out.mkdir(parents=True)
    (out / "base.yaml").write_text(BASE, encoding="utf-8")
    (out / "sweep.yaml").write_text(GRID % (updates, backend), encoding="utf-8")
    command = ["toy", "data", "--train-per-class", "3", "--test-per-class", "1"]
    subprocess.run(transfg(command), cwd=out, env=child_environment(1), check=True)


def transfg(command: list[str]) -> list[str]:
    """The command line of `transfg`."""
    return [sys.executable, "-m", "transfg", *command]


def start(out: Path, runs: str) -> subprocess.Popen[bytes]:
    """Start the sweep's driver, with its runs below `runs`."""
    command = transfg(["sweep", "sweep.yaml", f"run.dir={runs}", "--jobs", "2", "--threads", "1"])
    with open(out / f"{runs}.log", "ab") as log:
        return subprocess.Popen(command, cwd=out, env=child_environment(1), stderr=log)


def sweep_with_kills(out: Path, kills: int, longest: float, draw: random.Random) -> list[str]:
    """Run the sweep to its end; return what was killed, and when."""
    done: list[str] = []
    finished: dict[Path, bytes] = {}
    driver = start(out, "killed")
    while len(done) < kills and driver.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            driver.wait(draw.uniform(0, longest))
        runs = runs_of(driver.pid)
        if driver.poll() is not None:
            break
        target = draw.choice(runs) if runs and draw.random() < 0.5 else driver.pid
        name = "driver" if target == driver.pid else "run"
        state = ", ".join(f"{path.name} {updates(path)}" for path in cells(out, "killed"))
        done.append(f"kill {len(done) + 1}: {name} at {state or 'the start'}")
        with suppress(ProcessLookupError):
            os.kill(target, signal.SIGKILL)
        for path in cells(out, "killed"):
            if is_finished(path):
                starts = (path / "env.json").read_bytes()
                assert finished.setdefault(path, starts) == starts, f"{path} was repeated"
        if target == driver.pid:
            driver.wait()
            driver = start(out, "killed")
    while (code := driver.wait()) == 1:  # a run that was killed twice counts as failed
        driver = start(out, "killed")
    assert code == 0, f"the sweep ended with {code}"
    for path, starts in finished.items():
        assert (path / "env.json").read_bytes() == starts, f"{path} was repeated"
    return done


def runs_of(driver: int) -> list[int]:
    """The processes of a driver's runs."""
    try:
        children = Path(f"/proc/{driver}/task/{driver}/children").read_text(encoding="ascii")
    except OSError:
        return []
    found = []
    for child in map(int, children.split()):
        with suppress(OSError):
            if b"transfg.sweep.child" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def cells(out: Path, runs: str) -> list[Path]:
    """The run folders of the sweep."""
    return sorted(path for path in (out / runs / "sweep").glob("*") if path.is_dir())


def updates(path: Path) -> int:
    """The updates that a run has logged."""
    return max((row["update"] for row in read_records(path / "metrics.jsonl")), default=0)


def check(out: Path, total: int) -> list[str]:
    """What differs between the two sweeps, and what a new start would repeat; empty if nothing."""
    problems = []
    names = [path.name for path in cells(out, "unbroken")]
    if len(names) != 4 or names != [path.name for path in cells(out, "killed")]:
        problems.append(f"expected the same four cells, found {cells(out, 'killed')}")
    for name in names:
        left, right = (out / runs / "sweep" / name for runs in ("unbroken", "killed"))
        rows = read_records(right / "metrics.jsonl")
        logged = [row["update"] for row in rows if row["kind"] == "train"]
        if logged != list(range(1, total + 1)):
            problems.append(f"{name}: updates are lost, or logged twice")
        if [row.get("event") for row in rows].count("finish") != 1:
            problems.append(f"{name}: expected one end")
        if evaluations(left) != evaluations(right):
            problems.append(f"{name}: other evaluations")
        if (left / "predictions.csv").read_bytes() != (right / "predictions.csv").read_bytes():
            problems.append(f"{name}: other predictions")
        states = [checkpoint.load(run / "checkpoints/last.safetensors")[0] for run in (left, right)]
        different = [
            key for key in states[0] if states[0][key].tobytes() != states[1][key].tobytes()
        ]
        if different:
            problems.append(f"{name}: other values in {', '.join(different[:3])}")
    before = written(out)
    if start(out, "killed").wait() or written(out) != before:
        problems.append("a start of the finished sweep changed something")
    return problems


def evaluations(run: Path) -> list[tuple[int, float, float]]:
    """Update, top-1 accuracy and loss of each evaluation of a run."""
    rows = read_records(run / "metrics.jsonl")
    return [(row["update"], row["top1"], row["loss"]) for row in rows if row["kind"] == "eval"]


def written(out: Path) -> dict[Path, int]:
    """The times at which the files of the sweep with kills were written."""
    paths = (out / "killed").rglob("*")
    return {path: path.stat().st_mtime_ns for path in paths if path.name != LOCK}


if __name__ == "__main__":
    main()
