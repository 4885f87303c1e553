"""One walk of folders for every reader: the image files below a folder, and what is left out.

The walk follows links, reads each folder once and never a folder above its start: it knows folders
by device and inode. Real folders come before links, so a linked folder belongs to its own place.
Whatever is left out is counted by reason, each with an example.

Names are bytes. In a *shown* name, accents are composed (Unicode NFC), a backslash is doubled, and
a byte that is no UTF-8 is written as \\xNN. Shown names are valid UTF-8, equal on every machine,
and two names that differ in more than the form of an accent stay different.
"""

import os
import stat
import unicodedata
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from PIL import features

from transfg_core.errors import UserError

SUFFIXES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".png", ".apng", ".bmp", ".dib", ".webp", ".tif",
    ".tiff", ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".tga",
}  # fmt: skip
HEIC_SUFFIXES = {".heic", ".heif", ".hif"}
RAW_SUFFIXES = {
    ".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw",
    ".rw2", ".sr2", ".srf", ".srw", ".x3f",
}  # fmt: skip
# Folders of macOS archives, of Synology's and QNAP's disks, of Windows and Linux: no photographs,
# or those that somebody has thrown away.
SYSTEM_FOLDERS = {
    "__MACOSX", "@eaDir", "#recycle", "#snapshot", "@Recycle", "@Recently-Snapshot", "$RECYCLE.BIN",
    "System Volume Information", "lost+found",
}  # fmt: skip

AVIF_IS_READ = "avif" in features.modules and features.check("avif")  # since Pillow 11.3

HIDDEN = "hidden or system files and folders"
NO_IMAGE = "files without the suffix of an image"
HEIC = "HEIC photographs, which Pillow does not read; convert them to JPEG"
RAW = "raw camera files; convert them to JPEG"
AVIF = "AVIF images, which this Pillow does not read; install pillow>=11.3"
SPECIAL = "sockets, pipes or devices"
DEAD_LINK = "links that lead nowhere"
READ_ALREADY = "links to a folder that is read already or lies above"
CANNOT_BE_READ = "empty or unreadable image files"

Identity = tuple[int, int]  # device and inode


@dataclass(frozen=True)
class LeftOut:
    """What a reader left out for one reason: how many, and one of them as a shown name."""

    reason: str
    count: int
    example: str

    def __str__(self) -> str:
        return f"{self.count} {self.reason} (such as {printable(self.example)})"


class Tally:
    """Counts what is left out, by reason."""

    def __init__(self) -> None:
        self._entries: dict[str, LeftOut] = {}

    def add(self, reason: str, example: str, count: int = 1) -> None:
        """Count `count` more for a reason; the first example stays."""
        old = self._entries.get(reason, LeftOut(reason, 0, example))
        self._entries[reason] = LeftOut(reason, old.count + count, old.example)

    def entries(self) -> tuple[LeftOut, ...]:
        """One entry for each reason, in the order of their first example."""
        return tuple(self._entries.values())


class ImageFile(NamedTuple):
    """An image file: its path for `open`, its shown name below the root, its size in bytes."""

    path: str
    name: str
    size: int

    @property
    def folders(self) -> list[str]:
        """The shown names of the folders between the root and the file."""
        return self.name.split("/")[:-1]


@dataclass
class _State:
    root: Path
    skip_unreadable: bool
    tally: Tally
    seen: set[Identity]
    listed: AbstractSet[str] = frozenset()
    keep_unreadable: bool = False
    images: list[ImageFile] = field(default_factory=list)
    found: set[str] = field(default_factory=set)  # of `listed`
    links: deque[str] = field(default_factory=deque)


def shown(name: str) -> str:
    """A name or path of the file system as valid UTF-8; see the module's docstring."""
    raw = os.fsencode(name).replace(b"\\", b"\\\\")
    return composed(raw.decode("utf-8", "backslashreplace"))


def relative_to(path: Path) -> str:
    """Where a relative path was looked for, for a message; empty for an absolute one."""
    return "" if path.is_absolute() else f" in {shown(os.getcwd())}"


def printable(name: str) -> str:
    """A shown name for the terminal: quoted if it holds control characters."""
    return name if name.isprintable() else repr(name)


def composed(text: str) -> str:
    """The text with composed accents (Unicode NFC)."""
    return unicodedata.normalize("NFC", text)


def walk(
    root: Path,
    tally: Tally,
    below: Sequence[str] = ("",),
    skip_unreadable: bool = False,
    keep_unreadable: bool = False,
) -> list[ImageFile]:
    """The image files in the folders `below` a root, sorted by shown name.

    With `skip_unreadable`, empty files and files without read permission are left out; with
    `keep_unreadable` they are kept, for a caller that names each of them; else they are an error.
    `tally` counts all that is left out.

    Raises:
        UserError: a folder cannot be read, or two starts are the same folder.
    """
    state = _State(root, skip_unreadable, tally, set(_above(root)), keep_unreadable=keep_unreadable)
    _walk(state, below)
    return sorted(state.images, key=lambda image: image.name)


