"""Paths with spaces, quotes and other special characters: another folder, or a clear message."""

import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec

import pytest

from transfg_core.errors import UserError
from transfg_jt.setup import home

ODD = ["my home", "o'neil", 'the "house"', "a$HOME", "a`b", "x;y", "a&b", "(1)", "tab\there"]


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """An empty folder instead of /var/tmp, and no JITTOR_HOME."""
    monkeypatch.setattr(home, "SHARED", tmp_path)
    monkeypatch.setenv("JITTOR_HOME", "")  # so that the test's own value is removed afterwards
    monkeypatch.delenv("JITTOR_HOME")
    return tmp_path / f"transfg-jittor-{os.getuid()}"


@pytest.mark.parametrize("name", ODD)
def test_caches_go_elsewhere_if_the_home_folder_is_odd(shared, monkeypatch, capsys, name):
    monkeypatch.setenv("HOME", f"/home/{name}")
    home.choose_home()
    assert os.environ["JITTOR_HOME"] == str(shared)
    assert shared.stat().st_mode & 0o777 == 0o700
    said = capsys.readouterr().err
    assert f"/home/{name}" in said and "JITTOR_HOME" in said and str(shared) in said
    del os.environ["JITTOR_HOME"]
    home.choose_home()  # the next process uses the same folder, and says nothing
    assert os.environ["JITTOR_HOME"] == str(shared)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["me", "张三", "Zoë-2.0_x+y@z,%"])
def test_other_homes_are_left_alone(shared, monkeypatch, capsys, name):
    monkeypatch.setenv("HOME", f"/home/{name}")
    home.choose_home()
    assert "JITTOR_HOME" not in os.environ and not shared.exists()
    monkeypatch.setenv("JITTOR_HOME", f"/data/{name}")
    monkeypatch.setenv("HOME", "/home/my home")
    home.choose_home()
    assert os.environ["JITTOR_HOME"] == f"/data/{name}" and not shared.exists()


@pytest.mark.parametrize("name", ODD)
def test_an_odd_jittor_home_is_refused(shared, monkeypatch, name):
    monkeypatch.setenv("JITTOR_HOME", f"/data/{name}")
    with pytest.raises(UserError, match="JITTOR_HOME=.* contains .*; set JITTOR_HOME to a folder"):
        home.choose_home()


@pytest.mark.parametrize("kind", ["link", "file", "open to others", "of somebody else"])
def test_a_folder_that_others_control_is_refused(shared, monkeypatch, tmp_path, kind):
    """Jittor runs code from its cache."""
    monkeypatch.setenv("HOME", "/home/my home")
    if kind == "link":
        (tmp_path / "theirs").mkdir()
        shared.symlink_to(tmp_path / "theirs")
    elif kind == "file":
        shared.touch()
    else:
        shared.mkdir()
        shared.chmod(0o777 if kind == "open to others" else 0o700)
    if kind == "of somebody else":
        monkeypatch.setattr(home.os, "getuid", lambda: 12345)
        shared.rename(shared.with_name("transfg-jittor-12345"))
    with pytest.raises(UserError, match="you alone can write to.*JITTOR_HOME"):
        home.choose_home()
    assert "JITTOR_HOME" not in os.environ


@pytest.mark.parametrize("where", ["interpreter", "package"])
def test_an_environment_with_an_odd_path_is_refused(monkeypatch, where):
    home.check_paths()
    if where == "interpreter":
        monkeypatch.setattr(sys, "executable", "/home/me/my env/bin/python")
    else:
        odd = ModuleSpec("jittor", None, origin="/home/me/my env/lib/jittor/__init__.py")
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: odd)
    with pytest.raises(UserError, match="my env.* contains ' '.*virtual environment in a folder"):
        home.check_paths()
