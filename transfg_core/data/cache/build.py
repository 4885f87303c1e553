"""Filling the cache: what is missing is read once, by one process at a time.

The builder appends pixels and replaces the index every few seconds, so a build that is killed
resumes from there. A process that waited for another one finds the work done.
"""

import errno
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from transfg_core.config.sections import DataConfig
from transfg_core.data.bad_image import BadImage
from transfg_core.data.cache.files import CacheFiles, Index, names_of, state_of, stored_config
from transfg_core.data.datasets.samples import Samples
from transfg_core.data.decoding import read_image
from transfg_core.data.mapped_image import as_array
from transfg_core.data.transforms import resize_image
from transfg_core.errors import RunFailed, UserError

SECONDS = 10.0  # between two states of the index, and two lines of progress
RECENT = 2_000_000_000  # ns; a file this new could change again without a change of its times
SAMPLED = 32  # images that tell the size of the cache
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
GB = 1e9

Say = Callable[[str], None]


@dataclass(frozen=True)
class Read:
    """One file: its state, and its pixels; (0, 0, 3) of a file that is not a readable image."""

    state: tuple[int, int, int]
    pixels: NDArray[np.uint8]


def fill_cache(
    data: DataConfig, train: Samples | None, others: Sequence[Samples], say: Say
) -> None:
    """Read into `data.cache` what it lacks of these samples; nothing without `data.cache`.

    `train` is read as for training, `others` as for evaluation.

    Raises:
        UserError: the folder lies in the data set, cannot be written, or has too little space.
        RunFailed: the disk became full; what was stored before stays valid.
    """
    if data.cache is None:
        return
    folder = Path(data.cache)
    if folder.absolute().resolve().is_relative_to(Path(data.root).absolute().resolve()):
        raise UserError(
            f"data.cache: expected a folder outside of the data set {data.root}, found {folder}; "
            "choose another folder"
        )
    wanted: dict[str, tuple[DataConfig, list[Samples]]] = {}
    for samples, training in [(train, True), *((each, False) for each in others)]:
        if samples is not None and len(samples.paths):
            stored = stored_config(data, training)
            wanted.setdefault(CacheFiles.of(stored).key, (stored, []))[1].append(samples)
    for stored, splits in wanted.values():
        _fill(stored, splits, say)


def _fill(data: DataConfig, splits: Sequence[Samples], say: Say) -> None:
    """Fill the cache of one key."""
    files = CacheFiles.of(data)
    index = files.load()
    if index is not None and not any(len(_missing(index, each)) for each in splits):
        return
    with _locked(files, say):
        index = files.load()  # another process may have filled it meanwhile
        if index is None:
            index = _start(files)
        for samples in splits:
            rows = _missing(index, samples)
            if len(rows):
                index = Builder(files, data, samples, say).append(index, rows)
    say(f"{files.folder}: {len(index.names)} images, {_gb(index.end)}; it may be deleted")


def _missing(index: Index, samples: Samples) -> NDArray[np.int64]:
    """The rows whose files exist and are not in the index as they are now."""
    entry = index.find(names_of(samples, range(len(samples.paths))))
    missing = []
    for row, (path, place) in enumerate(zip(samples.paths, entry.tolist(), strict=True)):
        try:
            state = state_of(path)
        except OSError:  # reading it will say why
            continue
        if place < 0 or tuple(index.states[place].tolist()) != state:
            missing.append(row)
    return np.array(missing, np.int64)


