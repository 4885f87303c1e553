"""The distribution `transfg-parity`: it compares traces where only NumPy and PyYAML are."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml
from test_layering import GENERIC

import parity
from transfg_core import __version__

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "parity"
PROJECT = tomllib.loads((FOLDER / "pyproject.toml").read_text(encoding="utf-8"))

RECORD = """
import sys
import numpy as np
from parity import record_taps
rng = np.random.default_rng(0)
weights = {"w": rng.standard_normal((3, 4)).astype("f4")}
x = rng.standard_normal((5, 3)).astype("f4")
about = dict(weights=weights, inputs={"x": x}, settings={}, version="1", precision="float32",
             device="cpu", threads=1)
y = x @ weights["w"]
for name, value in (("a", y), ("b", y), ("wrong", 1.5 * y), ("open", y * np.float32(1 + 2e-6))):
    record_taps(name + ".npz", {"forward/y": value, "forward/one": y}, framework=name, **about)
record_taps("odd.npz", {"forward/y": y}, framework="odd", **about | {"weights": {"w": y}})
"""

TEST = """
import pytest
from parity.testing import assert_equivalent

assert_equivalent(["a.npz", "b.npz"])
try:
    assert_equivalent(["a.npz", "wrong.npz"])
except AssertionError as error:
    print(error)
"""

ABSENT = """
import importlib.util, sys
names = ("transfg_core", "transfg", "scipy", "pydantic", "rich", "typer", "torch", "jittor",
         "jinja2", "matplotlib")
found = [name for name in names if importlib.util.find_spec(name)]
found += [room for room in ("suite", "cases", "runs") if importlib.util.find_spec("parity." + room)]
import parity
print(found, parity.__version__)
"""


def test_the_versions_are_equal():
    assert parity.__version__ == __version__


def test_every_generic_package_is_in_the_distribution():
    found = {"parity"}
    for room in GENERIC:
        for path in (FOLDER / room).rglob("__init__.py"):
            found.add(".".join(path.parent.relative_to(ROOT).parts))
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A new virtual environment with the wheel, NumPy and PyYAML, and nothing else."""
    place = tmp_path_factory.mktemp("distribution")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    shutil.copytree(FOLDER, place / "source", ignore=ignored)
    clean = {key: text for key, text in os.environ.items() if key != "PYTHONPATH"}
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    python = place / "env/bin/python"
    wheel = [
        *pip,
        "wheel",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        "built",
        "./source",
    ]
    venv = [sys.executable, "-m", "venv", "--without-pip", "env"]
    install = [*pip, "--python", str(python), "install", "--no-deps", "--no-index"]
    for command in (wheel, venv, install):
        if command is install:
            command = [*install, *map(str, (place / "built").glob("transfg_parity-*.whl"))]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, env=clean)
        assert done.returncode == 0, done.stderr
    (site,) = (place / "env/lib").glob("python*/site-packages")
    for module in (np, yaml):
        package = Path(module.__file__).parent
        for path in (package, *package.parent.glob(f"{package.name}.libs")):
            (site / path.name).symlink_to(path)
    return place


PAIR = """
import importlib.util
import numpy as np
from parity import Pair, Side, normal

def build():
    return (lambda weights, inputs: {"y": inputs["x"] @ weights["w"]}), {"w": np.zeros((3, 4))}

def alone():
    for name in ("yaml", "numpy_of_the_parent"):
        assert not importlib.util.find_spec(name), f"{name} can be seen"
    return build()

pair = Pair(Side("numpy", build), Side("numpy", alone, python="side/bin/python"),
            {"x": normal(5, 3)})
"""


def test_a_pair_with_another_interpreter(environment):
    """The side's environment has NumPy alone, and what lies beside the wheel is not seen there."""
    (site,) = (environment / "env/lib").glob("python*/site-packages")
    (site / "numpy_of_the_parent.py").touch()
    venv = [sys.executable, "-m", "venv", "--without-pip", "side"]
    subprocess.run(venv, cwd=environment, check=True)
    (own,) = (environment / "side/lib").glob("python*/site-packages")
    for path in (Path(np.__file__).parent, *Path(np.__file__).parents[1].glob("numpy.libs")):
        (own / path.name).symlink_to(path)
    (environment / "pair.py").write_text(PAIR, encoding="utf-8")
    done = run(environment, "parity", "run", "pair.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verdict: equivalent" in done.stdout


def run(place, *words):
    """A command in the new environment, in the folder of the traces."""
    command = [str(place / "env/bin" / words[0]), *words[1:]]
    clean = {key: text for key, text in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(command, cwd=place, capture_output=True, text=True, env=clean)


@pytest.fixture(scope="module")
def recorded(environment):
    done = run(environment, "python", "-c", RECORD)
    assert done.returncode == 0, done.stderr
    return environment


def test_nothing_else_is_installed(environment):
    done = run(environment, "python", "-c", ABSENT)
    assert done.stdout == f"[] {__version__}\n", done.stderr


@pytest.mark.parametrize(
    "candidate, code, text",
    [
        ("b", 0, "verdict: equivalent"),
        ("wrong", 1, "verdict: different, begins at forward/y in float32: error"),
        ("open", 2, "verdict: undecided, begins at forward/y in float32: "),
        ("odd", 2, "weights: 0 of 1 equal; w (3, 4) has the shape (5, 4) in the second"),
        ("absent", 2, "absent.npz: no such trace"),
    ],
)
def test_compare(recorded, candidate, code, text):
    done = run(recorded, "parity", "compare", "a.npz", f"{candidate}.npz")
    assert (done.returncode, text in done.stdout + done.stderr) == (code, True), done
    assert "Traceback" not in done.stderr


def test_reports_without_the_page(recorded):
    words = ("--out", "report", "--junit", "ci/tests.xml")
    done = run(recorded, "python", "-m", "parity", "compare", "a.npz", "wrong.npz", *words)
    assert done.returncode == 1 and "report.html is not written" in done.stderr
    assert {path.name for path in (recorded / "report").iterdir()} == {"junit.xml", "parity.json"}
    assert json.loads((recorded / "report/parity.json").read_text())["verdict"] == "different"
    assert '<failure type="different"' in (recorded / "ci/tests.xml").read_text()


def test_show(recorded):
    done = run(recorded, "parity", "show", "a.npz")
    assert done.returncode == 0 and "forward/y    float32  5 x 4" in done.stdout
    done = run(recorded, "parity", "show", "a.npz", "--tap", "forward/z")
    assert done.returncode == 2 and "no tap forward/z; expected one such as" in done.stderr


def test_the_pytest_helper_needs_no_pytest(recorded):
    done = run(recorded, "python", "-c", TEST.replace("import pytest\n", ""))
    assert done.returncode == 0, done.stderr
    assert "First tap: forward/y in float32: different" in done.stdout
    assert "Mismatched taps: 1 / 2 (1 equivalent, 1 different)" in done.stdout
