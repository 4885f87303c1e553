"""Checkpoints: nothing is lost or half-written, whatever goes wrong."""

import errno
import io
import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from transfg_core.checkpoints import file as checkpoint
from transfg_core.errors import RunFailed, UserError

ARRAYS = {
    "param/a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "momentum/a": np.ones((2, 3), np.float32),
    "optim/updates": np.asarray(7),
}
METADATA = {"update": 7, "backend": "torch", "best": 0.5, "classes": ["a", "é"], "none": None}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "last.safetensors"


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].shape == array.shape and found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_round_trip(path):
    checkpoint.save(path, ARRAYS, METADATA)
    arrays, metadata = checkpoint.load(path)
    assert_same(arrays, ARRAYS)
    assert metadata == METADATA
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    array=hnp.arrays(
        st.sampled_from([np.float32, np.float64, np.int64, np.int32, np.uint8, np.bool_]),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    ),
    layout=st.sampled_from(["C", "F", "reversed", "strided", "big-endian"]),
)
def test_any_memory_layout_survives(path, array, layout):
    expected = array.copy()
    if layout == "F":
        array = np.asfortranarray(array).reshape(array.shape)
    elif layout == "reversed" and array.ndim:
        array = array[::-1].copy()[::-1]
    elif layout == "strided" and array.ndim:
        array = np.repeat(array, 2, axis=-1)[..., ::2]
    elif layout == "big-endian":
        array = array.astype(array.dtype.newbyteorder(">"))
    checkpoint.save(path, {"x": array, "t": array.T}, {})
    found, _ = checkpoint.load(path)
    assert_same(found, {"x": expected, "t": expected.T})


def test_same_input_same_bytes(path):
    checkpoint.save(path, ARRAYS, METADATA)
    first = path.read_bytes()
    reordered = dict(reversed(list(METADATA.items())))
    checkpoint.save(path, dict(reversed(list(ARRAYS.items()))), reordered)
    assert path.read_bytes() == first


def test_metadata_is_one_json_string(path):
    checkpoint.save(path, ARRAYS, METADATA)
    with safetensors.safe_open(path, framework="numpy") as opened:
        assert list(opened.metadata()) == [checkpoint.KEY]


@pytest.mark.parametrize("value", [float("nan"), {1, 2}])
def test_metadata_that_is_not_json_is_refused_before_anything_is_written(path, value):
    with pytest.raises((ValueError, TypeError)):
        checkpoint.save(path, ARRAYS, {"bad": value})
    assert not list(path.parent.iterdir())


def foreign(metadata):
    return safetensors.numpy.save({"x": np.zeros(2)}, metadata=metadata)


def npz():
    file = io.BytesIO()
    np.savez(file, x=np.zeros(2))
    return file.getvalue()


def bfloat16():
    """safetensors by hand: length of the header, header, two numbers of two bytes."""
    entry = {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}
    text = json.dumps({"format": 1, "metadata": {}})
    header = json.dumps({"__metadata__": {"transfg": text}, "param/x": entry}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4)


DEEP = '{"format": 1, "metadata": {"x": ' + "[" * 40 + "]" * 40 + "}}"

