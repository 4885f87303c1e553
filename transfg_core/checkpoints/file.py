"""Checkpoints: named arrays and a dictionary in one safetensors file, written atomically.

The writer fills a temporary file in the same folder, syncs it to the disk, and renames it over the
old file. So a reader finds the old file or the new one, never half of one. The writer locks its
temporary file; a later writer deletes temporary files without a lock, which killed writers left.

The metadata is one JSON string with a SHA-256 over itself and the arrays, so that damage is found.
Files of older versions have none. Equal arrays and metadata give equal bytes.
"""

import errno
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from transfg_core.backend import Array, Arrays
from transfg_core.checkpoints.weight_file import container_of, other_kind
from transfg_core.config.yaml_text import is_too_deep
from transfg_core.errors import RunFailed, UserError

FORMAT = 1  # increase it when readers of the previous format would misread the file
KEY = "transfg"  # a single key: safetensors does not keep the order of several
TEMPORARY = ".transfg-tmp"
LARGEST_HEADER = 2**24  # bytes; 600 arrays and 10,000 class names take less than 2**19

WEIGHTS = {"npz": "an .npz of arrays", "torch": "a Python pickle, such as torch.save writes"}


class Damaged(UserError):
    """A checkpoint that is cut, changed or of another type; an older one may be intact."""


def save(path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, Any]) -> None:
    """Write arrays and metadata to `path`; an older file stays until all bytes are on the disk.

    Args:
        arrays: name -> array of numbers or booleans, of any memory layout and byte order.
        metadata: values that JSON can hold: finite numbers, strings, lists, dictionaries.

    Raises:
        RunFailed: the disk is full, the folder is not writable, ...; an older file is intact.
        ValueError, TypeError: JSON cannot hold the metadata.
    """
    wrapped = {"format": FORMAT, "metadata": metadata}
    dense = {name: _dense(name, array) for name, array in arrays.items()}
    text = _text(wrapped | {"sha256": _checksum(wrapped, dense)})
    replace_file(path, safetensors.numpy.save(dense, metadata={KEY: text}))


def _text(wrapped: Mapping[str, Any]) -> str:
    return json.dumps(wrapped, sort_keys=True, allow_nan=False)


