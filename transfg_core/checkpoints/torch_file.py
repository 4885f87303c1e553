"""Read a file of torch.save (.bin, .pth, .pt) that holds a state_dict, without PyTorch.

A file of either backend's user is read in the process that trains. PyTorch there would disturb
Jittor, whose user need not have PyTorch at all; and only headers are needed to plan. So this reader
takes the names from `inert_pickle.py`, which runs no code, and the numbers from the file.

Two formats: a zip archive with data.pkl and one member per storage (since PyTorch 1.6), and before
it pickles followed by the storages. Source: torch/serialization.py of PyTorch.
"""

import io
import math
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, Literal

import numpy as np

from transfg_core.backend import Array
from transfg_core.checkpoints.inert_pickle import (
    Damaged,
    Refused,
    Storage,
    Tensor,
    expect,
    read_pickle,
)
from transfg_core.checkpoints.weight_file import Header, WeightFile, damaged, widen_bfloat16
from transfg_core.errors import UserError
from transfg_core.params.merge import refuse

MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the old format
WRAPPERS = ("model", "state_dict")  # keys under which training programs store the state_dict
PARALLEL_PREFIX = "module."  # torch.nn.DataParallel and DistributedDataParallel
ORDERS: dict[bool, Literal["<", ">"]] = {True: "<", False: ">"}  # little-endian?
# Exceptions of the readers here and of zipfile and numpy for files that are cut or damaged.
DAMAGED = (
    Damaged, OSError, EOFError, ValueError, LookupError, TypeError, OverflowError, RuntimeError,
    zipfile.BadZipFile,
)  # fmt: skip


