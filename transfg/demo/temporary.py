"""The folder for what gradio writes: removed at the end, or by the next start after a kill -9."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "transfg-demo-"


@contextmanager
def own_folder() -> Iterator[Path]:
    """A new folder under the system's one for temporary files; locked as long as it is in use.

    Pictures of users never get there: the page sends them as text, and `gate.py` refuses uploads.
    """
    remove_abandoned()
    folder, lock = locked_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def locked_folder() -> tuple[Path, int]:
    """A new folder and its lock.

    Another demo that starts now may take the folder for an abandoned one, before it is locked.
    """
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        with suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return folder, lock
            os.close(lock)


def remove_abandoned() -> None:
    """Remove the folders of demos that ended without doing so, of this user alone."""
    for folder in Path(tempfile.gettempdir()).glob(PREFIX + "*"):
        with suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused while a demo runs
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