def _checksum(wrapped: Mapping[str, Any], arrays: Mapping[str, Array]) -> str:
    """SHA-256 of format and metadata, and of each array's name, type, shape and bytes."""
    digest = hashlib.sha256(_text(wrapped).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def load(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """The arrays and the metadata that `save` wrote.

    Raises:
        Damaged: the file is cut short, of another type, or not as it was written.
        UserError: the file is missing, has no metadata of this project, or is of a newer version.
    """
    with open_file(path) as opened:
        wrapped = _read_wrapped(path, opened.metadata() or {})
        arrays = {name: _read_array(path, opened, name) for name in opened.keys()}
    expected = wrapped.pop("sha256", None)
    if expected is not None and expected != _checksum(wrapped, arrays):
        raise Damaged(
            f"{path}: expected the content that was written, found another SHA-256: the file is "
            "damaged; copy it again or take an older checkpoint"
        )
    return arrays, wrapped["metadata"]


def load_metadata(path: Path) -> dict[str, Any]:
    """The metadata alone, which may be damaged: only `load` compares the checksum.

    Raises:
        Damaged, UserError: see `load`.
    """
    with open_file(path) as opened:
        metadata: dict[str, Any] = _read_wrapped(path, opened.metadata() or {})["metadata"]
    return metadata


@contextmanager
def open_file(path: Path) -> Iterator[Any]:
    """Open a safetensors file, after a check that it is a regular file with a header of sane size.

    Raises:
        Damaged: the file is cut short or of another type, also if an array turns out to be so.
        UserError: the file is missing, or not a regular file such as a pipe or a device.
    """
    try:
        best = path / "checkpoints" / "best.safetensors"
        if path.is_dir() and best.exists():
            raise UserError(f"{path}: expected a checkpoint, found the folder of a run; try {best}")
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe could wait for ever
            raise UserError(f"{path}: expected a checkpoint, found no regular file; check the path")
        with open(path, "rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if header > LARGEST_HEADER:
            limit = f"a header of {header} bytes, of which {LARGEST_HEADER} are allowed"
            raise Damaged(f"{path}: {_explain(path, limit)}")
        with safetensors.safe_open(path, framework="numpy") as opened:
            yield opened
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"{path}: expected a checkpoint, but reading it failed ({reason}); check the path"
        ) from error
    except safetensors.SafetensorError as error:
        raise Damaged(f"{path}: {_explain(path, error)}") from error


def replace_file(path: Path, data: bytes) -> None:
    """Replace the content of `path` by `data` atomically: a crash leaves the old or the new file.

    Raises:
        RunFailed: the operating system refused; an older file at `path` is intact.
    """
    temporary = path.parent / f".{path.name}.{os.getpid()}{TEMPORARY}"
    try:
        _remove_abandoned(path.parent)
        try:
            with open(temporary, "wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free some space" if full else "check the folder and its permissions"
        raise RunFailed(
            f"{path}: could not write {len(data)} bytes: {error.strerror or error}; {remedy}. "
            "An older file at this path is intact"
        ) from error


def _dense(name: str, array: Array) -> Array:
    """The array C-contiguous and in native byte order: safetensors stores others wrongly."""
    assert array.dtype.kind in "fiub", f"{name}: cannot store {array.dtype}"
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    # ascontiguousarray turns the shape () into (1,)
    return np.ascontiguousarray(native).reshape(array.shape)


def _read_wrapped(path: Path, strings: Mapping[str, str]) -> dict[str, Any]:
    """Format, metadata and checksum, from the strings in a safetensors header."""
    if KEY not in strings:
        raise UserError(
            f"{path}: expected a checkpoint of this program, found a safetensors file without its "
            f"{KEY!r} metadata; bare weights go into model.pretrained"
        )
    try:
        wrapped = json.loads(strings[KEY], parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        wrapped = None
    number = wrapped.get("format") if isinstance(wrapped, dict) else None
    if type(number) is int and number > FORMAT:
        raise UserError(
            f"{path}: expected checkpoint format {FORMAT} or older, found {number}; "
            "a newer version of this program wrote it: update this program"
        )
    whole = type(number) is int and isinstance(wrapped.get("metadata"), dict)
    if not whole or wrapped.keys() - {"format", "metadata", "sha256"} or is_too_deep(wrapped):
        raise Damaged(
            f"{path}: expected format and metadata as JSON under the metadata key {KEY!r}, found "
            f"{strings[KEY][:40]!r}; the file is damaged: take an older checkpoint"
        )
    return dict(wrapped)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _read_array(path: Path, opened: Any, name: str) -> Array:
    """An array of a type that NumPy itself has.

    Where ml_dtypes is imported, safetensors returns bfloat16 as a type of that package; else it
    raises.
    """
    cause: Exception | None = None
    try:
        array: Array = opened.get_tensor(name)
        if array.dtype.isbuiltin == 1:
            return array
    except (TypeError, AttributeError) as error:
        cause = error
    dtype = opened.get_slice(name).get_dtype()
    raise UserError(
        f"{path}: expected numbers that NumPy can hold, found {dtype} in {name}; convert the file "
        "to float32"
    ) from cause


def _explain(path: Path, reason: object) -> str:
    """What a file is that is no checkpoint."""
    with open(path, "rb") as file:
        start = file.read(64)
    if not start:
        return "expected a checkpoint, found an empty file; take an older checkpoint"
    if start[8:9] != b"{":  # else a header of safetensors, whose length may be like any magic
        with suppress(UserError):  # of no kind that holds weights
            return (
                f"expected a checkpoint of this program, found {WEIGHTS[container_of(str(path))]}; "
                "to start a run from weights, set model.pretrained to this file"
            )
        if other := other_kind(start):
            return f"expected a checkpoint of this program, found {other}"
    return (
        f"expected a safetensors checkpoint, found a cut or damaged file ({reason}); "
        "copy it again or take an older checkpoint"
    )


def _remove_abandoned(folder: Path) -> None:
    """Delete temporary files that no running writer has locked."""
    for path in folder.glob(f".*{TEMPORARY}"):
        try:
            with open(path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
        except (BlockingIOError, FileNotFoundError, PermissionError):
            continue  # locked by a running writer, already deleted, or owned by another user


def _sync_folder(folder: Path) -> None:
    """Write the folder to the disk, so that the new name survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
