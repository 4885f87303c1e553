"""Trace files: reading gives back what was written, and damaged files are refused."""

import json
import tracemalloc
import weakref
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.comparison import sketch as sketch_module
from parity.comparison import stored
from parity.comparison import trace as module
from parity.comparison.measure import gap
from parity.comparison.sketch import BLOCK, BUCKETS, KIND, OLD_KIND, Sketch, fold, l2, sketch
from parity.comparison.stored import is_sketch
from parity.comparison.subject import array_facts
from parity.comparison.trace import (
    FORMAT,
    MANIFEST,
    Trace,
    TraceWriter,
    digest,
    read_trace,
    refuse_mixture,
    write_trace,
)
from parity.errors import CannotWrite, ParityError

MANIFEST_OF_A = {
    "producer": {"name": "a", "device": "none"},
    "precision": "float32",
    "variant": None,
    "subject": {"weights": "1234", "settings": {"optim": {"lr": 0.1, "groups": [1, 2]}}},
}


def draw(*shape, kind="f4", seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(kind)


TAPS = {
    "forward/z": draw(3, 4),
    "forward/block00.attn.query": draw(20, 30),
    "selection/part_index": np.arange(6).reshape(2, 3),
    "losses/loss": np.float32(0.5),
    "backward/d/z": draw(3, 4, kind="f8"),
    "claims/a": np.array([True, False]),
    "claims/ünlike, 1 = 1": np.zeros((0, 3), np.float16),
}


def same(one, other):
    """Whether two traces hold the same taps and manifest, sketches included."""
    return (
        list(one.taps) == list(other.taps)
        and one.manifest == other.manifest
        and all(
            value.dtype == other.taps[name].dtype and gap(value, other.taps[name]).relative == 0
            for name, value in one.taps.items()
        )
    )


@pytest.fixture
def path(tmp_path):
    """A small trace with every type of content that a trace can have."""
    path = tmp_path / "a.npz"
    write_trace(path, TAPS, MANIFEST_OF_A, sketch_above=100, buckets=16)
    return path


def test_round_trip(tmp_path):
    path = tmp_path / "a.npz"
    write_trace(path, TAPS, MANIFEST_OF_A)
    trace = read_trace(str(path))
    assert trace.path == path and trace.manifest == MANIFEST_OF_A | {"format": FORMAT}
    assert list(trace.taps) == list(TAPS)  # in data order, not by name
    for name, value in TAPS.items():
        assert trace.taps[name].dtype == value.dtype and trace.taps[name].shape == value.shape
        assert np.array_equal(trace.taps[name], value)
    assert trace.stages() == ["forward", "selection", "losses", "backward", "claims"]
    assert list(trace.arrays("backward")) == ["d/z"]
    assert trace.arrays("back") == {}
    assert trace.label == "a float32" and trace.producer("version") == "unknown"
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]


def test_variant_stands_in_the_label(tmp_path):
    write_trace(tmp_path / "a.npz", {}, MANIFEST_OF_A | {"variant": "ulp:1"})
    assert read_trace(tmp_path / "a.npz").label == "a float32 ulp:1"


def test_order_of_axes_in_memory_does_not_matter(tmp_path):
    value = draw(5, 7)
    for other in (np.asfortranarray(value), np.repeat(value, 2, axis=1)[:, ::2]):
        write_trace(tmp_path / "a.npz", {"x/y": other}, MANIFEST_OF_A)
        assert np.array_equal(read_trace(tmp_path / "a.npz").taps["x/y"], value)
        assert sketch(other).crc == sketch(value).crc
        assert np.array_equal(sketch(other).buckets, sketch(value).buckets)


def test_what_is_kept_as_a_sketch(tmp_path):
    path = tmp_path / "a.npz"
    large, whole = draw(20, 30), np.arange(900)
    taps = {"x/large": large, "x/at": large.ravel()[:100], "x/int": whole, "y/large": large}
    write_trace(path, taps, MANIFEST_OF_A, sketch_above=100, buckets=64, full=["y"])
    found = read_trace(path).taps
    kinds = {name: type(value) for name, value in found.items()}
    assert kinds == dict.fromkeys(taps, np.ndarray) | {"x/large": Sketch}
    kept = found["x/large"]
    assert (kept.shape, kept.dtype, kept.not_finite) == ((20, 30), "<f4", 0)
    assert kept.buckets.shape == (64,) and kept.buckets.dtype == np.float64
    assert kept.norm == pytest.approx(np.linalg.norm(large.astype("f8")))
    assert kept.largest == np.abs(large).max()
    assert read_trace(path).arrays("x").keys() == {"at", "int"}


def test_the_limit_of_a_sketch_may_depend_on_the_tap(tmp_path):
    path = tmp_path / "a.npz"
    taps = {"x/a": np.ones(100), "x/b": np.ones(100), "x/c": np.ones(100)}
    limits = {"x/a": 99, "x/b": 100, "x/c": None}
    write_trace(path, taps, MANIFEST_OF_A, sketch_above=limits.__getitem__)
    read = read_trace(path).taps
    assert [isinstance(read[name], Sketch) for name in taps] == [True, False, False]
    assert [is_sketch(read, name) for name in taps] == [True, False, False]