@contextmanager
def _locked(files: CacheFiles, say: Say) -> Iterator[None]:
    """Hold the lock of a key; wait while another process holds it."""
    try:
        files.folder.mkdir(parents=True, exist_ok=True)
        with open(files.lock, "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"{files.folder}: another process fills this cache; waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise UserError(
            f"data.cache: expected a folder that can be written, found {files.folder}: "
            f"{error.strerror or error}; choose another folder, or set data.cache=null"
        ) from error


def _start(files: CacheFiles) -> Index:
    """An empty index with a pixel file of a new name; older pixel files of the key are deleted."""
    index = Index.of(secrets.randbits(31))
    files.save(index)
    for old in files.folder.glob(f"{files.key}-*.pixels"):
        old.unlink(missing_ok=True)  # who has mapped it keeps it
    files.pixels(index.number).touch()
    return index


@dataclass(frozen=True)
class Builder:
    """Appends the images of some samples; the caller holds the lock."""

    files: CacheFiles
    data: DataConfig
    samples: Samples
    say: Say

    def append(self, index: Index, rows: NDArray[np.int64]) -> Index:
        """Read these rows into the cache, and return the new index.

        Raises:
            UserError: the disk has too little space.
            RunFailed: the disk became full.
        """
        self.check_space(index, rows)
        names = names_of(self.samples, rows.tolist())
        try:
            with open(self.files.pixels(index.number), "r+b") as file:
                file.truncate(index.end)  # what a killed builder left
                file.seek(index.end)
                return self.write(file, index, rows, names)
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise RunFailed(
                f"{self.files.folder}: the disk is full ({error.strerror}); free some space, and "
                "run the same command again: the images stored so far stay. Or choose another "
                "folder for data.cache, a smaller data.resize, or data.cache=null"
            ) from error

    def write(
        self, file: IO[bytes], index: Index, rows: NDArray[np.int64], names: NDArray[np.uint64]
    ) -> Index:
        """Write the pixels, and the index every few seconds."""
        began = saved = time.monotonic()
        end, done, entries = index.end, 0, []
        ahead = 8 * self.data.threads
        with ThreadPoolExecutor(self.data.threads) as pool:
            while done < len(rows):
                part = slice(done, done + ahead)
                reads = pool.map(self.read, rows[part].tolist())
                for name, read in zip(names[part].tolist(), reads, strict=True):
                    if read is not None:
                        file.write(read.pixels.data)
                        entries.append((name, read.state, end, read.pixels.shape[:2]))
                        end += read.pixels.nbytes
                done = min(done + ahead, len(rows))
                if time.monotonic() - saved >= SECONDS or done == len(rows):
                    index, entries = self.commit(file, index.extended(Index.of(0, entries))), []
                    saved = time.monotonic()
                    left = (saved - began) * (len(rows) - done) / done
                    progress = f"{done} of {len(rows)} images read, {left:.0f} s left"
                    self.say(f"{self.files.folder}: {progress}")
        return index

    def commit(self, file: IO[bytes], index: Index) -> Index:
        """Put pixels, then the index, on the disk."""
        file.flush()
        os.fsync(file.fileno())
        self.files.save(index)
        return index

    def read(self, row: int) -> Read | None:
        """One image as it is stored; None if it must not be stored."""
        path = self.samples.paths[row]
        try:
            state = state_of(path)
            if time.time_ns() - max(state[1:]) < RECENT:
                return None
            image = read_image(path, self.data, self.samples.region(row))
            pixels = as_array(resize_image(image, self.data))
            return Read(state, pixels) if state_of(path) == state else None
        except BadImage:
            return Read(state, np.zeros((0, 0, 3), np.uint8))
        except (OSError, UserError, MemoryError):  # who reads the file will say what is wrong
            return None

    def check_space(self, index: Index, rows: NDArray[np.int64]) -> None:
        """Say how much space the images need.

        Raises:
            UserError: the disk has less.
        """
        spread = rows[np.linspace(0, len(rows) - 1, min(len(rows), SAMPLED)).astype(int)]
        sizes = [read.pixels.nbytes for row in spread.tolist() if (read := self.read(row))]
        need = int(np.mean(sizes or [0]) * len(rows))
        free = shutil.disk_usage(self.files.folder).free
        # what a killed builder left will be overwritten
        free += max(0, self.files.pixels(index.number).stat().st_size - index.end)
        self.say(
            f"{self.files.folder}: reading {len(rows)} images into the cache, about {_gb(need)} "
            f"of {_gb(free)} that are free"
        )
        if need > free:
            raise UserError(
                f"data.cache: expected about {_gb(need)} for {len(rows)} images in "
                f"{self.files.folder}, found {_gb(free)} free; free some space, choose another "
                "folder or a smaller data.resize, or set data.cache=null"
            )


def _gb(count: int) -> str:
    return f"{count / GB:.2f} GB"