class TorchFile(WeightFile):
    """An open file of torch.save."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.file = open(path, "rb")
        try:
            with self._explained():
                self.storages: _Zip | _Stream
                if self.file.read(2) == b"PK":
                    self.storages = _Zip(self.file)
                else:
                    self.file.seek(0)
                    self.storages = _Stream(self.file)
            self.tensors = self._named(self.storages.tree)
        except BaseException:
            self.file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def headers(self) -> dict[str, Header]:
        """Dict: key -> header."""
        return {key: Header(t.shape, t.storage.dtype) for key, t in self.tensors.items()}

    def read(self, key: str) -> Array:
        """One array; a zip's checksum is verified.

        Raises:
            UserError: the array is damaged.
        """
        tensor = self.tensors[key]
        with self._explained(key):
            numbers = np.frombuffer(
                self.storages.read(tensor.storage),
                _stored_type(tensor.storage, self.storages.order),
            )
            if tensor.storage.dtype == "bfloat16":
                numbers = widen_bfloat16(numbers.astype(np.uint16))
            steps = tuple(stride * numbers.itemsize for stride in tensor.strides)
            view = numbers[tensor.offset :] if math.prod(tensor.shape) else numbers[:0]
            return np.lib.stride_tricks.as_strided(view, tensor.shape, steps, writeable=False)

    def _named(self, tree: Any) -> dict[str, Tensor]:
        """The named tensors of a file: a state_dict, or one under a key of `WRAPPERS`."""
        place = ""
        for key in WRAPPERS:
            if isinstance(tree, dict) and isinstance(tree.get(key), dict):
                others = [name for name in tree if name != key and _holds_tensors(tree[name])]
                if others:
                    left = ", ".join(map(repr, others[:3]))
                    self.note = f"note: the arrays of {key!r} are taken, not those of {left}"
                tree = tree[key]
                place += f"[{key!r}]"
        if not isinstance(tree, dict) or not tree:
            kind = type(tree).__name__
            raise UserError(
                f"{self.path}: expected named tensors (a state_dict), found "
                f"{'nothing' if kind == 'dict' else f'a {kind}'}; save model.state_dict()"
            )
        parts = [key for key, value in tree.items() if isinstance(value, dict)]
        if parts and not any(isinstance(value, Tensor) for value in tree.values()):
            names = ", ".join(map(repr, parts[:5])) + ", ..." * (len(parts) > 5)
            raise UserError(
                f"{self.path}: expected the named tensors of one model (a state_dict), found "
                f"dictionaries {names}; save the one with the model's tensors alone: "
                f"torch.save(torch.load({self.path!r}){place}[NAME], 'weights.pth')"
            )
        tensors: dict[str, Tensor] = {}
        problems = []
        for key, value in tree.items():
            name = str(key).removeprefix(PARALLEL_PREFIX)
            if not isinstance(value, Tensor):
                problems.append(f"{key}: expected a tensor, found a {type(value).__name__}")
            elif name in tensors:
                problems.append(f"{key}: expected one tensor of this name, found two")
            else:
                tensors[name] = value
        refuse(self.path, problems)
        return tensors

    @contextmanager
    def _explained(self, key: str = "") -> Iterator[None]:
        where = f"{self.path}: {key}" if key else self.path
        try:
            yield
        except Refused as error:
            raise UserError(
                f"{where}: expected tensors only, found {str(error)[:200]}, which could run "
                "code: refused, no code was run; save model.state_dict() alone, or choose a "
                ".safetensors file"
            ) from error
        except DAMAGED as error:
            raise UserError(f"{where}: {damaged('a PyTorch file', error)}") from error


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(item, Tensor) for item in value.values())


class _Zip:
    """The format since PyTorch 1.6; every member is stored without compression."""

    def __init__(self, file: IO[bytes]) -> None:
        self.archive = zipfile.ZipFile(file)
        members = self.archive.namelist()
        (pickled,) = (name for name in members if name.endswith("/data.pkl"))
        self.root = pickled.removesuffix("data.pkl")
        written = f"{self.root}byteorder" in members  # since PyTorch 2.1
        self.order = ORDERS[not written or self._member("byteorder") == b"little"]
        if f"{self.root}constants.pkl" in members:
            raise Refused("a TorchScript program")
        self.tree = read_pickle(io.BytesIO(self._member("data.pkl")))

    def read(self, storage: Storage) -> bytes:
        data = self._member(f"data/{storage.key}")
        if len(data) < storage.size * _stored_type(storage, self.order).itemsize:
            raise EOFError("numbers are missing")
        return data[: storage.size * _stored_type(storage, self.order).itemsize]

    def _member(self, name: str) -> bytes:
        info = self.archive.getinfo(self.root + name)
        # torch.save never compresses; what is read is then no larger than the file
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{name} is compressed")
        return self.archive.read(info)


class _Stream:
    """The format before PyTorch 1.6: pickles, then each storage's length and numbers."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        if read_pickle(file) != MAGIC:
            raise ValueError("a pickle that torch.save did not write")
        read_pickle(file)  # the version of the format
        machine = expect(read_pickle(file), dict)  # the one that wrote the file
        self.order = ORDERS[expect(machine["little_endian"], bool)]
        self.tree = read_pickle(file)
        storages = {storage.key: storage for storage in _storages_in(self.tree)}
        self.places: dict[Storage, int] = {}
        end = os.fstat(file.fileno()).st_size
        for key in expect(read_pickle(file), list):
            (count,) = np.frombuffer(file.read(8), "<i8")
            storage = storages[expect(key, str)]
            if count != storage.size:
                raise ValueError("a storage of another length")
            self.places[storage] = file.tell()
            file.seek(storage.size * _stored_type(storage, self.order).itemsize, io.SEEK_CUR)
            if file.tell() > end:
                raise EOFError("numbers are missing")

    def read(self, storage: Storage) -> bytes:
        self.file.seek(self.places[storage])
        data = self.file.read(storage.size * _stored_type(storage, self.order).itemsize)
        if len(data) < storage.size * _stored_type(storage, self.order).itemsize:
            raise EOFError("numbers are missing")
        return data


def _stored_type(storage: Storage, order: Literal["<", ">"]) -> np.dtype[Any]:
    """The type of the numbers in the file; bfloat16 is read as two bytes."""
    name = "uint16" if storage.dtype == "bfloat16" else storage.dtype
    return np.dtype(name).newbyteorder(order)


def _storages_in(tree: Any) -> Iterator[Storage]:
    """The storages of all tensors in nested containers; each container is entered once."""
    waiting, seen = [tree], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            yield value.storage
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend(value.values() if isinstance(value, dict) else value)
