"""CIFAR from pickles: every layout, the pixels, what is refused, and how images are unpacked."""

import hashlib
import io
import os
import pickle
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from running import environment, transfg

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets import read_dataset, read_test
from transfg_core.data.datasets.sets.plain_pickle import Refused, read_plain_pickle
from transfg_core.data.datasets.unpacked import Source
from transfg_core.data.decoding import read_image
from transfg_core.errors import RunFailed, UserError

LOSSLESS = Path(__file__).parents[3].parent / "shared/data/cifar10_jpeg/cifar10_lossless4000.npz"
PER_FILE = 4  # images in each file of the small sets
NAMES = {"cifar10": ["plane", "auto", "bird"], "cifar100": ["apple", "aquarium fish", "baby"]}


class Python2Pickler(pickle._Pickler):
    """Writes texts as Python 2 did in protocol 2: as strings of bytes."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_string(self, value):
        content = value.encode("ascii") if isinstance(value, str) else value
        short = len(content) < 256
        size = len(content).to_bytes(1 if short else 4, "little")
        self.write((b"U" if short else b"T") + size + content)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_string


def python2_pickle(value):
    file = io.BytesIO()
    Python2Pickler(file, 2).dump(value)
    return file.getvalue()


def pixels_of(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, 3072)).astype(np.uint8)


def contents(name):
    """File -> dictionary of a small set; classes 0, 1, 2, 0 in each file."""
    ten = name == "cifar10"
    files = [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"] if ten else ["train", "test"]
    found = {
        file: {
            b"data": pixels_of(PER_FILE, seed),
            b"labels" if ten else b"fine_labels": [0, 1, 2, 0],
            b"coarse_labels": [9] * PER_FILE,
            b"filenames": [b"x.png"] * PER_FILE,
        }
        for seed, file in enumerate(files)
    }
    meta = {b"label_names" if ten else b"fine_label_names": [n.encode() for n in NAMES[name]]}
    return found | {"batches.meta" if ten else "meta": meta}


def write(folder, files, dump=python2_pickle):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(dump(content))
    return folder


def archive(folder, name):
    """Put the set into its archive in the folder."""
    inside = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[name]
    write(folder / "away" / inside, contents(name))
    path = folder / f"{name.replace('r1', 'r-1')}-python.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder / "away" / inside, inside)
    for file in (folder / "away" / inside).iterdir():
        file.unlink()
    return path


def read(root, name="cifar10", **keys):
    return read_dataset(DataConfig(name=name, root=str(root), **keys), 0)


def complaint(root, name="cifar10", **keys):
    with pytest.raises(UserError) as caught:
        read(root, name, **keys)
    return str(caught.value)


LAYOUTS = {
    "the folder": lambda root, name, own: write(root, contents(name)),
    "its parent": lambda root, name, own: write(root / own, contents(name)),
    "nested": lambda root, name, own: write(
        root / {"cifar10": "cifar-10-python", "cifar100": "cifar-100-python"}[name] / own,
        contents(name),
    ),
    "archive": lambda root, name, own: archive(root, name),
}


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout(tmp_path, name, layout, capsys):
    own = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[name]
    LAYOUTS[layout](tmp_path, name, own)
    data = read(tmp_path, name)
    assert data.classes == tuple(NAMES[name]) and data.name == name
    files = 5 if name == "cifar10" else 1
    assert data.train.labels.tolist() == [0, 1, 2, 0] * files
    assert data.test.labels.tolist() == [0, 1, 2, 0]
    # a name is a hash of the stored pixels, so that archive and folder give the same ids
    stored = hashlib.sha256(pixels_of(PER_FILE, 0)[0].tobytes()).hexdigest()[:16]
    assert data.train.ids[0] == f"{stored[:2]}/{stored}.png"
    assert len({*data.train.ids, *data.test.ids}) == PER_FILE * (files + 1)
    for samples, seeds in ((data.train, range(files)), (data.test, [files])):
        stored = np.concatenate([pixels_of(PER_FILE, seed) for seed in seeds])
        for path, row in zip(samples.paths, stored, strict=True):
            planes = np.array(read_image(path)).transpose(2, 0, 1)  # red, green, blue
            assert planes.shape == (3, 32, 32) and (planes.ravel() == row).all()
    assert "ciFAIR" in data.caution and data.left_out == ()
    assert "unpacking 60000 images" in capsys.readouterr().err
    (unpacked,) = tmp_path.rglob("unpacked-*")
    before = unpacked.stat().st_mtime_ns
    again = read(tmp_path, name)
    assert again.digest() == data.digest() and unpacked.stat().st_mtime_ns == before
    assert capsys.readouterr().err == ""
    as_list = read(unpacked, "list")
    assert as_list.classes == data.classes and as_list.digest() == data.digest()


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_every_protocol(tmp_path, protocol):
    write(tmp_path, contents("cifar100"), lambda value: pickle.dumps(value, protocol))
    data = read(tmp_path, "cifar100")
    assert data.test.labels.tolist() == [0, 1, 2, 0]
    assert (np.array(read_image(data.test.paths[3])).transpose(2, 0, 1).ravel()
            == pixels_of(PER_FILE, 1)[3]).all()  # fmt: skip


def test_another_content_is_unpacked_anew(tmp_path):
    """Also if the size stays: labels in the middle of a file of some size."""
    files = contents("cifar100")
    filler = pixels_of(200, 9)  # 0.6 MB before and after the labels
    files["test"] = {b"a": filler, **files["test"], b"z": filler + 1}
    first = read(write(tmp_path, files), "cifar100")
    files["test"][b"fine_labels"] = [2, 1, 0, 0]
    second = read(write(tmp_path, files), "cifar100")
    assert second.test.labels.tolist() == [2, 1, 0, 0]
    assert first.test.labels.tolist() == [0, 1, 2, 0]
    copy = write(tmp_path / "copy", files)
    assert Path(read(copy, "cifar100").test.paths[0]).parents[2].name == (
        Path(second.test.paths[0]).parents[2].name
    )  # of a copy elsewhere, the name is the same


class Calls:
    """A pickle that calls something when it is read by Python's own unpickler."""

    def __init__(self, function, *arguments):
        self.what = function, arguments

    def __reduce__(self):
        return self.what


