"""The content of the kit for machines without a package index; nothing is downloaded."""

import importlib.util
import random
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("packaging", reason="packaging not installed; it comes with the extra `test`")
SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "gpu" / "offline_kit.py"
spec = importlib.util.spec_from_file_location("offline_kit", SCRIPT)
offline_kit = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = offline_kit
spec.loader.exec_module(offline_kit)

CORE = {"numpy", "pydantic", "pydantic-core", "grain", "pyyaml", "typing-extensions"}


def test_requirements_are_followed():
    found = offline_kit.needed("3.12", {"report"}, set())
    assert found >= CORE | {"matplotlib", "jinja2", "markupsafe"}
    assert not found & {"torch", "jittor", "pytest", "transfg"}


def test_packages_of_the_machine_are_left_out_with_those_that_only_they_need():
    found = offline_kit.needed("3.12", {"report"}, {"matplotlib", "pydantic"})
    assert not found & {"matplotlib", "kiwisolver", "pydantic", "pydantic-core"}
    assert found >= {"numpy", "jinja2"}


def test_markers_are_evaluated_for_the_other_python():
    if importlib.util.find_spec("jittor") is None:
        pytest.skip("jittor is not installed")
    assert "jittor" in offline_kit.needed("3.12", {"jittor"}, set())
    assert "jittor" not in offline_kit.needed("3.13", {"jittor"}, set())


@pytest.fixture
def make_kit(tmp_path, monkeypatch):
    """Run the script with small wheels in place of downloads; return the archive."""

    def fetch(package, python, out):
        name = package.split("==")[0].replace("-", "_")
        with zipfile.ZipFile(out / f"{name}-1-py3-none-any.whl", "w") as wheel:
            wheel.writestr("run.sh", random.Random(name).randbytes(100_000))
            wheel.getinfo("run.sh").external_attr = 0o755 << 16

    def make(*options):
        out = tmp_path / "build/kit.tar.xz"
        monkeypatch.setattr(offline_kit, "fetch", fetch)
        monkeypatch.setattr(sys, "argv", ["kit", str(out), "--extras", "report", *options])
        offline_kit.main()
        return out

    return make


def test_a_kit_that_grows_too_large_is_refused(make_kit, capsys):
    with pytest.raises(SystemExit, match=r"more than --limit 1 MiB"):
        make_kit("--limit", "1")
    assert "numpy==" in capsys.readouterr().out


def test_wheels_come_whole_out_of_the_archive(make_kit, tmp_path):
    with tarfile.open(make_kit()) as archive:
        archive.extractall(tmp_path / "wheels", filter="data")
    names = sorted(path.name for path in (tmp_path / "wheels").iterdir())
    assert "numpy-1-py3-none-any.whl" in names and len(names) > 5
    with zipfile.ZipFile(tmp_path / "wheels/numpy-1-py3-none-any.whl") as wheel:
        assert wheel.read("run.sh") == random.Random("numpy").randbytes(100_000)
        assert wheel.getinfo("run.sh").external_attr >> 16 == 0o755
        assert wheel.getinfo("run.sh").compress_type == zipfile.ZIP_STORED
    assert [path.name for path in (tmp_path / "build").iterdir()] == ["kit.tar.xz"]


def test_help_needs_nothing():
    done = subprocess.run([sys.executable, SCRIPT, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--python" in done.stdout
