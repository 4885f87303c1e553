"""The demo's folder for temporary files, with other demos that start at the same time."""

import fcntl
import shutil

import pytest

from transfg.demo import temporary


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(temporary.tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_in_use_stays_and_an_abandoned_one_goes(place):
    (place / "transfg-demo-abandoned").mkdir()
    with temporary.own_folder() as folder:
        assert list(place.iterdir()) == [folder]
        temporary.remove_abandoned()
        assert folder.exists()
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("moment", ["before it is opened", "before it is locked"])
def test_another_demo_may_remove_a_folder_that_is_not_locked_yet(place, monkeypatch, moment):
    made, lock = temporary.tempfile.mkdtemp, fcntl.flock
    removed = []

    def remove_once(path):
        if not removed:
            shutil.rmtree(path)
            removed.append(path)

    def mkdtemp(prefix):
        folder = made(prefix=prefix)
        if moment == "before it is opened":
            remove_once(folder)
        return folder

    def flock(descriptor, operation):
        if moment == "before it is locked":
            remove_once(next(place.iterdir()))
        lock(descriptor, operation)

    monkeypatch.setattr(temporary.tempfile, "mkdtemp", mkdtemp)
    monkeypatch.setattr(temporary.fcntl, "flock", flock)
    with temporary.own_folder() as folder:
        assert len(removed) == 1 and folder.exists()
        temporary.remove_abandoned()
        assert folder.exists(), "it is locked"