@pytest.mark.parametrize("make", [
    lambda path: Calls(os.system, f"touch {path}"),
    lambda path: Calls(eval, f"__import__('os').mkdir({str(path)!r})"),
    lambda path: Calls(shutil.copy, __file__, str(path)),
    lambda path: Calls(np.memmap, str(path), np.uint8, "w+", 0, 1),
    lambda path: [Calls(os.mkdir, str(path))],
])  # fmt: skip
def test_a_pickle_runs_nothing(tmp_path, make):
    files = contents("cifar100")
    files["train"][b"filenames"] = make(tmp_path / "made")
    assert pickle.loads(pickle.dumps(files["train"])) and (tmp_path / "made").exists()
    made = tmp_path / "made"
    made.rmdir() if made.is_dir() else made.unlink()
    write(tmp_path, files, pickle.dumps)
    message = complaint(tmp_path, "cifar100")
    assert "found the name" in message and "nothing of it was run" in message
    assert not made.exists() and not list(tmp_path.glob("unpacked-*"))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({b"data": np.array([{}], object)}, "'O8'"),
        ({b"data": np.zeros(3, np.float32)}, "'f4'"),
        ({b"data": np.zeros(3, ">i4")}, "order of bytes b?'>'"),
        ([1, 2], "a list instead"),
        ({3: 4}, "an? int instead of a text"),
    ],
)
def test_values_that_are_refused(value, said):
    with pytest.raises(Refused, match=said):
        read_plain_pickle(io.BytesIO(python2_pickle(value)))