@pytest.mark.parametrize("value", [["a"], np.zeros(2, complex), None, np.array([{}]), b"x"])
def test_only_numbers_are_stored(tmp_path, value):
    with pytest.raises(ParityError, match=r"a\.npz: tap x/y has type .*; expected numbers"):
        write_trace(tmp_path / "a.npz", {"x/y": value}, MANIFEST_OF_A)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(path, monkeypatch):
    before = path.read_bytes()

    def full_disk(file, value, **options):
        file.write(b"the first half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full_disk)
    with pytest.raises(CannotWrite, match=r"a\.npz: cannot write: .*No space left"):
        write_trace(path, TAPS, MANIFEST_OF_A)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]
    monkeypatch.setattr(np.lib.format, "write_array", lambda *_, **__: 1 / 0)  # a bug, as well
    with pytest.raises(ZeroDivisionError):
        write_trace(path, TAPS, MANIFEST_OF_A)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_the_file_appears_at_once(path):
    """During the write, the old file stays."""
    precisions = []

    def look():
        for item in TAPS.items():
            yield item
            precisions.append(read_trace(path).manifest["precision"])

    write_trace(path, look(), MANIFEST_OF_A | {"precision": "float64"})
    assert set(precisions) == {"float32"} and read_trace(path).manifest["precision"] == "float64"


def test_an_error_in_the_recording_leaves_the_old_file(path):
    before = path.read_bytes()

    def broken():
        yield "forward/z", TAPS["forward/z"]
        raise RuntimeError("the model failed")

    with pytest.raises(RuntimeError, match="the model failed"):
        write_trace(path, broken(), MANIFEST_OF_A)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_arrays_are_written_one_at_a_time(tmp_path):
    """The writer holds no array after it was added: memory stays at one array."""
    alive = []

    def stream():
        for number in range(5):
            value = draw(100, seed=number)
            alive.append(weakref.ref(value))
            yield f"x/{number}", value
            del value
            assert sum(ref() is not None for ref in alive) <= 1

    write_trace(tmp_path / "a.npz", stream(), MANIFEST_OF_A)
    assert len(read_trace(tmp_path / "a.npz").taps) == 5


def test_facts_may_be_added_until_the_end(tmp_path):
    with TraceWriter(tmp_path / "a.npz", MANIFEST_OF_A) as writer:
        writer.add("x/a", draw(3))
        writer.manifest["kinks"] = {"x/a": {"input": "x/b"}}
        with pytest.raises(ParityError, match="tap x/a: recorded twice"):
            writer.add("x/a", draw(3))
        assert list(writer.names) == ["x/a"]
    assert read_trace(tmp_path / "a.npz").manifest["kinks"] == {"x/a": {"input": "x/b"}}
    with (
        pytest.raises(ParityError, match=r"manifest\.odd is of type object"),
        TraceWriter(tmp_path / "b.npz", MANIFEST_OF_A) as writer,
    ):
        writer.manifest["odd"] = object()
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]


def test_arrays_are_read_when_they_are_asked_for(tmp_path, monkeypatch):
    """Two traces of 16 arrays of 2 MB: a comparison holds a few arrays, not 64 MB."""
    monkeypatch.setattr(stored, "HELD", 2**21)
    paths = [tmp_path / "a.npz", tmp_path / "b.npz"]
    for number, path in enumerate(paths):
        taps = ((f"x/{i}", draw(2**19, seed=i) + np.float32(1e-7 * number)) for i in range(16))
        write_trace(path, taps, MANIFEST_OF_A)
    tracemalloc.start()
    try:
        one, other = map(read_trace, paths)
        assert list(one.taps) == [f"x/{i}" for i in range(16)] and "x/16" not in one.taps
        errors = [gap(one.taps[name], other.taps[name]).relative for name in one.taps]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert all(1e-8 < error < 1e-6 for error in errors)
    assert peak < 16 * 2**20


@pytest.mark.parametrize("held", [0, 40, 2**20])
def test_what_is_held_does_not_change_what_is_read(path, monkeypatch, held):
    expected = read_trace(path)
    values = {name: expected.taps[name] for name in expected.taps}
    monkeypatch.setattr(stored, "HELD", held)
    found = read_trace(path)
    for name in [*found.taps, *reversed(list(found.taps))]:
        assert gap(found.taps[name], values[name]).relative == 0
        assert found.taps[name].shape == values[name].shape
        assert isinstance(found.taps[name], Sketch) or not found.taps[name].flags.writeable


def test_a_file_that_is_written_over_while_it_is_compared(path, monkeypatch):
    monkeypatch.setattr(stored, "HELD", 0)
    taps = {"x/a": draw(100_000), "x/b": draw(100_000, seed=1)}  # more than a file's buffer
    write_trace(path, taps, MANIFEST_OF_A)
    trace, data = read_trace(path), path.read_bytes()
    place = data.index(taps["x/a"].tobytes()) + 200_000
    path.write_bytes(data[:place] + b"x" + data[place + 1 :])
    with pytest.raises(ParityError, match=r"a\.npz: changed while it was read"):
        trace.taps["x/a"]
    assert np.array_equal(trace.taps["x/b"], taps["x/b"])
    path.write_bytes(b"short")
    with pytest.raises(ParityError, match=r"a\.npz: changed while it was read"):
        trace.taps["x/b"]


