"""The runner of stages: limits, failures and kept files."""

import importlib.util
import json
import re
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tools" / "gpu" / "unattended.py"


@pytest.fixture
def run(tmp_path):
    """Run stages given as (name, command, seconds); return exit code, results and process."""

    def call(*stages, options=()):
        path = tmp_path / "stages.yaml"
        keys = ("name", "command", "seconds")
        path.write_text(yaml.safe_dump([dict(zip(keys, s, strict=True)) for s in stages]))
        command = [sys.executable, SCRIPT, tmp_path / "out", "--stages", path, *options]
        done = subprocess.run(command, capture_output=True, text=True)
        summary = tmp_path / "out/summary.json"
        results = json.loads(summary.read_text()) if summary.exists() else []
        return done.returncode, {row["name"]: row["status"] for row in results}, done

    return call


def kept(out, name):
    with tarfile.open(out / f"{name}.tar.gz") as archive:
        return {Path(member.name).name for member in archive if member.isfile()}


def test_each_stage_leaves_what_it_wrote_and_its_log(run, tmp_path):
    code, statuses, done = run(
        ("one", "echo hello; pwd; $PYTHON -c 'import transfg_core'; touch $STAGE/a", 60),
        ("two", "$PYTHON -m transfg --help > $STAGE/help.txt && exit 3", 60),
        ("three", "true", 60),
    )
    assert code == 1 and statuses == {"one": 0, "two": 3, "three": 0}
    assert kept(tmp_path / "out", "one") == {"log.txt", "a"}
    assert kept(tmp_path / "out", "two") == {"log.txt", "help.txt"}
    assert f"hello\n{ROOT}\n" in done.stdout
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".gz"] * 3 + [".json"]


def test_a_stage_ends_at_its_limit_with_its_children(run, tmp_path):
    mark = tmp_path / "mark"
    started = time.monotonic()
    code, statuses, _ = run(
        ("slow", f"touch $STAGE/a; (sleep 6; touch {mark}) & sleep 600", 2), ("next", "true", 60)
    )
    assert code == 1 and statuses == {"slow": "timeout", "next": 0}
    assert kept(tmp_path / "out", "slow") == {"log.txt", "a"}
    time.sleep(max(0.0, 8 - (time.monotonic() - started)))
    assert not mark.exists()


def test_a_run_that_is_stopped_keeps_the_output_so_far(tmp_path):
    stages, mark = tmp_path / "stages.yaml", tmp_path / "mark"
    command = f"touch $STAGE/a; (sleep 4; touch {mark}) & touch {tmp_path}/begun; sleep 600"
    stages.write_text(yaml.safe_dump([{"name": "slow", "command": command, "seconds": 600}]))
    child = subprocess.Popen([sys.executable, SCRIPT, tmp_path / "out", "--stages", stages])
    while not (tmp_path / "begun").exists():
        time.sleep(0.1)
    child.terminate()
    assert child.wait(60) == 143
    assert kept(tmp_path / "out", "slow") == {"log.txt", "a"}
    time.sleep(5)
    assert not mark.exists()


def test_a_kit_comes_before_installed_packages(run, tmp_path):
    """The wheel is made by hand; PyYAML comes from this interpreter."""
    about = "kitmod-1.dist-info"
    path = tmp_path / "kitmod-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("kitmod.py", "")
        wheel.writestr("rich.py", "")
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: kitmod\nVersion: 1\n")
        tags = "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{about}/WHEEL", tags)
        wheel.writestr(f"{about}/RECORD", "")
    with tarfile.open(tmp_path / "kit.tar.xz", "w:xz") as archive:
        archive.add(path, path.name)
    code = "import kitmod, yaml, rich; print(rich.__file__)"
    options = ["--kit", tmp_path / "kit.tar.xz", "--site", tmp_path / "a site"]
    options += ["--hide", "jinja2"]
    hidden = "try: import jinja2\nexcept ImportError as error: print(error)"
    status, _, done = run(
        ("one", f"$PYTHON -c '{code}'; \"$PYTHON\" -c '{code}'", 60),
        ("two", f"\"$PYTHON\" -c '{hidden}'", 60),
        options=options,
    )
    assert status == 0 and str(tmp_path / "a site") in done.stdout
    assert "hidden by --hide" in done.stdout


def test_a_stage_beyond_the_budget_is_left_out(run):
    code, statuses, _ = run(
        ("one", "sleep 1", 60), ("two", "true", 60), options=["--budget", "5.5"]
    )
    assert code == 1 and statuses == {"one": 0, "two": "left out"}


def test_stages_by_name(run):
    stages = [("one", "true", 60), ("two", "true", 60)]
    assert run(*stages, options=["--only", "two"])[:2] == (0, {"two": 0})
    code, _, done = run(*stages, options=["--only", "tow"])
    assert code == 1 and "error: --only tow: expected some of one, two" in done.stderr


def test_the_projects_stages_are_commands_that_bash_reads():
    stages = yaml.safe_load((ROOT / "tools/gpu/stages.yaml").read_text(encoding="utf-8"))
    assert len({stage["name"] for stage in stages}) == len(stages) > 5
    for stage in stages:
        assert set(stage) == {"name", "command", "seconds"} and stage["seconds"] <= 600
        subprocess.run(["bash", "-n", "-c", stage["command"]], check=True)
        for module in re.findall(r"-m ([\w.]+)", stage["command"]):
            assert importlib.util.find_spec(module), f"{stage['name']}: no module {module}"
        for path in re.findall(r"\b(?:configs|tests|tools)/[\w./]+", stage["command"]):
            assert (ROOT / path).exists(), f"{stage['name']}: no {path}"
