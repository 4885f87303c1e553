"""Read the pickle of a PyTorch state_dict without running anything that it names.

A pickle is a small program. Python's unpickler imports what it names and calls it. This reader
calls nothing: it follows the few instructions that torch.save writes for named tensors, and knows
the names in `ALLOWED` only as words. Any other instruction or name refuses the file. The standard
library's `pickletools` splits the bytes into instructions. Source of the names: torch/_utils.py and
torch/_weights_only_unpickler.py of PyTorch.
"""

import math
import pickletools
from typing import IO, Any, NamedTuple

ORDERED_DICT = "collections OrderedDict"
PARAMETER = "torch._utils _rebuild_parameter"
TENSORS = ("torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2")
STORAGES = {
    "torch HalfStorage": "float16",
    "torch BFloat16Storage": "bfloat16",
    "torch FloatStorage": "float32",
    "torch DoubleStorage": "float64",
    "torch BoolStorage": "bool",
    "torch ByteStorage": "uint8",
    "torch CharStorage": "int8",
    "torch ShortStorage": "int16",
    "torch IntStorage": "int32",
    "torch LongStorage": "int64",
}
ALLOWED = {ORDERED_DICT, PARAMETER, "torch Size", *TENSORS, *STORAGES}

LITERALS = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE",
    "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING",
}  # fmt: skip
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
MOST_AXES = 32  # of an array in NumPy 1


class Refused(Exception):
    """The pickle holds something else than named tensors and plain values."""


class Damaged(Exception):
    """The bytes are no whole pickle."""


class Name(NamedTuple):
    """Something that the pickle names, such as a function; it is never looked up."""

    text: str


class Storage(NamedTuple):
    """Numbers of one type that lie together in the file."""

    key: str
    dtype: str
    size: int  # numbers, not bytes


class Tensor(NamedTuple):
    """A view of a storage: first element, shape and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_pickle(file: IO[bytes]) -> Any:
    """The value of one pickle: dicts, lists, tuples, numbers, strings and `Tensor`s.

    The file is left at the first byte behind the pickle.

    Raises:
        Refused: it holds anything else; the message names it.
        Damaged: it is cut or spoiled.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(file):
            machine.step(opcode.name, argument)
    except Refused:
        raise
    # pickletools raises ValueError and AssertionError, and MemoryError for a length that lies; a
    # wrong program raises the others
    except (
        ValueError, AssertionError, MemoryError, LookupError, TypeError, OverflowError,
    ) as error:  # fmt: skip
        raise Damaged(str(error) or type(error).__name__) from error
    if len(machine.stack) != 1:
        raise Damaged("no single value at its end")
    return machine.stack[0]


class _Machine:
    """The stack and the memo of a pickle in progress."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Follow one instruction."""
        if name in ("PROTO", "FRAME", "STOP"):
            return
        if name in LITERALS:
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        else:
            self.build(name, argument)

    def build(self, name: str, argument: Any) -> None:
        """Follow an instruction that makes or fills a container, or that names something."""
        if name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE"):
            self.stack.append({"EMPTY_DICT": {}, "EMPTY_LIST": [], "EMPTY_TUPLE": ()}[name])
        elif name == "TUPLE":
            self.stack.append(tuple(self.pop_to_mark()))
        elif name in TUPLES:
            self.stack.append(tuple(self.pop() for _ in range(TUPLES[name]))[::-1])
        elif name in ("SETITEM", "SETITEMS"):
            items = self.pop_to_mark() if name == "SETITEMS" else [self.pop(), self.pop()][::-1]
            self.fill_dict(items)
        elif name in ("APPEND", "APPENDS"):
            items = self.pop_to_mark() if name == "APPENDS" else [self.pop()]
            expect(self.stack[-1], list).extend(items)
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            text = argument if name == "GLOBAL" else " ".join([self.pop(), self.pop()][::-1])
            if text not in ALLOWED:
                raise Refused(text.replace(" ", "."))
            self.stack.append(Name(text))
        elif name == "BINPERSID":
            self.stack.append(_storage(self.pop()))
        elif name == "REDUCE":
            arguments, function = expect(self.pop(), tuple), expect(self.pop(), Name)
            self.stack.append(_meaning(function.text, arguments))
        elif name == "BUILD":
            self.pop()  # attributes of a dictionary, such as a state_dict's _metadata
            expect(self.stack[-1], dict)
        else:
            raise Refused(f"the instruction {name}")

    def pop(self) -> Any:
        """Take the last value."""
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise IndexError("a value is missing")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        """Take the values since the last mark."""
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def fill_dict(self, items: list[Any]) -> None:
        """Put keys and values, which alternate, into the last dictionary."""
        target = expect(self.stack[-1], dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int):
                raise Refused(f"a {type(key).__name__} as the name of a value")
            target[key] = value


def expect(value: Any, kind: type) -> Any:
    """The value, which must be of this very type.

    Raises:
        ValueError: it is of another type.
    """
    if type(value) is not kind:  # a Name is a tuple, too
        raise ValueError(f"expected a {kind.__name__}, found a {type(value).__name__}")
    return value


def _storage(identity: Any) -> Storage:
    """What a persistent id stands for: ('storage', type, key, place, count), perhaps with None."""
    word, kind, key, _, count = expect(identity, tuple)[:5]
    if word != "storage" or len(identity) > 6 or any(view is not None for view in identity[5:]):
        raise Refused("a value outside the pickle that is no storage of numbers")
    if type(count) is not int or count < 0:
        raise ValueError("a storage without size")
    return Storage(expect(key, str), STORAGES[expect(kind, Name).text], count)


def _meaning(function: str, arguments: tuple[Any, ...]) -> Any:
    """What a call would give; nothing is called, and no container is copied.

    A copy for each of many calls could fill the memory.
    """
    if function == ORDERED_DICT:
        if arguments:  # Python 2 alone gave the items here
            raise Refused("an OrderedDict with arguments")
        return {}
    if function in TENSORS:
        storage, offset, shape, strides = arguments[:4]
        tensor = Tensor(storage, offset, expect(shape, tuple), expect(strides, tuple))
        if not _fits(expect(storage, Storage), tensor):
            raise ValueError("a tensor that is larger than its numbers")
        return tensor
    if function == PARAMETER:
        return expect(arguments[0], Tensor)
    if function == "torch Size":
        return expect(arguments[0], tuple)
    raise Refused(function.replace(" ", "."))


def _fits(storage: Storage, tensor: Tensor) -> bool:
    """Whether a view lies within its storage and has no more elements than it.

    The stride of an axis of length 1 says nothing; in a copy of a part it may be larger.
    """
    if len(tensor.shape) != len(tensor.strides) or len(tensor.shape) > MOST_AXES:
        return False
    numbers = (tensor.offset, *tensor.shape, *tensor.strides)
    if any(type(number) is not int or not 0 <= number < 2**63 for number in numbers):
        return False
    size = math.prod(tensor.shape)
    steps = zip(tensor.shape, tensor.strides, strict=True)
    last = tensor.offset + sum((length - 1) * stride for length, stride in steps)
    return size == 0 or (size <= storage.size and last < storage.size)