@pytest.mark.parametrize("held", [0, 2**26])
def test_damage_is_found_when_a_large_trace_is_opened(tmp_path, monkeypatch, held):
    """Also in an array that is too large to be held."""
    monkeypatch.setattr(stored, "HELD", held)
    path, value = tmp_path / "a.npz", draw(100_000)
    write_trace(path, {"x/a": value}, MANIFEST_OF_A)
    data = path.read_bytes()
    place = data.index(value.tobytes()) + 399_000
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with pytest.raises(ParityError, match=r"a\.npz: damaged"):
        read_trace(path)


@pytest.mark.parametrize("held", [0, 2**26])
@pytest.mark.parametrize("change", [lambda data: data + b"x", lambda data: data[:-1]])
def test_an_array_of_another_length_than_its_header_says(path, monkeypatch, held, change):
    monkeypatch.setattr(stored, "HELD", held)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["taps/0.npy"] = change(members["taps/0.npy"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(ParityError, match=r"a\.npz: damaged"):
        read_trace(path)


def test_compressed_traces_are_read(path):
    """NumPy can write compressed archives; sizes and checksums hold for them as well."""
    expected = read_trace(path)
    with np.load(path) as file:
        arrays = dict(file)
    np.savez_compressed(path, **arrays)
    assert same(read_trace(path), expected)


def test_the_old_file_is_replaced_and_not_written_over(path):
    """A reader that has the old file open still reads the old content."""
    with open(path, "rb") as reader:
        before = reader.read()
        write_trace(path, {}, MANIFEST_OF_A)
        reader.seek(0)
        assert reader.read() == before != path.read_bytes()


def test_folders_that_cannot_be_written(tmp_path):
    with pytest.raises(ParityError, match="no such folder; make it first"):
        write_trace(tmp_path / "absent" / "a.npz", TAPS, MANIFEST_OF_A)
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    for wrong in (tmp_path / "file" / "a.npz", tmp_path):
        with pytest.raises(CannotWrite, match="cannot write"):
            write_trace(wrong, TAPS, MANIFEST_OF_A)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def written(tmp_path, **settings):
    """A trace of these settings, read back."""
    write_trace(tmp_path / "s.npz", {}, MANIFEST_OF_A | {"subject": {"settings": settings}})
    return read_trace(tmp_path / "s.npz")


def test_settings_from_numpy_are_what_they_are(tmp_path):
    plain = written(tmp_path, steps=3, flag=True, kernel=[[1.5, 2.0]], name="a")
    arrays = {"steps": np.int64(3), "flag": np.True_, "kernel": np.array([[1.5, 2.0]])}
    refuse_mixture([plain, written(tmp_path, **arrays, name=np.str_("a"))])
    long = np.arange(5000)  # NumPy would print it shortened
    one_off = np.where(long == 2500, 0, long)
    with pytest.raises(ParityError, match="settings.order"):
        refuse_mixture([written(tmp_path, order=long), written(tmp_path, order=one_off)])


@pytest.mark.parametrize(
    "value",
    [object(), {1, 2}, np.complex64(1), np.array([{3}])],
    ids="object set complex array".split(),
)
def test_settings_that_json_cannot_hold_are_refused_by_name(tmp_path, value):
    with pytest.raises(
        ParityError, match=r"s\.npz: manifest\.subject\.settings\.optim\.odd.* is of"
    ):
        written(tmp_path, optim={"odd": value})
    assert not list(tmp_path.iterdir())


# Refusals


def test_files_that_are_no_traces(tmp_path):
    path = tmp_path / "a.npz"
    with pytest.raises(ParityError, match=r"a\.npz: no such trace"):
        read_trace(path)
    with pytest.raises(ParityError, match="expected a trace file, found a folder"):
        read_trace(tmp_path)
    for content in (b"", b"PK\x03\x04", b"some text\n", b"\x93NUMPY\x01\x00"):
        path.write_bytes(content)
        with pytest.raises(ParityError, match=r"a\.npz: damaged, cut off or no trace"):
            read_trace(path)
    np.savez(path, x=np.zeros(3))
    with pytest.raises(ParityError, match=f"no trace: it has no {MANIFEST}"):
        read_trace(path)
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))  # one array and no archive
    with pytest.raises(ParityError, match=r"a\.npz: "):
        read_trace(path)


def test_a_trace_cut_off_anywhere_is_refused(path):
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 3), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ParityError, match="damaged, cut off or no trace"):
            read_trace(path)


@pytest.mark.parametrize("flip", [0x01, 0xFF])
def test_a_flipped_byte_anywhere_is_refused_or_harmless(path, flip):
    """Harmless bytes are the archive's dates and other facts that nothing reads."""
    whole, expected = path.read_bytes(), read_trace(path)
    read = 0
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= flip
        path.write_bytes(changed)
        try:
            found = read_trace(path)
        except ParityError:
            continue
        read += 1
        assert same(found, expected), place
    assert read < len(whole) / 4


