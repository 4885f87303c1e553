"""Files of torch.save whose pickles no program would write: each one gives a message.

The pickles are written instruction by instruction, so neither PyTorch nor `pickle` has a part.
"""

import io
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfg_core.checkpoints.recognise import open_weights
from transfg_core.checkpoints.torch_file import MAGIC
from transfg_core.errors import UserError

NUMBERS = np.arange(12, dtype="<f4")
NESTED = b"N" + 300_000 * b"\x85"  # None in a tuple in a tuple ...: TUPLE1
# a pair of the last tuple with itself, 34 times, through the memo: BINPUT, BINGET, TUPLE2
DOUBLED = b")" + 34 * b"q\x00h\x00\x86"


def dump(value):
    """The instructions that put a value on the stack; bytes are instructions themselves."""
    match value:
        case bytes():
            return value
        case bool():
            return b"\x88" if value else b"\x89"
        case None:
            return b"N"
        case str():
            return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()
        case int():
            length = value.bit_length() // 8 + 1
            return b"\x8a" + bytes([length]) + value.to_bytes(length, "little", signed=True)
        case tuple():
            return b"(" + b"".join(map(dump, value)) + b"t"
        case list():
            return b"](" + b"".join(map(dump, value)) + b"e"
        case dict():
            return b"}(" + b"".join(dump(key) + dump(value[key]) for key in value) + b"u"


def call(name, *arguments):
    return b"c" + name.encode() + b"\n" + dump(arguments) + b"R"


def storage(size=12, key="0", kind=b"ctorch\nFloatStorage\n", more=()):
    return dump(("storage", kind, key, "cpu", size, *more)) + b"Q"


def tensor(shape, strides, offset=0, numbers=None):
    hooks = call("collections\nOrderedDict")
    values = (numbers or storage(), offset, shape, strides, False, hooks)
    return call("torch._utils\n_rebuild_tensor_v2", *values)


def pickled(value):
    return b"\x80\x02" + dump(value) + b"."


def write_zip(path, tree):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(tree))
        archive.writestr("archive/data/0", NUMBERS.tobytes())
    return path


def write_stream(path, tree, machine=None, keys=("0",), count=12):
    """The format before PyTorch 1.6."""
    machine = {"little_endian": True} if machine is None else machine
    keys = list(keys) if isinstance(keys, tuple) else keys
    file = io.BytesIO()
    for value in (MAGIC, 1001, machine, tree, keys):
        file.write(pickled(value))
    file.write(count.to_bytes(8, "little") + NUMBERS.tobytes())
    path.write_bytes(file.getvalue())
    return path


WRITERS = [write_zip, write_stream]


def read(path):
    with open_weights(str(path)) as file:
        return {key: file.read(key) for key in file.headers()}


@pytest.mark.parametrize("write", WRITERS)
def test_sound_pickles(tmp_path, write):
    """One axis of length 1 has a stride beyond the storage, as in the copy of a part."""
    tree = {
        "matrix": tensor((3, 4), (4, 1)),
        "transposed": tensor((4, 3), (1, 4)),
        "part": tensor((1, 3, 2), (40, 4, 1), offset=1),
        "empty": tensor((0, 4), (4, 1)),
        "scalar": tensor((), (), offset=5),
        "size": tensor(call("torch\nSize", (2, 2)), (1, 2)),
        "with a view's place": tensor((2,), (1,), numbers=storage(more=(None,))),
    }
    whole = NUMBERS.reshape(3, 4)
    expected = {
        "matrix": whole,
        "transposed": whole.T,
        "part": whole[None, :, 1:3],
        "empty": np.zeros((0, 4), "f4"),
        "scalar": NUMBERS[5],
        "size": NUMBERS[:4].reshape(2, 2).T,
        "with a view's place": NUMBERS[:2],
    }
    found = read(write(tmp_path / "x.pt", tree))
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].shape == array.shape and np.array_equal(found[name], array), name


