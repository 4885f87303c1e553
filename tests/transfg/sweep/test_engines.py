"""Sweeps in processes of their own: signals, a killed driver, a second driver, Ray and Slurm."""

import importlib.util
import json
import os
import signal
import subprocess
import sys

import fake_slurm
import pytest
from running import CONFIG, environment, records, transfg, wait_for

from transfg import app as cli
from transfg.sweep.slurm_engine import read_numbers
from transfg_core.errors import UserError
from transfg_core.run.lock import is_locked

LONG = 2000  # updates; no test waits for the end of such a run


def installed(package):
    return importlib.util.find_spec(package) is not None


needs_ray = pytest.mark.skipif(not installed("ray"), reason="the ray extra is not installed")
needs_submitit = pytest.mark.skipif(
    not installed("submitit"), reason="the slurm extra is not installed"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a sweep of two cells and its data."""
    folder = tmp_path_factory.mktemp("a place")
    (folder / "base.yaml").write_text(CONFIG)
    (folder / "pair.yaml").write_text("base: base.yaml\ngrid: {run.seed: [1, 2]}\n")
    done = transfg(folder, "toy", "data/toy", "--train-per-class", 3, "--test-per-class", 1)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def start(place):
    """Start a sweep; one that a failed test leaves behind is killed."""
    drivers = []

    def run(*args, **extra):
        command = [sys.executable, "-m", "transfg", "sweep", "pair.yaml", *map(str, args)]
        drivers.append(
            subprocess.Popen(
                command,
                cwd=place,
                env=environment(**extra),
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,  # a process group, as a terminal gives to a command
            )
        )
        return drivers[-1]

    yield run
    for driver in drivers:
        driver.kill()
        driver.wait()
        driver.stderr.close()


def wait(condition):
    """Two starts of Python and PyTorch take long on a busy machine."""
    wait_for(condition, seconds=300)


def seeds(place, name):
    """The run folders of the sweep below `name`."""
    return [place / name / "pair" / f"seed-{seed}" for seed in (1, 2)]


def logged(run, updates):
    return lambda: len(records(run)) >= updates


def ends(run):
    """What the run printed last."""
    return (run.parent / f"{run.name}.log").read_text().splitlines()[-1]


def is_saved(run):
    return "interrupted after update" in ends(run) and "last.safetensors" in ends(run)


def test_a_stop_saves_the_runs_and_a_new_start_finishes_them(place, start):
    where = ("run.dir=stopped", "--jobs", 2)
    first, second = seeds(place, "stopped")
    driver = start(*where, "train.eval_every=1")
    wait(lambda: records(first) and records(second))
    driver.send_signal(signal.SIGTERM)
    _, shown = driver.communicate(timeout=300)
    assert driver.returncode == 143 or "2 finished" in shown, shown
    assert not is_locked(first) and not is_locked(second)
    done = transfg(place, "sweep", "pair.yaml", *where)
    assert done.returncode == 0 and "2 finished of 2" in done.stderr, done.stderr
    for run in (first, second):
        assert [record["update"] for record in records(run)] == [1, 2, 3, 4]
        command = json.loads((run / "env.json").read_text())[-1]["command"]
        assert command[1:3] == ["train", "base.yaml"] and "data.threads=1" in command
    before = {path: path.stat().st_mtime_ns for path in (place / "stopped").rglob("*.*")}
    done = transfg(place, "sweep", "pair.yaml", *where)
    assert done.returncode == 0
    after = {path: path.stat().st_mtime_ns for path in (place / "stopped").rglob("*.*")}
    assert {path for path in after if after[path] != before.get(path)} <= {
        place / "stopped/pair/.lock"
    }


def test_ctrl_c_reaches_the_runs_once(place, start):
    """Ctrl-C signals a whole process group; a second signal would end the runs without saving."""
    (run, _) = seeds(place, "interrupted")
    driver = start("run.dir=interrupted", f"train.steps={LONG}")
    wait(logged(run, 5))
    os.killpg(driver.pid, signal.SIGINT)
    _, shown = driver.communicate(timeout=300)
    assert driver.returncode == 130 and is_saved(run), shown
    assert "stopping: every run saves its state" in shown and "1 stopped, 1 to do of 2" in shown


def test_runs_end_with_a_killed_driver(place, start):
    (run, _) = seeds(place, "orphans")
    driver = start("run.dir=orphans", f"train.steps={LONG}")
    wait(logged(run, 5))
    driver.kill()
    driver.communicate()
    wait(lambda: not is_locked(run))
    assert is_saved(run)


def test_one_driver_at_a_time(place, start):
    driver = start("run.dir=one", f"train.steps={LONG}")
    wait(lambda: is_locked(place / "one/pair"))
    done = transfg(place, "sweep", "pair.yaml", "run.dir=one", f"train.steps={LONG}")
    assert done.returncode == 2
    assert f"process {driver.pid} on" in done.stderr and "is running this sweep" in done.stderr


def test_a_run_that_fails_is_shown_with_its_log(place):
    settings = ("run.dir=failed", "data.crop=99", "data.resize=null")
    done = transfg(place, "sweep", "pair.yaml", *settings)
    assert done.returncode == 1
    assert "seed-2: ended with exit code 2; failed/pair/seed-2.log ends with" in done.stderr
    assert "\n  | error: " in done.stderr and "smaller data.crop" in done.stderr
    assert "2 of 2 cells failed: seed-1, seed-2; the same command tries them again" in done.stderr


@pytest.fixture
def call(place, monkeypatch, capsys):
    """Run a command in this process; return its exit code and what it printed."""
    monkeypatch.chdir(place)

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["transfg", "sweep", "pair.yaml", *args])
        with pytest.raises(SystemExit) as ended:
            cli.run()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, " ".join(err.split())

    return run


def test_a_plan_writes_nothing(call, place):
    code, out, _ = call("--dry-run", "run.dir=plan")
    assert code == 0 and not (place / "plan").exists()
    assert out.splitlines()[-1].startswith("2 cells: 2 to do; 64 images left")


def test_folders_of_other_experiments_are_refused_before_any_run(call, place):
    for seed in (1, 2):
        folder = place / f"other/pair/seed-{seed}"
        folder.mkdir(parents=True)
        (folder / "thesis.txt").touch()
    for option in ((), ("--dry-run",)):
        code, out, shown = call("run.dir=other", *option)
        assert code == 2 and "2 folders of the sweep hold something else" in shown
        assert "seed-2: expected an empty folder" in shown
        assert bool(out) == bool(option)
        assert not list((place / "other/pair").glob("*.log"))


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (("--engine", "cloud"), "--engine cloud: expected one of local, ray, slurm"),
        (("--address", "here:1"), "--address here:1: belongs to --engine ray"),
        (("--slurm", "time=1"), "--slurm time=1: belongs to --engine slurm"),
        (("--gpus", "1"), "--gpus: belongs to --engine ray or slurm"),
        (("--engine", "slurm"), "expected the time of a job, --slurm time=MINUTES"),
        (("run.dir=base.yaml",), "base.yaml/pair: cannot make the folder"),
    ],
)
def test_options_that_do_not_fit(call, args, part):
    code, out, shown = call(*args)
    assert code == 2 and out == "" and part in shown


@pytest.mark.parametrize(
    ("package", "args"),
    [("ray", ("--engine", "ray")), ("submitit", ("--engine", "slurm", "--slurm", "time=9"))],
)
def test_an_absent_package_is_named_with_its_command(call, monkeypatch, package, args):
    monkeypatch.setitem(sys.modules, package, None)
    code, _, shown = call("run.dir=absent", *args)
    assert code == 2 and "is not installed; run: " in shown and f"'.[{args[1]}]'" in shown


def test_numbers_of_jobs(tmp_path):
    path = tmp_path / "jobs.json"
    assert read_numbers(path) == {}
    path.write_text('{"seed-1": "12"}')
    assert read_numbers(path) == {"seed-1": "12"}
    for text in ("[1]", "{", ""):
        path.write_text(text)
        with pytest.raises(UserError, match=r"jobs.json: expected .* delete the file"):
            read_numbers(path)


@needs_ray
def test_ray(place):
    done = transfg(place, "sweep", "pair.yaml", "run.dir=ray", "--engine", "ray", "--jobs", 2)
    assert done.returncode == 0 and "2 finished of 2" in done.stderr, done.stderr
    for run in seeds(place, "ray"):
        assert [record["update"] for record in records(run)] == [1, 2, 3, 4]


@needs_ray
def test_ray_stops_and_survives_the_death_of_a_worker(place, start):
    (run, _) = seeds(place, "ray_killed")
    driver = start("run.dir=ray_killed", "--engine", "ray", f"train.steps={LONG}")
    wait(logged(run, 5))
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if (
            parent_of(pid)
            and "ray::run_cell" in command_of(parent_of(pid))
            and ("run.dir=ray_killed/pair" in command_of(pid))
        ):
            os.kill(int(parent_of(pid)), signal.SIGKILL)
    wait(lambda: len(json.loads((run / "env.json").read_text())) == 2)  # tried once more
    driver.send_signal(signal.SIGTERM)
    _, shown = driver.communicate(timeout=300)
    assert driver.returncode == 143 and "trying it once more" in shown and is_saved(run), shown


def command_of(pid):
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
            return file.read().replace("\0", " ")
    except OSError:
        return ""


def parent_of(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[1]
    except OSError:
        return ""


SLURM = ("--engine", "slurm", "--slurm", "time=30", "--slurm", "partition=cpu", "--threads", 1)


@needs_submitit
def test_slurm(place, start, tmp_path):
    """A driver is killed while its job runs; the next one waits for the job and runs the rest."""
    extra = fake_slurm.install(tmp_path / "slurm")
    where = ("run.dir=slurm", *SLURM)
    first, second = seeds(place, "slurm")
    driver = start(*where, **extra)
    wait(lambda: list((tmp_path / "slurm").glob("job-1/script.sh")))
    wait(lambda: (place / "slurm/pair/.slurm/jobs.json").exists())
    driver.kill()
    driver.communicate()
    done = transfg(place, "sweep", "pair.yaml", *where, env=environment(**extra))
    assert done.returncode == 0 and "2 finished of 2" in done.stderr, done.stderr
    assert len(list((tmp_path / "slurm").glob("job-*"))) == 2
    assert len(json.loads((first / "env.json").read_text())) == 1
    assert [record["update"] for record in records(second)] == [1, 2, 3, 4]
    script = (tmp_path / "slurm/job-2/script.sh").read_text()
    for line in ("time=30", "partition=cpu", "cpus-per-task=1", "job-name=seed-2"):
        assert f"\n#SBATCH --{line}\n" in script


@needs_submitit
def test_slurm_stops_its_jobs(place, start, tmp_path):
    extra = fake_slurm.install(tmp_path / "slurm")
    (run, _) = seeds(place, "slurm_stopped")
    driver = start("run.dir=slurm_stopped", *SLURM, f"train.steps={LONG}", **extra)
    wait(logged(run, 5))
    driver.send_signal(signal.SIGTERM)
    _, shown = driver.communicate(timeout=300)
    assert driver.returncode == 143 and is_saved(run) and "1 stopped, 1 to do" in shown, shown


@needs_submitit
def test_a_setting_that_sbatch_does_not_have(place, tmp_path):
    extra = fake_slurm.install(tmp_path / "slurm")
    done = transfg(
        place, "sweep", "pair.yaml", *SLURM, "--slurm", "queue=1", env=environment(**extra)
    )
    assert done.returncode == 2 and "queue" in done.stderr and "Traceback" not in done.stderr


# The restart of `import_jittor`, in place of the command that the child runs.
RESTARTING = """
import os, runpy, sys, time
from transfg.sweep import child
def run_module(*_, **__):
    if "AGAIN" not in os.environ:
        os.environ["AGAIN"] = "1"
        os.execv(sys.executable, sys.orig_argv)
    print("ready", flush=True)
    time.sleep(600)
runpy.run_module = run_module
child.main()
"""


def test_a_run_that_restarts_itself_still_ends_with_its_parent():
    reading, writing = os.pipe()
    command = [sys.executable, "-c", RESTARTING, str(reading)]
    with subprocess.Popen(command, pass_fds=[reading], stdout=subprocess.PIPE, text=True) as child:
        try:
            os.close(reading)
            assert child.stdout.readline() == "ready\n"
            assert child.poll() is None
        finally:
            os.close(writing)
        try:
            assert child.wait(60) == -signal.SIGTERM
        finally:
            child.kill()