def rewrite(path, change):
    """Change the arrays and the manifest of a file in place, by `change(arrays, manifest)`."""
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    manifest = json.loads(arrays[MANIFEST].tobytes())
    manifest = change(arrays, manifest) or manifest
    arrays[MANIFEST] = np.frombuffer(json.dumps(manifest).encode(), np.uint8)
    np.savez(path, **arrays)


def put(name, value):
    return lambda arrays, manifest: arrays.update({name: value})


def of_tap(tap, **facts):
    return lambda arrays, manifest: manifest["taps"][tap].update(facts)


def of_sketch(**facts):
    return lambda arrays, manifest: manifest["taps"]["forward/block00.attn.query"].update(
        sketch=facts
    )


DISAGREE = {
    "another version": (
        lambda a, m: m.update(format="parity-trace/0"),
        "reads 'parity-trace/1'",
    ),
    "no version": (lambda a, m: m.pop("format") and None, "manifest cannot be read"),
    "a list": (lambda a, m: [1, 2], "manifest cannot be read"),
    "a word": (lambda a, m: "word", "manifest cannot be read"),
    "no taps": (lambda a, m: m.pop("taps") and None, "manifest lacks"),
    "taps in a list": (lambda a, m: m.update(taps=[]), "manifest lacks"),
    "no producer": (lambda a, m: m.pop("producer") and None, "manifest lacks 'producer'"),
    "producer a word": (lambda a, m: m.update(producer="me"), "manifest lacks"),
    "producer unnamed": (lambda a, m: m["producer"].pop("name") and None, "manifest lacks 'name'"),
    "no precision": (lambda a, m: m.pop("precision") and None, "manifest lacks 'precision'"),
    "no subject": (lambda a, m: m.pop("subject") and None, "manifest lacks 'subject'"),
    "precision a list": (lambda a, m: m.update(precision=["f"]), r"precision: expected text, fou"),
    "a branch of one mode": (lambda a, m: m.update(branch={"evaluation": "x"}), "branch: expected"),
    "an empty branch": (
        lambda a, m: m.update(branch={"evaluation": None, "training": None}),
        "branch: expected text, or a text for each of evaluation and training",
    ),
    "variant a table": (lambda a, m: m.update(variant={"ulp": 1}), "variant: expected text, found"),
    "version a list": (lambda a, m: m["producer"].update(version=[1]), "producer version: expec"),
    "zeros a list": (lambda a, m: m.update(zeros=["x/y"]), r"zeros: expected names .*'x/y'"),
    "zeros in two": (lambda a, m: m.update(zeros={"x/y": ["x/z"]}), "zeros: expected names"),
    "arrow in zeros": (lambda a, m: m.update(zeros={"x/y": "x>z"}), "zeros: expected names"),
    "an array gone": (lambda a, m: a.pop("taps/0") is None, "manifest lacks 'taps/0'"),
    "an array more": (put("taps/9", np.zeros(3)), "manifest does not list"),
    "a tap forgotten": (
        lambda a, m: m["taps"].pop("claims/ünlike, 1 = 1") and None,
        "manifest does not list",
    ),
    "transposed": (put("taps/0", TAPS["forward/z"].T), "tap forward/z: the manifest says"),
    "cut": (put("taps/0", TAPS["forward/z"][:2]), "tap forward/z: the manifest says"),
    "another type": (put("taps/0", TAPS["forward/z"].astype("f8")), "tap forward/z"),
    "another byte order": (put("taps/0", TAPS["forward/z"].astype(">f4")), "tap forward/z"),
    "shape unsaid": (lambda a, m: m["taps"]["forward/z"].pop("shape") and None, "lacks 'shape'"),
    "type unsaid": (lambda a, m: m["taps"]["forward/z"].pop("dtype") and None, "lacks 'dtype'"),
    "shape no list": (of_tap("forward/z", shape=3), "manifest lacks"),
    "facts no table": (lambda a, m: m["taps"].update({"forward/z": 3}), "manifest lacks"),
    "text as an array": (
        lambda a, m: (
            put("taps/0", np.array(["x"]))(a, m)
            or of_tap("forward/z", shape=[1], dtype="<U1")(a, m)
        ),
        "and numbers",
    ),
    "sketch without facts": (of_sketch(norm=1.0), "manifest lacks"),
    "sketch of no power of two": (put("taps/1", np.zeros(17)), "manifest lacks a sketch"),
    "empty sketch": (put("taps/1", np.zeros(0)), "forward/block00|manifest lacks a sketch"),
    "flat sketch": (put("taps/1", np.zeros((4, 4))), "manifest lacks a sketch"),
    "sketch in float32": (put("taps/1", np.zeros(16, "f4")), "manifest lacks a sketch"),
    "sketch of no type": (of_tap("forward/block00.attn.query", dtype="real"), "manifest lacks"),
}


@pytest.mark.parametrize(("change", "message"), DISAGREE.values(), ids=DISAGREE)
def test_a_manifest_that_disagrees_is_refused(path, change, message):
    rewrite(path, change)
    with pytest.raises(ParityError, match=message) as caught:
        read_trace(path)
    assert str(caught.value).startswith(str(path))


