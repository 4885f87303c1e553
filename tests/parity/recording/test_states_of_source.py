"""Recordings of two states of the source are refused, and those of source that has changed."""

import json
import shutil

import pytest
from test_running_pairs import run, written

from parity.command import main
from parity.errors import ParityError
from parity.folder import compare_folder
from parity.testing import assert_equivalent

CODE = "from beside import slope; return network(-1, slope)"
QUICK = "variants=0"


@pytest.fixture
def pair(tmp_path):
    """A pair file whose candidate imports what lies beside it."""
    (tmp_path / "beside.py").write_text("slope = 0.0")
    return written(tmp_path, CODE, QUICK)


def test_a_folder_of_old_and_new_recordings_is_refused(pair, tmp_path, capsys):
    out = tmp_path / "out"
    run(pair, out)
    compare_folder(out)
    (tmp_path / "beside.py").write_text("slope = 0.25")
    run(pair, tmp_path / "new")
    for path in (tmp_path / "new").glob("*-float32.npz"):  # an interrupted run ends so
        shutil.copy(path, out)
    assert main(["compare", str(out)]) == 2
    error = capsys.readouterr().err
    assert f"run `parity run {pair} --out {out}` again" in error


def test_recordings_of_one_side_are_of_one_state(pair, tmp_path):
    """Also where no recording uses another one."""
    out = tmp_path / "out"
    run(pair, out)
    (tmp_path / "beside.py").write_text("slope = 0.25")
    run(pair, tmp_path / "new")
    shutil.copy(tmp_path / "new/candidate-pass-float64.npz", out)
    for path in out.glob("baseline-pass-float64*.npz"):
        path.unlink()
    with pytest.raises(ParityError, match=r"float64.npz: candidate: .*beside.py has changed betw"):
        compare_folder(out)


def test_a_recording_that_used_another_one_is_refused(pair, tmp_path):
    """The baseline follows the candidate's choices: those of the recording that is there."""
    out = tmp_path / "out"
    run(pair, out)
    run(written(tmp_path, CODE, QUICK + ", tag='new'"), tmp_path / "new")
    for path in (tmp_path / "new").glob("candidate-*.npz"):
        shutil.copy(path, out)
    with pytest.raises(ParityError, match="it used another candidate-pass-float32 than the one"):
        compare_folder(out)


def test_a_pair_file_is_recorded_and_judged(pair, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_equivalent("pair.py")
    assert (tmp_path / "parity-pair/recordings.json").is_file()
    (tmp_path / "beside.py").write_text("slope = 0.25")
    with pytest.raises(AssertionError, match="forward/h in float32: different"):
        assert_equivalent(pair, out=tmp_path / "parity-pair")
    (tmp_path / "beside.py").write_text("slope = (")
    with pytest.raises(ParityError, match="SyntaxError"):
        assert_equivalent(pair)
    with pytest.raises(ParityError, match="names: .* has fields for these"):
        assert_equivalent(pair, names={"a": "b"})


def test_a_folder_whose_source_has_changed_fails(pair, tmp_path):
    out = tmp_path / "out"
    run(pair, out)
    assert_equivalent(out)
    for text in ("slope = 0.0  # a comment", "slope = ("):
        (tmp_path / "beside.py").write_text(text)
        with pytest.raises(
            ParityError, match=r"beside.py changed since; run `parity run .*pair.py"
        ):
            assert_equivalent(out)
    (tmp_path / "beside.py").unlink()
    with pytest.raises(ParityError, match=r"beside.py changed since"):
        assert_equivalent(out)
    assert json.loads((out / "recordings.json").read_text())