CHILD = """
import sys
from transfg_core.checkpoints.recognise import open_weights
from transfg_core.errors import UserError
try:
    open_weights(sys.argv[1])
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize("key", [NESTED, DOUBLED], ids=["nested", "doubled"])
@pytest.mark.parametrize("kind", ["pairs", "items", "storage", "name", "order", "keys"])
def test_no_tuple_is_hashed(tmp_path, key, kind):
    """Its hash could take for ever, or more of the stack than there is."""
    path = tmp_path / "x.pt"
    if kind == "pairs":
        write_zip(path, call("collections\nOrderedDict", [[key, None]]))
    elif kind == "items":
        write_zip(path, {key: None})
    elif kind == "storage":
        write_zip(path, {"a": tensor((1,), (1,), numbers=storage(key=key))})
    elif kind == "name":
        write_zip(path, {"a": tensor((1,), (1,), numbers=storage(kind=key))})
    elif kind == "order":
        write_stream(path, {"a": tensor((1,), (1,))}, {"little_endian": key})
    else:
        write_stream(path, {"a": tensor((1,), (1,))}, keys=[key])
    done = subprocess.run(
        [sys.executable, "-c", CHILD, path], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert str(path) in done.stdout and "expected" in done.stdout


TENSORS = {
    "a stride of 2^70 at length 1": tensor((1, 3), (2**70, 1)),
    "a stride of 2^62 at length 1": tensor((1, 3), (2**62, 1)),
    "a stride of 2^70": tensor((2, 3), (2**70, 1)),
    "strides whose sum is too large": tensor((2, 2), (11, 1)),
    "no numbers, but 2^70": tensor((0, 2**70), (1, 1)),
    "no numbers, but 2^62": tensor((0, 2**62), (1, 1)),
    "seventy axes": tensor((1,) * 70, (1,) * 70),
    "33 axes": tensor((1,) * 33, (1,) * 33),
    "33 axes without numbers": tensor((0,) * 33, (1,) * 33),
    "fewer strides": tensor((1, 3), (1,)),
    "an offset behind the end": tensor((1,), (1,), offset=12),
    "a negative stride": tensor((2,), (-1,), offset=5),
    "a negative length": tensor((-2, -2), (1, 1)),
    "numbers repeated by a stride of 0": tensor((13,), (0,)),
    "a length that is true": tensor((True, 3), (3, 1)),
    "a shape that is a text": tensor("12", (1, 1)),
    "a shape that is a list": tensor([3], (1,)),
    "a shape that is a number": tensor(3, (1,)),
    "no storage": tensor((3,), (1,), numbers=dump(5)),
    "a storage without size": tensor((3,), (1,), numbers=storage(None)),
    "a storage with another key": tensor((3,), (1,), numbers=storage(key="1")),
    "a storage of numbers that are not there": tensor((3,), (1,), numbers=storage(2**70)),
    "a storage of seven words": tensor((3,), (1,), numbers=storage(more=(None, None))),
    "a view of a storage": tensor((3,), (1,), numbers=storage(more=(("1", 0, 3),))),
    "too few arguments": call("torch._utils\n_rebuild_tensor_v2", storage()),
    "no arguments": call("torch._utils\n_rebuild_parameter"),
    "no size": call("torch\nSize"),
    "a size of a number": tensor(call("torch\nSize", 5), (1,)),
    "a text of 2^62 bytes": b"\x8d" + (2**62).to_bytes(8, "little") + b"abc",
    "a text of 2^64 bytes": b"\x8d" + b"\xff" * 8 + b"abc",
}


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("kind", TENSORS)
def test_impossible_tensors(tmp_path, write, kind):
    path = write(tmp_path / "x.pt", {"a": TENSORS[kind]})
    with pytest.raises(UserError, match="x.pt: .*expected"):
        read(path)


STREAMS = {
    "a machine that is a number": {"machine": 5},
    "a machine without an order": {"machine": {}},
    "an order that is a list": {"machine": {"little_endian": []}},
    "an order that is a number": {"machine": {"little_endian": 1}},
    "keys that are a number": {"keys": 5},
    "keys that are a text": {"keys": "0"},
    "a key that is a number": {"keys": (0,)},
    "a key that is a list": {"keys": ([],)},
    "an unknown key": {"keys": ("1",)},
    "no keys": {"keys": ()},
    "another count": {"count": 11},
    "a count of 2^63": {"count": 2**63},
}


@pytest.mark.parametrize("kind", STREAMS)
def test_impossible_streams(tmp_path, kind):
    path = write_stream(tmp_path / "x.pt", {"a": tensor((3,), (1,))}, **STREAMS[kind])
    with pytest.raises(UserError, match="x.pt: .*expected a PyTorch file"):
        read(path)


@pytest.mark.parametrize("size", [13, 2**40, 2**61, 2**62])
def test_a_stream_that_lacks_numbers_is_refused_when_it_is_opened(tmp_path, size):
    tree = {"a": tensor((3,), (1,), numbers=storage(size))}
    path = write_stream(tmp_path / "x.pt", tree, count=size)
    with pytest.raises(UserError, match="expected a PyTorch file"):
        open_weights(str(path))


def test_a_storage_of_two_sizes(tmp_path):
    """The first one fits the file; the second would ask for 2^62 bytes."""
    tree = {"a": tensor((3,), (1,)), "b": tensor((3,), (1,), numbers=storage(2**60))}
    with pytest.raises(UserError, match="x.pt: b: expected a PyTorch file"):
        read(write_stream(tmp_path / "x.pt", tree))


whole = st.one_of(st.integers(-1, 5), st.sampled_from([2**31, 2**62, 2**63, 2**70, -(2**70)]))
words = st.sampled_from(["0", "storage", "cpu", "a", ""])
names = st.sampled_from(
    [
        "torch\nSize", "torch\nFloatStorage", "collections\nOrderedDict", "os\nsystem",
        "torch._utils\n_rebuild_parameter", "torch._utils\n_rebuild_tensor_v2",
    ]
)  # fmt: skip
leaves = st.one_of(whole, words, st.booleans(), st.none(), names.map(lambda n: f"c{n}\n".encode()))
lengths = st.lists(whole, max_size=4).map(tuple)
tensors = st.builds(tensor, lengths, lengths, whole, st.builds(storage, whole))
values = st.recursive(
    st.one_of(leaves, tensors),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(words, inner, max_size=4),
        st.builds(call, names, inner, inner),
        inner.map(lambda value: dump(value) + b"Q"),
        st.tuples(inner, inner).map(lambda pair: b"}" + dump(pair[0]) + dump(pair[1]) + b"s"),
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(tree=values, machine=values, keys=values, zipped=st.booleans(), whole=st.booleans())
def test_any_pickle_gives_arrays_or_a_message(tmp_path_factory, tree, machine, keys, zipped, whole):
    path = tmp_path_factory.getbasetemp() / "any.pt"
    if zipped:
        write_zip(path, {"a": tree})
    elif whole:
        write_stream(path, {"a": tree})
    else:
        write_stream(path, {"a": tree}, machine, keys)
    try:
        arrays = read(path)
    except UserError as error:
        assert str(path) in str(error)
    else:
        assert all(array.size <= NUMBERS.size for array in arrays.values())