def test_a_rewritten_trace_that_agrees_is_read(path):
    """So the refusals above are not caused by the rewriting."""
    expected = read_trace(path)
    rewrite(path, lambda arrays, manifest: None)
    assert same(read_trace(path), expected)


@pytest.mark.parametrize("bytes_", [b"", b"\xff\xfe", b"{", b'{"format": '])
def test_a_manifest_that_is_no_json_is_refused(path, bytes_):
    np.savez(path, **{MANIFEST: np.frombuffer(bytes_, np.uint8)})
    with pytest.raises(ParityError, match="manifest cannot be read"):
        read_trace(path)


def test_pickled_objects_are_refused_and_never_run(path, tmp_path):
    class Planted:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").write_text, ("x",))

    for name in ("taps/0", MANIFEST):
        with np.load(path) as stored:
            arrays = {key: stored[key] for key in stored.files}
        np.savez(tmp_path / "b.npz", **arrays | {name: np.array([Planted()], object)})
        with pytest.raises(ParityError, match="damaged, cut off or no trace"):
            read_trace(tmp_path / "b.npz")
    assert not tmp_path.joinpath("ran").exists()


# Digests


def test_digest_is_of_names_types_shapes_and_bytes():
    value = draw(2, 6)
    first = digest({"a": value, "b": value + 1})
    assert digest({"b": value + 1, "a": value}) == first
    assert digest({"a": np.asfortranarray(value), "b": value + 1}) == first
    moved = value.copy()
    moved[-1, -1] = np.nextafter(moved[-1, -1], np.float32(9))
    others = [
        {"a": moved, "b": value + 1},
        {"a": value + 1, "b": value},
        {"a": value.reshape(3, 4), "b": value + 1},
        {"a": value.view(np.int32), "b": value + 1},
        {"a": value.astype(">f4"), "b": value + 1},
        {"c": value, "b": value + 1},
        {"a": value},
        {"a": value, "b": value + 1, "c": value[:0]},
        {},
    ]
    assert len({first, *map(digest, others)}) == len(others) + 1


def test_a_number_and_an_array_of_one_have_different_digests():
    assert digest({"a": np.float32(1)}) != digest({"a": np.ones(1, np.float32)})


# Sketches


def estimates(value, buckets, count, monkeypatch):
    """Estimated over true norm of a difference, `value(rng)`, each with a new pattern of signs."""
    rng, ratios, mixed = np.random.default_rng(7), [], sketch_module.mixed
    for seed in range(count):
        size, places, numbers = value(rng)
        difference = np.zeros(size)
        difference[places] = numbers
        monkeypatch.setattr(sketch_module, "mixed", lambda x, seed=seed: mixed(x + seed * 2**44))
        sketch_module._pattern.cache_clear()
        ratios.append(l2(sketch(difference, buckets).buckets) / l2(difference))
    sketch_module._pattern.cache_clear()
    return np.array(ratios)


def channel(stride):
    """One channel of an array whose channels lie `stride` apart: equal differences in it."""

    def draw_channel(rng):
        size = max(2**16, 64 * stride)
        return size, slice(int(rng.integers(stride)), None, stride), 1e-3

    return draw_channel


def row(rng):
    """One row of 512 numbers, at a random place."""
    start = int(rng.integers(2**18 - 512))
    return 2**18, slice(start, start + 512), 1.0


def smooth(rng):
    """A difference that changes slowly over the whole array."""
    wave = np.sin(np.linspace(*rng.uniform(0, 9, 2), 2**17)) + rng.uniform(-1, 1)
    return 2**17, slice(None), wave


def same_in_each_block(rng):
    """The same difference in a part of each block: two windows of the pattern must not agree."""
    part = rng.standard_normal(BLOCK) * (np.arange(BLOCK) < rng.integers(100, BLOCK))
    return 32 * BLOCK, slice(None), np.tile(part, 32)


DIFFERENCES = {f"channel {2**k}": channel(2**k) for k in (1, 3, 6, 10, 12, 13, 14, 15, 16)}
DIFFERENCES |= {"row": row, "smooth": smooth, "same in each block": same_in_each_block}


@pytest.mark.parametrize("value", DIFFERENCES.values(), ids=DIFFERENCES)
def test_structured_differences_are_estimated_as_well_as_random_ones(value, monkeypatch):
    """The mean is right, and the deviation is 1 / √(2 m) as for random differences (or less)."""
    buckets = 256
    ratios = estimates(value, buckets, 60, monkeypatch)
    deviation = 1 / np.sqrt(2 * buckets)
    assert np.mean(ratios) == pytest.approx(1, abs=deviation / 2)
    assert np.std(ratios) < 1.4 * deviation


def test_one_element_is_estimated_exactly():
    for place in (0, 1, 32767, 32768, 99_999):
        value = np.zeros(100_000)
        value[place] = -0.25
        assert l2(sketch(value).buckets) == 0.25