def walk_listed(
    root: Path, tally: Tally, below: Sequence[str], listed: AbstractSet[str]
) -> tuple[list[ImageFile], set[str]]:
    """The other image files in the folders `below` a root, and those of the `listed` paths found.

    Regular files at listed paths below the root are not looked at: that saves time in a data set of
    very many images. Other files are read as with `skip_unreadable`.

    Raises:
        UserError: see `walk`.
    """
    state = _State(root, True, tally, set(_above(root)), listed)
    _walk(state, below)
    return sorted(state.images, key=lambda image: image.name), state.found


def _walk(state: _State, below: Sequence[str]) -> None:
    root, tally = state.root, state.tally
    for start in below:
        path = os.path.join(root, start) if start else str(root)
        _refuse_same_start(state, path)
        _read_tree(state, path)
    while state.links:
        path = state.links.popleft()
        identity = _identity(path)
        if identity in state.seen:
            tally.add(READ_ALREADY, _below_root(state, path))
        else:
            state.seen.add(identity)
            _read_tree(state, path)


def subfolders(folder: Path) -> list[str]:
    """The names of the folders directly in a folder, without hidden and system ones, sorted.

    Raises:
        UserError: the folder cannot be read.
    """
    return sorted(
        entry.name for entry in _scan(str(folder)) if not _hidden(entry.name) and entry.is_dir()
    )


def _above(root: Path) -> Iterator[Identity]:
    """The folders above a root, by its real path."""
    for folder in Path(os.path.realpath(root)).parents:
        try:
            yield _identity(str(folder))
        except OSError:  # a folder above may be closed to us; then no link leads there either
            continue


def _identity(path: str) -> Identity:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _refuse_same_start(state: _State, path: str) -> None:
    try:
        identity = _identity(path)
    except OSError as error:
        raise _cannot_read(path, error) from error
    if identity in state.seen:
        raise UserError(
            f"{shown(path)}: expected a folder of its own, found a link to a folder that is read "
            "already or lies above; remove the link"
        )
    state.seen.add(identity)


def _read_tree(state: _State, folder: str) -> None:
    """Read a folder and the real folders below it; links to folders are kept for later."""
    waiting, start = deque([folder]), len(os.path.join(state.root, ""))
    while waiting:
        for entry in _scan(waiting.popleft()):
            below = entry.path[start:]
            if below in state.listed and entry.is_file(follow_symlinks=False):
                state.found.add(below)
                continue
            name = shown(below)
            if _hidden(entry.name):
                state.tally.add(HIDDEN, name)
                continue
            try:
                status = entry.stat()
            except OSError as error:
                if not entry.is_symlink():
                    raise _cannot_read(entry.path, error) from error
                state.tally.add(DEAD_LINK, name)
                continue
            if not stat.S_ISDIR(status.st_mode):
                _take_file(state, entry.path, name, status)
            elif entry.is_symlink():
                state.links.append(entry.path)
            elif (status.st_dev, status.st_ino) in state.seen:
                state.tally.add(READ_ALREADY, name)
            else:
                state.seen.add((status.st_dev, status.st_ino))
                waiting.append(entry.path)


def _take_file(state: _State, path: str, name: str, status: os.stat_result) -> None:
    reason = _why_not(name, status.st_mode)
    if reason:
        state.tally.add(reason, name)
        return
    trouble = "an empty file" if not status.st_size else "no permission to read it"
    if state.keep_unreadable or (status.st_size and os.access(path, os.R_OK)):
        state.images.append(ImageFile(path, name, status.st_size))
    elif state.skip_unreadable:
        state.tally.add(CANNOT_BE_READ, name)
    else:
        raise UserError(
            f"{shown(path)}: expected an image, found {trouble}; replace the file or set "
            "data.on_bad_image=skip"
        )


def _why_not(name: str, mode: int) -> str:
    """Why a file is left out; empty if it is not."""
    suffix = os.path.splitext(name)[1].lower()
    if suffix == ".avif":
        return "" if AVIF_IS_READ else AVIF
    for suffixes, reason in ((HEIC_SUFFIXES, HEIC), (RAW_SUFFIXES, RAW)):
        if suffix in suffixes:
            return reason
    if suffix not in SUFFIXES:
        return NO_IMAGE
    return "" if stat.S_ISREG(mode) else SPECIAL


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in SYSTEM_FOLDERS


def _below_root(state: _State, path: str) -> str:
    return shown(path[len(os.path.join(state.root, "")) :])


def _scan(folder: str) -> Iterable[os.DirEntry[str]]:
    """The entries of a folder, sorted by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise _cannot_read(folder, error) from error


def _cannot_read(path: str, error: OSError) -> UserError:
    return UserError(
        f"{shown(path)}: cannot read it: {error.strerror}; make it readable, or move it out of "
        "data.root"
    )
