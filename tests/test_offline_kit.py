"""What the kit for machines without an index holds; nothing is downloaded here."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("packaging", reason="packaging not installed; it comes with the extra `test`")
SCRIPT = Path(__file__).resolve().parents[1] / "tools" / "offline_kit.py"
spec = importlib.util.spec_from_file_location("offline_kit", SCRIPT)
offline_kit = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = offline_kit
spec.loader.exec_module(offline_kit)

CORE = {"numpy", "pydantic", "pydantic-core", "grain", "pyyaml", "typing-extensions"}


def test_requirements_are_followed():
    found = offline_kit.needed("3.12", {"report"}, set())
    assert found >= CORE | {"matplotlib", "jinja2", "markupsafe"}
    assert not found & {"torch", "jittor", "pytest", "transfg"}


def test_what_is_there_is_left_out_with_what_it_alone_needs():
    found = offline_kit.needed("3.12", {"report"}, {"matplotlib", "pydantic"})
    assert not found & {"matplotlib", "kiwisolver", "pydantic", "pydantic-core"}
    assert found >= {"numpy", "jinja2"}


def test_markers_are_the_other_pythons():
    if importlib.util.find_spec("jittor") is None:
        pytest.skip("jittor is not installed")
    assert "jittor" in offline_kit.needed("3.12", {"jittor"}, set())
    assert "jittor" not in offline_kit.needed("3.13", {"jittor"}, set())


def test_a_kit_that_grows_too_large_is_refused(tmp_path, monkeypatch, capsys):
    def fetch(package, python, out):
        (out / f"{package.split('==')[0].replace('-', '_')}-1-py3-none-any.whl").write_bytes(
            bytes(100_000)
        )

    (tmp_path / "old-1-py3-none-any.whl").touch()
    monkeypatch.setattr(offline_kit, "fetch", fetch)
    monkeypatch.setattr(sys, "argv", ["kit", str(tmp_path), "--extras", "report", "--limit", "1"])
    with pytest.raises(SystemExit, match=r"more than --limit 1 MiB"):
        offline_kit.main()
    assert not (tmp_path / "old-1-py3-none-any.whl").exists()
    assert "numpy==" in capsys.readouterr().out


def test_help_needs_nothing():
    done = subprocess.run([sys.executable, SCRIPT, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--python" in done.stdout
