"""Checkpoints: named arrays and a dictionary in one safetensors file, replaced as a whole.

A reader sees the old file or the new one, never half of one: bytes go to a temporary file in the
same folder, reach the disk, and take the old file's name in one step. The writer holds a lock on
its temporary file, so that a later writer can tell what a killed one left behind.

Same arrays and metadata, same bytes.
"""

import errno
import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from transfg_core.backend import Array, Arrays
from transfg_core.errors import RunFailed, UserError

FORMAT = 1  # raise when a reader of the number before would misread the file
KEY = "transfg"  # one key: several would come in an order that changes from save to save
TEMPORARY = ".transfg-tmp"

# First bytes of files that people take for checkpoints.
FOREIGN: dict[bytes, str] = {
    b"PK\x03\x04": "a zip archive, such as torch.save or np.savez writes",
    b"\x80": "a Python pickle, which could run code and is never opened",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a single NumPy array",
}


def save(path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, Any]) -> None:
    """Write arrays and metadata to `path`, replacing an older file only once all is on disk.

    Args:
        arrays: name -> array of numbers or booleans, of any memory layout and byte order.
        metadata: must survive JSON: plain Python numbers (finite), strings, lists, dictionaries.

    Raises:
        RunFailed: the disk is full, the folder is not writable, ...; an older file is intact.
        ValueError, TypeError: metadata that JSON cannot hold.
    """
    text = json.dumps({"format": FORMAT, "metadata": metadata}, sort_keys=True, allow_nan=False)
    dense = {name: _dense(name, array) for name, array in arrays.items()}
    replace_file(path, safetensors.numpy.save(dense, metadata={KEY: text}))


def load(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """The arrays and the metadata that `save` was given.

    Raises:
        UserError: the file is missing, cut short, of another kind, without this project's
            metadata, or written by a newer version.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(9)
        with safetensors.safe_open(path, framework="numpy") as opened:
            metadata = read_metadata(path, opened.metadata() or {})
            arrays = {name: _read_array(path, opened, name) for name in opened.keys()}
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"{path}: expected a checkpoint, found none that can be read ({reason}); check the path"
        ) from error
    except safetensors.SafetensorError as error:
        raise UserError(f"{path}: {_explain(start, error)}") from error
    return arrays, metadata


def replace_file(path: Path, data: bytes) -> None:
    """Give `path` the content `data` in one step that survives a crash at any point.

    Raises:
        RunFailed: the operating system refused; whatever was at `path` is intact.
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
            "A file that was there before is intact"
        ) from error


def _dense(name: str, array: Array) -> Array:
    """safetensors reads memory as if C-contiguous and would silently store others wrongly."""
    assert array.dtype.kind in "fiub", f"{name}: cannot store {array.dtype}"
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return np.ascontiguousarray(native).reshape(array.shape)  # which makes () into (1,)


def read_metadata(path: str | Path, strings: Mapping[str, str]) -> dict[str, Any]:
    if KEY not in strings:
        raise UserError(
            f"{path}: expected a checkpoint of this program, found a safetensors file without its "
            f"{KEY!r} metadata; bare weights go into model.pretrained"
        )
    try:
        wrapped = json.loads(strings[KEY])
        number, metadata = int(wrapped["format"]), dict(wrapped["metadata"])
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{path}: expected JSON under the metadata key {KEY!r}, found {strings[KEY][:40]!r}; "
            "the file is damaged, take an older checkpoint"
        ) from error
    if number > FORMAT:
        raise UserError(
            f"{path}: expected checkpoint format {FORMAT} or older, found {number}; "
            "it comes from a newer version of this program: update"
        )
    return metadata


def _read_array(path: Path, opened: Any, name: str) -> Array:
    try:
        array: Array = opened.get_tensor(name)
    except (TypeError, AttributeError) as error:  # a type that NumPy lacks, such as bfloat16
        kind = opened.get_slice(name).get_dtype()
        raise UserError(
            f"{path}: expected numbers that NumPy can hold, found {kind} in {name}; "
            "convert the file to float32"
        ) from error
    return array


def _explain(start: bytes, error: Exception) -> str:
    own = start[8:] == b"{"  # after the header's length, whose first byte may be any
    for magic, kind in FOREIGN.items():
        if start.startswith(magic) and not own:
            return f"expected a safetensors checkpoint, found {kind}; convert it first"
    if not start:
        return "expected a checkpoint, found an empty file; take an older checkpoint"
    return (
        f"expected a safetensors checkpoint, found a damaged or cut file ({error}); "
        "copy it again or take an older checkpoint"
    )


def _remove_abandoned(folder: Path) -> None:
    """Delete temporary files that no living writer has locked."""
    for path in folder.glob(f".*{TEMPORARY}"):
        try:
            with open(path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
        except (BlockingIOError, FileNotFoundError, PermissionError):
            continue  # a living writer's, gone in the meantime, or somebody else's


def _sync_folder(folder: Path) -> None:
    """Make the renaming itself survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