def test_arrays_whose_size_lies():
    content = python2_pickle({b"data": np.zeros((2, 3), np.uint8)})
    start = content.index(b"K\x02K\x03")
    lied = content[:start] + b"K\x02K\x09" + content[start + 4 :]
    with pytest.raises(Refused, match="the size of its numbers"):
        read_plain_pickle(io.BytesIO(lied))
    for end in range(len(content)):
        with pytest.raises((Refused, EOFError)):
            read_plain_pickle(io.BytesIO(content[:end]))


def test_columns_first_and_wider_numbers_keep_their_values():
    values = {b"a": np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3)),
              b"b": np.array([1, 300, 70000])}  # fmt: skip
    found = read_plain_pickle(io.BytesIO(python2_pickle(values)))
    assert found["a"].tolist() == [[0, 1, 2], [3, 4, 5]] and found["b"].tolist() == [1, 300, 70000]


def with_entry(file, key, value):
    def change(root):
        files = contents("cifar100")
        files[file][key] = value
        write(root, files)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda root: (root / "test").unlink(), ["expected train, test, meta", "found no test"]),
        (lambda root: (root / "meta").write_bytes(b""), ["meta", "cannot read it (EOFError"]),
        (lambda root: (root / "meta").unlink(), ["expected meta or cifar-100-python.tar.gz"]),
        (lambda root: (root / "train").write_bytes((root / "train").read_bytes()[:999]),
         ["train", "expected a pickle", "nothing of it was run"]),
        (with_entry("test", b"fine_labels", [0, 1, 3, 0]), ["fine_labels[2]", "0 to 2, found 3"]),
        (with_entry("test", b"fine_labels", [0, 1]), ["test", "each of 4 images, found 2 labels"]),
        (with_entry("test", b"fine_labels", "x"), ["test", "found no list"]),
        (with_entry("test", b"data", pixels_of(4, 0)[:, :9]), ["test", "uint8 (4, 9)"]),
        (with_entry("test", b"data", 7), ["test", "found int"]),
        (with_entry("meta", b"fine_label_names", []), ["meta", "names of the classes"]),
        (with_entry("meta", b"fine_label_names", [b"a", b"a", b"b"]), ["classes.txt", "'a'"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path, change, said):
    write(tmp_path, contents("cifar100"))
    change(tmp_path)
    message = complaint(tmp_path, "cifar100")
    assert [part for part in said if part not in message] == [], message
    assert not list(tmp_path.glob("*.partial"))


def test_archives_that_are_wrong_are_named(tmp_path):
    path = archive(tmp_path, "cifar10")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert "is the copy complete?" in complaint(tmp_path)
    path.write_bytes(b"no archive")
    assert "cannot read it (ReadError" in complaint(tmp_path)
    with tarfile.open(path, "w:gz") as tar:
        tar.add(__file__, "cifar-10-batches-py/other")
    assert "no file cifar-10-batches-py/batches.meta in the archive" in complaint(tmp_path)


def test_where_images_are_unpacked(tmp_path):
    write(tmp_path / "set", contents("cifar100"))
    place = tmp_path / "other" / "deep"
    data = read(tmp_path / "set", "cifar100", unpacked=str(place))
    assert all(Path(path).is_relative_to(place) for path in (*data.train.paths, *data.test.paths))
    assert not list((tmp_path / "set").glob("unpacked-*"))
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFailed, match="cannot write the unpacked images.*set data.unpacked to"):
        read(tmp_path / "set", "cifar100", unpacked=str(tmp_path / "file"))


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    write(tmp_path, contents("cifar100"))
    written = []

    def full(path, content):
        written.append(path)
        if len(written) == 6:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RunFailed, match="No space left on device; set data.unpacked"):
        read(tmp_path, "cifar100")
    assert len(written) == 6 and not list(tmp_path.glob("unpacked-*"))


