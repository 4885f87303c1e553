"""`transfg doctor` on sound and on broken installations, which folders on the path imitate."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
from running import environment

from transfg import doctor
from transfg.doctor import examine, probe

SHIMS = {
    "raises": "raise RuntimeError('a broken build of Jittor')",
    "cannot import": "import no_such_module_of_jittor",
    "segfault": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "exits": "raise SystemExit(0)",
    "hangs": "import time; time.sleep(600)",
}
NOT_INSTALLED = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in ("torch", "jittor") else find(name, path, target)
PathFinder.find_spec = find_spec
"""


@pytest.fixture
def shim(tmp_path, monkeypatch):
    """A folder that comes first on the path of this process and of the probes."""
    folder = tmp_path / "shim"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))  # Jittor's cache is left alone
    monkeypatch.delenv("JITTOR_HOME", raising=False)
    monkeypatch.syspath_prepend(folder)
    return folder


def package(shim, name, text):
    (shim / name).mkdir()
    (shim / name / "__init__.py").write_text(text)


@pytest.fixture
def fit():
    """Jittor's helper package is there; it is not imported, as it changes the environment."""
    if find_spec("jittor_utils") is None:
        pytest.skip("Jittor is not installed")


@pytest.mark.parametrize(
    ("kind", "timeout", "parts"),
    [
        ("raises", 60, ("does not import: a broken build of Jittor", "rm -r")),
        ("cannot import", 60, ("does not import: No module named 'no_such_module",)),
        ("segfault", 60, ("killed by signal 11 (segmentation fault)", r" -m pip install")),
        ("exits", 60, ("ended with status 0 before it had computed anything",)),
        ("hangs", 4, ("did not answer within 4 s",)),
    ],
)
def test_a_broken_jittor(shim, fit, kind, timeout, parts, monkeypatch, capsys):
    package(shim, "jittor", SHIMS[kind])
    monkeypatch.setattr(doctor, "BACKENDS", {"jittor": "transfg_jt"})
    assert examine(timeout) == 1
    out, err = capsys.readouterr()
    assert "backend jittor\n  works: no\n  reason: " in out and "not working: jittor" in out
    for part in parts:
        assert part in out
    if kind == "hangs":  # its cache is empty here, and so the note comes before the answer
        assert err.startswith("Jittor compiles itself")
    assert "Traceback" not in out or kind == "cannot import"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("torch", "raise ImportError('libtorch.so: cannot open shared object file')"),
        ("torch", "import os; os.abort()"),
        ("torch", "no python"),
    ],
)
def test_a_broken_torch(shim, name, text):
    package(shim, name, text)
    finding = probe(name, 60)
    assert finding.info is None
    lines = "\n".join(doctor.backend_lines(finding))
    assert "-m pip install -e '.[torch]' -c constraints.txt" in lines
    assert any(word in lines for word in ("libtorch.so", "(aborted)", "SyntaxError"))


def test_frameworks_that_are_not_installed(shim):
    (shim / "sitecustomize.py").write_text(NOT_INSTALLED)
    assert examine_text(shim).count("is not installed; run: ") == 2


def examine_text(shim, timeout=60):
    """What the command prints, in a process that is as broken as its probes."""
    command = [sys.executable, "-m", "transfg", "doctor"]
    path = os.pathsep.join([str(shim), environment()["PYTHONPATH"]])
    done = subprocess.run(
        command, env=environment(PYTHONPATH=path), capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    return done.stdout


def test_numpy_2_and_no_compiler(shim, monkeypatch, tmp_path):
    info = shim / "numpy-2.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 2.1.0\n")
    package(shim, "jittor", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("cc_path", raising=False)
    core, machine = doctor.core_lines(), doctor.machine_lines()
    assert "numpy: 2.1.0" in core
    assert any("Jittor cannot run under numpy 2" in line and "'numpy<2'" in line for line in core)
    assert "C++ compiler: missing; run: apt-get install g++" in machine
    assert "wrong numbers with numpy 2" in probe("jittor", 60).reason
    (info / "METADATA").unlink()
    info.rmdir()
    assert "run: apt-get install g++" in probe("jittor", 60).reason


def test_missing_extras_and_headers(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    monkeypatch.setattr(doctor.sysconfig, "get_path", lambda name: str(tmp_path))
    report = f"missing; run: {sys.executable} -m pip install -e '.[report]' -c constraints.txt"
    core = doctor.core_lines()
    for name in ("matplotlib", "Jinja2", "tensorboardX"):
        assert f"{name} (optional): {report}" in core
    assert f"gradio (optional): {report.replace('report', 'demo')}" in core
    assert f"onnxruntime (optional): {report.replace('report', 'onnx')}" in core
    version = ".".join(map(str, sys.version_info[:2]))
    assert f"Python headers: missing; run: apt-get install python{version}-dev" in (
        doctor.machine_lines()
    )
    assert doctor.missing("core").endswith(" -m pip install -e '.' -c constraints.txt")


@pytest.mark.parametrize("module", ["numpy", "pydantic", "yaml", "typer"])
@pytest.mark.parametrize("command", ["doctor", "train"])
def test_a_broken_core_is_named(shim, module, command):
    """Where nothing else imports, the entry point still tells what is broken."""
    package(shim, module, "raise ImportError('cut short')")
    done = subprocess.run(
        [sys.executable, "-m", "transfg.main", command, "no.yaml"],
        env=environment() | {"PYTHONPATH": f"{shim}{os.pathsep}{environment()['PYTHONPATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "does not import: ImportError: cut short; run: " in done.stderr


def test_what_works(request, capsys, monkeypatch):
    names = request.config.getoption("--backends").split(",")
    monkeypatch.setattr(doctor, "BACKENDS", {name: name for name in names})
    assert examine() == 0
    out = capsys.readouterr().out
    for name in names:
        assert f"backend {name}\n  works: yes\n  version: " in out
    for word in ("python: ", "numpy: ", "processor: ", "memory: ", "free disk", "every backend"):
        assert word in out
