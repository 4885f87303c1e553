"""Precompiled headers for Jittor's operators: the compiler uses them, or none is left."""

import shutil
import subprocess

import pytest

from transfg_jt.setup import precompiled

COMPILER = shutil.which("g++")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no g++ on PATH")


@pytest.fixture
def header(tmp_path, monkeypatch):
    """Path of a small header instead of Jittor's."""
    monkeypatch.setattr(precompiled, "TEXT", "#define JIT 1\n#include <vector>\n")
    return tmp_path / "precompiled" / "0.h"


def files(header):
    return sorted(path.name for path in header.parent.iterdir())


def test_the_compiler_uses_it(header, tmp_path):
    command = [COMPILER, "-std=c++14", "-Ofast", "-g"]
    assert precompiled.precompile(command, header)
    assert files(header) == ["0.h", "0.h.gch", "0.size"]
    source = tmp_path / "an_op.cc"
    source.write_text("#define JIT 1\nstd::vector<int> one(1);\n")
    listed = [*command, f"-include{header}", "-H", "-c", str(source), "-o", str(tmp_path / "o")]
    said = subprocess.run(listed, check=True, capture_output=True, text=True).stderr
    assert said.splitlines()[0] == f"! {header}.gch"  # `!`: used, `x`: not used


def test_a_failure_leaves_nothing(header, tmp_path):
    """Of the compiler, as with a full disk; or of a compiler that then refuses its own header."""
    assert not precompiled.precompile([COMPILER, "--no-such-option"], header)
    assert files(header) == []
    assert not precompiled.precompile([str(tmp_path / "no-compiler")], header)
    refusing = tmp_path / "g++"
    script = f'#!/bin/sh\ncase "$*" in *-Winvalid-pch*) exit 1;; esac\n{COMPILER} "$@"\n'
    refusing.write_text(script)
    refusing.chmod(0o755)
    assert not precompiled.precompile([str(refusing), "-g"], header)
    assert files(header) == []


def test_a_truncated_file_is_compiled_again(header):
    """GCC would stop with "cannot read PCH file"."""
    assert not precompiled.is_whole(header)
    assert precompiled.precompile([COMPILER], header)
    assert precompiled.is_whole(header)
    compiled = header.with_suffix(".h.gch")
    whole = compiled.read_bytes()
    compiled.write_bytes(whole[:5000])
    assert not precompiled.is_whole(header)
    assert precompiled.precompile([COMPILER], header)
    assert precompiled.is_whole(header)
    compiled.unlink()
    assert not precompiled.is_whole(header)


def test_files_of_other_flags_are_deleted(header):
    header.parent.mkdir()
    for name in ("1.h.gch", "1.h", "2-77.h.gch"):  # the last: another process is writing it
        (header.parent / name).write_text("")
    assert precompiled.precompile([COMPILER], header)
    assert files(header) == ["0.h", "0.h.gch", "0.size", "1.h", "2-77.h.gch"]


def test_a_folder_that_cannot_be_created(tmp_path):
    (tmp_path / "file").write_text("")
    assert not precompiled.precompile([COMPILER], tmp_path / "file" / "0.h")