def test_an_evaluation_unpacks_nothing(tmp_path):
    """The configuration of a checkpoint may be somebody else's."""
    write(tmp_path, contents("cifar100"))
    config = DataConfig(name="cifar100", root=str(tmp_path))
    with pytest.raises(UserError) as caught:
        read_test(config, NAMES["cifar100"], None)
    command = re.search("`(transfg data check .*?)`", str(caught.value))[1]
    assert not list(tmp_path.glob("unpacked-*"))
    checked = transfg(tmp_path, *shlex.split(command)[1:])
    assert len(list(tmp_path.glob("unpacked-*"))) == 1, checked.stderr
    data = read_dataset(config, 0)
    assert read_test(config, data.classes, None).test.ids == data.test.ids


SCRIPT = """
import sys, time
from pathlib import Path
from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets import read_dataset
slow = Path.write_bytes
def write_bytes(path, content):
    time.sleep(0.05)
    return slow(path, content)
Path.write_bytes = write_bytes
print("begins", flush=True)
print(read_dataset(DataConfig(name="cifar10", root=sys.argv[1]), 0).digest())
"""


def start(root):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(root)], env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_two_processes_unpack_once(tmp_path):
    write(tmp_path, contents("cifar10"))
    pair = [start(tmp_path), start(tmp_path)]
    outputs = [process.communicate(timeout=120) for process in pair]
    assert outputs[0][0] == outputs[1][0] == f"begins\n{read(tmp_path).digest()}\n"
    assert sorted("unpacking" in errors for _, errors in outputs) == [False, True]


def test_a_kill_half_way_leaves_no_half(tmp_path):
    write(tmp_path, contents("cifar10"))
    process = start(tmp_path)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.rglob("*.partial/images/*/*.png"))) < 3:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (left,) = tmp_path.glob("unpacked-*")
    assert left.name.endswith(".partial")
    assert len(read(tmp_path).train.ids) == 20
    (whole,) = tmp_path.glob("unpacked-*")
    assert not whole.name.endswith(".partial")


@pytest.mark.skipif(not LOSSLESS.is_file(), reason=f"{LOSSLESS} is absent")
def test_real_pixels(tmp_path):
    """4,000 images of data_batch_1, with labels whose first 16 are known."""
    real = np.load(LOSSLESS)
    images, labels = real["images"], real["labels"].tolist()
    assert labels[:16] == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3, 4, 7, 7, 2, 9, 9]
    rows = images.transpose(0, 3, 1, 2).reshape(-1, 3072)
    files = {
        f"data_batch_{k}": {b"data": rows[k::7], b"labels": labels[k::7]} for k in range(1, 6)
    } | {"test_batch": {b"data": rows[6::7], b"labels": labels[6::7]}}
    names = [b"airplane", b"automobile", b"bird", b"cat", b"deer", b"dog", b"frog", b"horse",
             b"ship", b"truck"]  # fmt: skip
    write(tmp_path, files | {"batches.meta": {b"label_names": names}})
    data = read(tmp_path)
    order = np.concatenate([np.arange(k, 4000, 7) for k in range(1, 6)])
    assert data.train.labels.tolist() == real["labels"][order].tolist()
    for row in (0, 1, 1999, len(order) - 1):
        assert (np.array(read_image(data.train.paths[row])) == images[order[row]]).all()


def test_the_key_of_a_source(tmp_path):
    """Every byte of a file, its name and the settings; not the place."""
    content = bytes(200_000)

    def key(content=content, name="a", settings="s", place="x"):
        path = tmp_path / place
        path.write_bytes(content)
        return Source({name: path}, settings, pytest.fail).key()

    others = [key(b"1" + content[1:]), key(content[:-1] + b"1"), key(content + b"\0"),
              key(content[:99_999] + b"1" + content[100_000:]), key(name="b"),
              key(settings="t")]  # fmt: skip
    assert len({key(), *others}) == 7 and key(place="y") == key()