BROKEN = {
    "bfloat16": (bfloat16(), "found BF16 in param/x"),
    "empty": (b"", "empty file"),
    "text": (b"hello, this is no checkpoint at all", "cut or damaged"),
    "cut, and like a pickle": ((0x280).to_bytes(8, "little") + b'{"__meta', "cut or damaged"),
    "pickle": (pickle.dumps({"model": [1, 2]}), "a Python pickle, .*set model.pretrained"),
    "npz": (npz(), "an .npz of arrays; .*set model.pretrained to this file"),
    "broken zip": (b"PK\x03\x04" + bytes(100), "a zip archive; unpack it first"),
    "cut, and like a page": ((0x3C20).to_bytes(8, "little") + b'{"__metadata', "cut or damaged"),
    "a web page": (b"<!DOCTYPE html><html>404</html>" + bytes(99), "a web page.*download the file"),
    "without metadata": (foreign(None), "without its 'transfg' metadata"),
    "other metadata": (foreign({"format": "pt"}), "without its 'transfg' metadata"),
    "damaged metadata": (foreign({"transfg": "{"}), "JSON under the metadata key"),
    "foreign json": (foreign({"transfg": "[]"}), "JSON under the metadata key"),
    "not a number": (foreign({"transfg": '{"format": 1, "metadata": {"x": NaN}}'}), "JSON under"),
    "deep": (foreign({"transfg": "[" * 100_000}), "JSON under the metadata key"),
    "deep, but JSON": (foreign({"transfg": DEEP}), "JSON under the metadata key"),
    "a key too many": (foreign({"transfg": '{"format": 1, "metadata": {}, "x": 1}'}), "JSON under"),
    "format as text": (foreign({"transfg": '{"format": "1", "metadata": {}}'}), "JSON under"),
    "a huge header": ((2**40).to_bytes(8, "little") + b"{" + bytes(100), "a header of 10995116"),
    "newer": (foreign({"transfg": '{"format": 99, "metadata": {}}'}), "found 99"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_are_explained(path, kind):
    data, message = BROKEN[kind]
    path.write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        checkpoint.load(path)
    assert str(path) in str(caught.value) and "expected" in str(caught.value)


def test_missing_file_and_folder(path):
    for wrong in (path, path.parent):
        with pytest.raises(UserError, match="check the path"):
            checkpoint.load(wrong)


def test_every_truncation_is_noticed(path):
    checkpoint.save(path, ARRAYS, METADATA)
    whole = path.read_bytes()
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError):
            checkpoint.load(path)


def test_every_flipped_bit_is_found(path):
    """In the header's length, in the header, in the metadata and in the numbers."""
    checkpoint.save(path, ARRAYS, METADATA)
    whole = path.read_bytes()
    for position in range(len(whole)):
        bit = position * 5 % 8  # another one at each place, and in the end each one everywhere
        damaged = bytearray(whole)
        damaged[position] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            arrays, metadata = checkpoint.load(path)
        except UserError:
            continue
        # one space of JSON for another, or a hexadecimal digit in capitals, changes nothing
        assert_same(arrays, ARRAYS)
        assert metadata == METADATA
        assert damaged[position : position + 1].isspace() or damaged[position] in b"ABCDEF"


def test_a_file_of_an_older_version_has_no_checksum(path):
    text = json.dumps({"format": 1, "metadata": METADATA}, sort_keys=True)
    path.write_bytes(safetensors.numpy.save(ARRAYS, metadata={"transfg": text}))
    arrays, metadata = checkpoint.load(path)
    assert_same(arrays, ARRAYS)
    assert metadata == METADATA == checkpoint.load_metadata(path)


def test_what_is_no_regular_file_is_refused(path):
    """Reading a pipe would wait for its writer."""
    os.mkfifo(path)
    for name in (path, Path("/dev/zero"), path.parent):
        with pytest.raises(UserError, match=f"{name}: .*no regular file"):
            checkpoint.load(name)


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_failing_disk_leaves_the_old_file(path, monkeypatch, call, code):
    checkpoint.save(path, ARRAYS, METADATA)
    old = path.read_bytes()

    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(RunFailed, match=os.strerror(code)) as caught:
        checkpoint.save(path, {"x": np.zeros(1000)}, {})
    assert str(path) in str(caught.value) and caught.value.exit_code == 1
    assert path.read_bytes() == old
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


LIMITED = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from transfg_core.checkpoints import file as checkpoint
from transfg_core.errors import RunFailed
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing past the limit then fails like a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    checkpoint.save(Path(sys.argv[1]), {"x": np.zeros(100_000)}, {})
except RunFailed as error:
    sys.exit(f"refused: {error}")
"""


def test_a_write_that_stops_in_the_middle_leaves_the_old_file(path):
    checkpoint.save(path, ARRAYS, METADATA)
    done = subprocess.run([sys.executable, "-c", LIMITED, path], capture_output=True, text=True)
    assert "refused" in done.stderr and str(path) in done.stderr
    assert_same(checkpoint.load(path)[0], ARRAYS)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_folder_that_is_missing(path):
    with pytest.raises(RunFailed, match="check the folder"):
        checkpoint.save(path.parent / "absent" / path.name, ARRAYS, {})


STOPPED = """
import os, sys
from pathlib import Path
import numpy as np
from transfg_core.checkpoints import file as checkpoint
def stop(*_):
    print("writing", flush=True)
    sys.stdin.read()
os.fsync = stop
checkpoint.save(Path(sys.argv[1]), {"x": np.zeros(1000)}, {})
"""


def test_kill_during_a_write_leaves_the_old_file_and_the_next_save_cleans_up(path):
    checkpoint.save(path, ARRAYS, METADATA)
    writer = subprocess.Popen(
        [sys.executable, "-c", STOPPED, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with writer:
        assert writer.stdout.readline() == b"writing\n"
        # A living writer's file is left alone.
        checkpoint.save(path.with_name("other.safetensors"), ARRAYS, {})
        assert len(list(path.parent.glob(f".*{checkpoint.TEMPORARY}"))) == 1
        writer.kill()
        assert writer.wait() == -signal.SIGKILL
    assert_same(checkpoint.load(path)[0], ARRAYS)
    assert len(list(path.parent.glob(f".*{checkpoint.TEMPORARY}"))) == 1
    checkpoint.save(path, {"x": np.zeros(3)}, {})
    assert not list(path.parent.glob(f".*{checkpoint.TEMPORARY}"))


def test_bfloat16_is_refused_where_another_package_adds_it(tmp_path):
    """Packages such as onnx import ml_dtypes, and then NumPy can hold bfloat16 after all."""
    pytest.importorskip("ml_dtypes")
    path = tmp_path / "a.safetensors"
    path.write_bytes(bfloat16())
    with pytest.raises(UserError, match="found BF16 in param/x; convert the file to float32"):
        checkpoint.load(path)
