"""Folders that are written as a whole: by one process at a time, and never half of one is left."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from transfg_core.errors import RunFailed


@contextmanager
def one_writer(folder: Path, what: str, remedy: str = "") -> Iterator[None]:
    """Lock a folder, which is created if it is absent; another process waits meanwhile.

    Raises:
        RunFailed: the folder cannot be created or opened; the text says that `what` cannot be
            written there, and the remedy.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise _cannot_write(folder, what, error, remedy) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_whole(folder: Path, fill: Callable[[Path], None], what: str, remedy: str = "") -> None:
    """Fill a new folder under another name, then rename it; an empty `folder` may exist.

    `fill` gets a folder that exists and is empty. What a killed process left behind is removed.
    Call it under `one_writer` of the parent.

    Raises:
        RunFailed: the disk is full or not writable; nothing is left behind.
    """
    partial = folder.with_name(folder.name + ".partial")
    try:
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        try:
            fill(partial)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise _cannot_write(folder, what, error, remedy) from error


def _cannot_write(folder: Path, what: str, error: OSError, remedy: str) -> RunFailed:
    return RunFailed(f"{folder}: cannot write {what} here: {error}" + (remedy and f"; {remedy}"))