def test_sketches_of_old_traces_are_read(path):
    """A sketch of the old kind can be compared with another such sketch and with a whole array."""
    one, other = noisy(9000, 1e-3, 0)
    exact = gap(one, other).relative
    kinds = [sketch(one, kind=OLD_KIND), sketch(other, kind=OLD_KIND)]
    assert gap(*kinds).relative == pytest.approx(exact, rel=0.05)
    assert gap(one, kinds[1]).relative == gap(kinds[0], other).relative == gap(*kinds).relative
    with pytest.raises(ParityError, match="sketches of two kinds"):
        gap(sketch(one), kinds[1])
    assert gap(sketch(one), sketch(one, kind=OLD_KIND)).relative == 0  # equal to the bit

    rewrite(path, lambda arrays, m: m.update(format="parity-trace/2") or m.pop("sketches") and None)
    old = read_trace(path)
    assert old.taps["forward/block00.attn.query"].kind == OLD_KIND
    new = replace(old, manifest=old.manifest | {"sketches": KIND})
    with pytest.raises(ParityError, match="sketches of two kinds, elements and blocks, which can"):
        refuse_mixture([old, new])
    rewrite(path, lambda arrays, m: m.update(format=FORMAT, sketches="threads"))
    with pytest.raises(ParityError, match="sketches 'threads': expected blocks or elements"):
        read_trace(path)


def test_sketches_of_the_old_kind_are_what_version_1_wrote():
    value = np.arange(1.0, 40.0)
    assert sketch(value, 4, OLD_KIND).buckets.tolist() == [105.0, 80.0, -121.0, -70.0]


AT_LEAST = 1000  # elements: among few, two in one bucket move the estimate by per cents


def noisy(size, scale, seed):
    """An array, and the same array with noise of size `scale`."""
    rng = np.random.default_rng([size, seed])
    value = rng.standard_normal(size)
    return value, value + scale * rng.standard_normal(size)


# derandomized: one random draw in 100,000 would exceed a bound of 4.5 deviations
@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    size=st.integers(AT_LEAST, 200_000),
    scale=st.floats(1e-7, 1e-1),
    seed=st.integers(0, 99),
)
def test_error_estimated_from_sketches(size, scale, seed):
    """Within 5 %: more than three standard deviations, 1 / √(2 · 4096) = 1.1 %."""
    one, other = noisy(size, scale, seed)
    exact = gap(one, other).relative
    found = gap(sketch(one), sketch(other)).relative
    assert found == pytest.approx(exact, rel=0.05)
    assert gap(one, sketch(other)).relative == found
    assert gap(sketch(one), other).relative == found


def test_error_estimated_from_sketches_has_no_bias():
    """Over 200 pairs: the mean within a quarter of a deviation, the spread as published."""
    buckets = 1024
    ratios = []
    for seed in range(200):
        one, other = noisy(5000, 1e-3, seed)
        ratios.append(
            gap(sketch(one, buckets), sketch(other, buckets)).relative / gap(one, other).relative
        )
    deviation = 1 / np.sqrt(2 * buckets)
    assert np.mean(ratios) == pytest.approx(1, abs=deviation / 4)
    assert np.std(ratios) == pytest.approx(deviation, rel=0.25)


@pytest.mark.parametrize("size", [100, 5000, 100_000])
def test_errors_of_one_sign_are_not_added_up(size):
    """Without random signs, a sketch would estimate a shift as √(n / m) times its size."""
    value, _ = noisy(size, 0, 0)
    found = gap(sketch(value + 1e-3), sketch(value)).relative
    assert found == pytest.approx(gap(value + 1e-3, value).relative, rel=0.05)


@settings(deadline=None, max_examples=20)
@given(size=st.integers(1, 20_000), small=st.sampled_from([16, 256, 1024, BUCKETS]))
def test_fold_is_the_smaller_sketch(size, small):
    value = draw(size)
    assert np.allclose(fold(sketch(value).buckets, small), sketch(value, small).buckets, atol=1e-12)


def test_sketches_of_different_sizes_are_compared():
    one, other = noisy(9000, 1e-3, 0)
    exact = gap(one, other).relative
    assert gap(sketch(one, 1024), sketch(other)).relative == pytest.approx(exact, rel=0.1)
    assert gap(sketch(one), sketch(other, 1024)).relative == pytest.approx(exact, rel=0.1)


ARRANGED = {
    "two elements": lambda x: np.concatenate([x.ravel()[[1, 0]], x.ravel()[2:]]).reshape(x.shape),
    "reversed": lambda x: x[::-1],
    "rolled": lambda x: np.roll(x, 1, axis=1),
    "rows": lambda x: x[np.random.default_rng(1).permutation(len(x))],
    "transposed in place": lambda x: x.T.reshape(x.shape).copy(),
    "sign of one": lambda x: np.where(np.arange(x.size).reshape(x.shape) == 7, -x, x),
}


@pytest.mark.parametrize("change", ARRANGED.values(), ids=ARRANGED)
def test_elements_in_another_order_are_another_sketch(change):
    """Norm, mean and largest stay the same, but the sketch still gives the relative error."""
    value = draw(60, 80)
    one, other = sketch(np.ascontiguousarray(change(value))), sketch(value)
    assert one.norm == pytest.approx(other.norm) and one.largest == other.largest
    assert one.crc != other.crc
    exact = gap(np.ascontiguousarray(change(value)), value).relative
    assert gap(one, other).relative == pytest.approx(exact, rel=0.05)


