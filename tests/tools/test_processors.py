"""The settings of `make processors`, and what it says of a target that fails."""

import os
import stat

import pytest

from tools.processors import SETTINGS, main


@pytest.fixture
def make(tmp_path, monkeypatch):
    """A `make` that notes its setting, and fails under AVX2."""
    program = tmp_path / "make"
    program.write_text(
        "#!/bin/sh\n"
        f'echo "$1 $ATEN_CPU_CAPABILITY $OMP_NUM_THREADS" >> {tmp_path}/log\n'
        'test "$ATEN_CPU_CAPABILITY" != avx2\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    return tmp_path / "log"


def test_every_setting_runs_also_after_one_that_failed(make, capfd):
    assert main([]) == 1
    lines = make.read_text().splitlines()
    assert len(lines) == len(SETTINGS) >= 6
    assert lines[:3] == ["test  2", "test default 2", "test avx2 2"]
    printed = capfd.readouterr().out
    assert "avx2: make test failed with exit code 1" in printed
    assert "native: make test passed" in printed


def test_some_settings_and_another_target(make):
    assert main(["one-thread", "default", "--target", "suite"]) == 0
    assert make.read_text().splitlines() == ["suite  1", "suite default 2"]


def test_an_unknown_setting_is_refused(make, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["avx9"])
    assert "avx9: expected one of native, default" in capsys.readouterr().err
    assert not make.exists()
