"""Who may use a folder for a run: what counts as a run, and the lock for one process at a time."""

import fcntl
import os
import socket
from pathlib import Path
from typing import IO

from transfg_core.checkpoints.file import TEMPORARY
from transfg_core.errors import UserError

HEADER = "# A run of TransFG, fully resolved: train with this file to repeat it.\n"
LOCK = ".lock"


def is_run(path: Path) -> bool:
    """Whether the folder holds a config.yaml that a run wrote."""
    try:
        return (path / "config.yaml").read_bytes().startswith(HEADER.encode())
    except OSError:
        return False


def refuse_if_used(path: Path, overwrite: bool) -> None:
    """Refuse to start a run at `path` unless it is empty, or a run that may be overwritten.

    Raises:
        UserError: the folder holds other files, or a run without `overwrite`.
    """
    try:
        names = [entry.name for entry in path.iterdir()]
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{path}: cannot make the run folder: {error.strerror}") from error
    # a process that was killed while it made the folder leaves its lock and a temporary file
    used = any(name != LOCK and not name.endswith(TEMPORARY) for name in names)
    saved = sorted((path / "checkpoints").glob("*.safetensors"))
    if used and saved and not is_run(path):
        raise UserError(
            f"{path}: expected config.yaml of a run beside its checkpoints, found none that can be "
            f"read; restore it, or continue in a new folder: --resume-from {saved[-1]} and another "
            "run.name"
        )
    if used and not is_run(path):
        raise UserError(
            f"{path}: expected an empty folder or a run of this program, found other files and "
            "no config.yaml of a run; --overwrite deletes nothing but a run: choose another "
            "run.name, or empty the folder yourself"
        )
    if used and not overwrite:
        raise UserError(
            f"{path}: the run folder is not empty; --resume resumes the run, --overwrite "
            "deletes it, run.name=... starts another run"
        )


def lock_folder(
    path: Path, busy: str = "is writing this run; stop it, or choose another run.name"
) -> IO[bytes]:
    """Lock the folder until the returned file is closed or the process ends.

    `busy` says what another process that holds the lock does, and what helps.

    Raises:
        UserError: another process holds the lock, or the folder is not writable.
    """
    try:
        file = open(path / LOCK, "a+b", buffering=0)
    except OSError as error:
        raise UserError(f"{path}: cannot write the run folder: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    except OSError as error:
        file.seek(0)
        holder = file.read().decode(errors="replace").strip() or "another process"
        file.close()
        raise UserError(
            f"{path}: {holder} {busy}"
            if isinstance(error, BlockingIOError)
            else f"{path / LOCK}: cannot lock the run folder: {error.strerror}"
        ) from error
    return file


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of the folder now."""
    try:
        with open(path / LOCK, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no such file
        pass
    return False