def test_sketch_counts_what_is_not_finite():
    value = draw(50, 2)
    value[3, 1], value[4, 0], value[5, 0] = np.nan, np.inf, -np.inf
    found = sketch(value)
    assert (found.not_finite, found.shape, found.dtype) == (3, (50, 2), "<f4")
    assert np.isfinite([found.norm, found.largest, *found.buckets]).all()
    for pair in ((found, sketch(draw(50, 2))), (sketch(draw(50, 2)), found), (found, found)):
        assert gap(*pair).reason == "3 elements are not finite"


def test_an_array_with_infinities_is_stored_whole(tmp_path):
    value = draw(60, 80)
    value[0, 0] = -np.inf
    taps = {"forward/x": value, "forward/y": draw(60, 80)}
    write_trace(tmp_path / "a.npz", taps, MANIFEST_OF_A, sketch_above=100)
    taps = read_trace(tmp_path / "a.npz").taps
    assert isinstance(taps["forward/x"], np.ndarray)
    assert not isinstance(taps["forward/y"], np.ndarray)


def test_sketches_of_other_shapes_and_types_are_not_compared():
    value = draw(60, 80)
    for other in (value.T, value.ravel(), value[:-1]):
        assert "expected (60, 80)" in gap(sketch(other), sketch(value)).reason
        assert "expected (60, 80)" in gap(other, sketch(value)).reason
    assert gap(sketch(value.astype("f8")), sketch(value)).reason == "type float64, expected float32"
    assert gap(sketch(value.astype("f8")), sketch(value), same_type=False).relative == 0


def test_equal_bytes_are_equal_and_one_bit_is_not():
    value = draw(60, 80)
    moved = value.copy()
    moved.flat[17] = np.nextafter(moved.flat[17], np.float32(9))
    assert gap(sketch(value.copy()), sketch(value)).relative == 0
    assert 0 < gap(sketch(moved), sketch(value)).relative < 1e-8


@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (2, 1, 3)])
def test_sketch_of_few_or_none(shape):
    value = draw(*shape)
    found = sketch(value)
    assert found.shape == shape and found.norm == pytest.approx(np.linalg.norm(value))
    assert gap(found, sketch(value)).relative == 0


def test_norm_beyond_what_squares_can_hold():
    value = np.array([[3.0, -4.0], [0.0, 0.0]])
    for scale in (1.0, 1e200, 1e-200):
        assert l2(value * scale) == pytest.approx(5 * scale)
        assert sketch(value * scale).norm == pytest.approx(5 * scale)
    assert l2(np.zeros(3)) == 0 and l2(np.zeros(0)) == 0


# Mixtures


def with_subject(**subject):
    manifest = MANIFEST_OF_A | {"subject": MANIFEST_OF_A["subject"] | subject}
    return Trace(module.Path(f"{len(subject)}.npz"), manifest)


def test_traces_of_one_computation_mix():
    first = with_subject()
    other = replace(first, manifest=first.manifest | {"precision": "float64", "variant": "ulp:1"})
    refuse_mixture([first, other, with_subject()])
    refuse_mixture([first])


@pytest.mark.parametrize(
    ("subject", "message"),
    [
        ({"weights": "1235"}, "weights is 1234 in the first and 1235 in the second"),
        ({"weights": "a" * 64}, "and aaaaaaaaaaaa… in the second"),
        ({"settings": {"optim": {"lr": 0.2, "groups": [1, 2]}}}, "settings.optim.lr is 0.1"),
        ({"settings": {"optim": {"lr": 0.1, "groups": [2, 1]}}}, "settings.optim.groups"),
        ({"settings": {"optim": {"lr": 0.1}}}, r"groups is \[1, 2\] in the first and absent"),
        ({"more": 1}, "more is absent in the first and 1 in the second"),
        ({"settings": "none"}, "settings"),
    ],
)
def test_a_mixture_is_refused_by_name(subject, message):
    first, other = with_subject(), with_subject(**subject)
    for traces in ([first, other], [first, first, other]):
        with pytest.raises(ParityError, match=message) as caught:
            refuse_mixture(traces)
        assert "0.npz and 1.npz are not of one computation" in str(caught.value)
    with pytest.raises(ParityError, match="not of one computation"):
        refuse_mixture([other, first])


def test_a_mixture_names_its_files(tmp_path):
    traces = []
    for name, weights in (("a", "1"), ("b", "2")):
        write_trace(tmp_path / name, {}, MANIFEST_OF_A | {"subject": {"weights": weights}})
        traces.append(read_trace(tmp_path / name))
    with pytest.raises(ParityError, match=f"^{tmp_path}/a and {tmp_path}/b are not of one comp"):
        refuse_mixture(traces)


def test_a_trace_of_the_old_format_gets_the_new_names(tmp_path):
    """Version 0.1.0 called isolated operations pieces."""
    taps = dict.fromkeys(
        ["pieces forward/x", "pieces gradients/grad/x", "forward/pieces of"], np.ones(3)
    )
    settings = {"pieces": 1, "model": {"placement": "transfg"}}
    subject = {"weights": "w", "pieces of": "p", "settings": settings}
    facts = {"kind": "pieces", "case": "overlap", "subject": subject}
    write_trace(tmp_path / "old.npz", taps, MANIFEST_OF_A | facts)
    with np.load(tmp_path / "old.npz") as stored:
        arrays = dict(stored)
    manifest = json.loads(arrays["manifest.json"].tobytes()) | {"format": "parity-trace/1"}
    arrays["manifest.json"] = np.frombuffer(json.dumps(manifest).encode(), np.uint8)
    np.savez(tmp_path / "old.npz", **arrays)
    trace = read_trace(tmp_path / "old.npz")
    assert list(trace.taps) == [
        "isolated forward/x",
        "isolated gradients/grad/x",
        "forward/pieces of",
    ]
    assert trace.manifest["kind"] == "isolated" and trace.manifest["case"] == "overlap"
    settings["model"]["name"] = "vit"  # the only architecture then, and not recorded
    subject = {"weights": "w", "isolated from": "p", "settings": settings}
    assert trace.manifest["subject"] == subject


# Subjects: weights and inputs by name

START = {
    "conv.weight": draw(4, 3),
    "conv.bias": draw(4),
    "count": np.arange(3),
    "rate": np.float32(2),
}


def of_weights(weights, number=0):
    subject = {"weights": array_facts(weights), "inputs": array_facts({}), "settings": {}}
    return Trace(module.Path(f"{number}.npz"), MANIFEST_OF_A | {"subject": subject})


def refused_weights(weights):
    with pytest.raises(ParityError, match="^0.npz and 1.npz are not of one computation") as caught:
        refuse_mixture([of_weights(START), of_weights(weights, 1)])
    return str(caught.value)


def test_unequal_weights_are_told_by_name_and_shape():
    text = refused_weights(START | {"conv.weight": START["conv.weight"] + 1})
    assert "weights: 3 of 4 equal; conv.weight (4, 3) has other numbers" in text
    text = refused_weights(START | {"conv.weight": START["conv.weight"].T})
    assert "conv.weight (4, 3) has the shape (3, 4) in the second" in text
    text = refused_weights(START | {"count": START["count"].astype("i4")})
    assert "count (3,) has the type <i4 in the second, not <i8" in text
    text = refused_weights({**START, "rate": np.ones(1, "f4") * 2})
    assert "rate () has the shape (1,) in the second" in text
    text = refused_weights({name: START[name] for name in START if name != "conv.bias"})
    assert "weights: 3 of 4 equal; conv.bias (4,) is only in the first" in text
    text = refused_weights(START | {"more": np.ones(2)})
    assert "weights: 4 of 5 equal; more (2,) is only in the second" in text


def test_only_a_few_unequal_weights_are_told():
    text = refused_weights({f"w{i}": draw(2, seed=i) for i in range(9)})
    assert text.count("is only in the") == 5 and "; and 8 more;" in text


def test_equal_weights_may_have_other_names():
    """Equal sets of digests are equal weights; but one array must not stand for two."""
    renamed = {name.replace("conv", "layer0"): value for name, value in START.items()}
    refuse_mixture([of_weights(START), of_weights(renamed, 1), of_weights(START, 2)])
    twice = {"a": START["rate"], "b": START["rate"]}
    with pytest.raises(ParityError, match=r"weights: 1 of 2 equal; [ab] \(\) is only in the s"):
        refuse_mixture([of_weights({"c": START["rate"]}), of_weights(twice, 1)])


def test_exchanged_weights_are_unequal():
    exchanged = {"a": draw(3), "b": draw(3, seed=1)}
    with pytest.raises(ParityError, match="weights: 0 of 2 equal; a .*other numbers; b "):
        refuse_mixture(
            [of_weights(exchanged), of_weights({"a": exchanged["b"], "b": exchanged["a"]}, 1)]
        )


def test_a_digest_of_all_is_not_compared_with_digests_by_name():
    old = Trace(module.Path("1.npz"), MANIFEST_OF_A | {"subject": {"weights": digest(START)}})
    with pytest.raises(ParityError, match="record both with one version"):
        refuse_mixture([of_weights(START), old])


@pytest.mark.parametrize(
    "facts",
    [{"a": 3}, {"a": {"shape": 3}}, {"a": {"shape": [3], "dtype": "<f4"}}],
)
def test_malformed_digests_are_refused(tmp_path, facts):
    write_trace(tmp_path / "a", {}, MANIFEST_OF_A | {"subject": {"inputs": facts}})
    with pytest.raises(ParityError, match=r"subject\.inputs\.a: expected shape, dtype and sha256"):
        read_trace(tmp_path / "a")


@pytest.mark.parametrize("key, wrong", [("kinks", [1]), ("operations", {"a/b": 1}), ("layouts", 3)])
def test_tables_of_another_form_are_refused(tmp_path, key, wrong):
    write_trace(tmp_path / "a", {}, MANIFEST_OF_A | {key: wrong})
    with pytest.raises(ParityError, match=f"{key}: expected a table by name"):
        read_trace(tmp_path / "a")
