"""Images inside other files (CIFAR's pickles, Parquet), unpacked once into files of their own.

    unpacked-<key>/
        images/1f/1f0c7a9d42b8e603.png                   the name is a hash of the stored image
        train.csv, test.csv, classes.txt                 as `data.name: list` reads them

The key is a hash of what decides images and labels: the settings, and the source's names and all of
its bytes. The ids of the images, which predictions and split.csv hold, depend on the images alone:
they are the same on every machine, and another source has others. The folder lies at
`data.unpacked`, by default beside the source. It appears when it is complete; a second process
waits. All that reads files then works as with any other data set: worker processes, caches,
pictures, the search for equal files.
"""

import csv
import hashlib
import io
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets.listed import read_listing
from transfg_core.data.datasets.samples import Dataset
from transfg_core.data.datasets.sets.text_lists import text_listing
from transfg_core.data.datasets.split import PARTS, TEST, TRAIN, SplitList
from transfg_core.data.whole_folder import one_writer, write_whole
from transfg_core.errors import UserError

FORMAT = 2  # increase it when any name or file in the folder changes
DECIDING = {"name", "level", "label", "split", "unpacked"}  # keys that a check needs, too
DIGITS = 16  # of the hash that names an image
NOTE = (
    "transfg unpacked these images from {}.\nDelete this folder, and the next run unpacks them "
    "again. `data.name: list` reads it, too.\n"
)


class Picture(NamedTuple):
    """An image, in the order of the source: split, label, and bytes as a file and as stored."""

    part: str  # TRAIN or TEST
    label: int
    suffix: str  # such as .png
    content: bytes
    stored: bytes  # what the source holds; it names the image


class Content(NamedTuple):
    """What a source holds: the number of images, the class names by label, and the images."""

    images: int
    classes: Sequence[str]
    pictures: Iterator[Picture]


@dataclass(frozen=True)
class Source:
    """Files that hold images, shown name -> path; `read` is called to unpack them."""

    files: Mapping[str, Path]
    settings: str  # what else decides the images, such as the column of the labels
    read: Callable[[], Content]
    banner: int = 0  # see Listing

    def key(self) -> str:
        """A name for the content; the same for a copy elsewhere. Reads all files, some at a time.

        Raises:
            UserError: a file cannot be read.
        """
        found = hashlib.sha256(f"{FORMAT}\0{self.settings}\0".encode())
        names = sorted(self.files)
        with ThreadPoolExecutor() as pool:
            digests = pool.map(_digest, (self.files[name] for name in names))
            for name, digest in zip(names, digests, strict=True):
                found.update(f"{name}\0".encode() + digest)
        return found.hexdigest()[:12]


def _digest(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise UserError(f"{path}: cannot read it: {error}; copy it again") from error


def read_unpacked(
    config: DataConfig, seed: int | None, saved: SplitList | None, folder: Path, source: Source
) -> Dataset:
    """The data set of a source, whose images are unpacked first if they are not there yet.

    An evaluation has no seed, and its configuration may be somebody else's: it writes nothing.

    Raises:
        UserError: see `read_listing`; or the images are not unpacked yet, and `seed` is None.
        RunFailed: the folder cannot be written.
    """
    parent = Path(config.unpacked) if config.unpacked else folder
    target = parent / f"unpacked-{source.key()}"
    if seed is None and not target.is_dir():
        settings = config.model_dump(include=DECIDING, exclude_defaults=True)
        place = [config.root, *(f"data.{key}={value}" for key, value in settings.items())]
        raise UserError(
            f"{target}: expected the images of {folder} unpacked here, found no such folder; run "
            f"`transfg data check {shlex.join(place)}` first, or set data.unpacked to the folder "
            "that holds them"
        )
    if not target.is_dir():
        remedy = "set data.unpacked to a folder that can be written"
        with one_writer(parent, "the unpacked images", remedy):
            if not target.is_dir():  # another process may have written it meanwhile
                fill = _Filling(source, folder, target)
                write_whole(target, fill, "the unpacked images", remedy)
    inside = config.model_copy(update={"root": str(target)})
    listing = replace(text_listing(inside), banner=source.banner)
    return read_listing(inside, seed, saved, listing)


@dataclass(frozen=True)
class _Filling:
    """Writes all images and lists into a new folder, and says how far it is."""

    source: Source
    folder: Path
    target: Path

    def __call__(self, partial: Path) -> None:
        content = self.source.read()
        _say(f"{self.target}: unpacking {content.images} images of {self.folder}")
        lists = {part: io.StringIO(newline="") for part in PARTS}
        repeats: Counter[str] = Counter()
        tenth = -(-content.images // 10) or 1
        for done, picture in enumerate(content.pictures, 1):
            name = hashlib.sha256(picture.stored).hexdigest()[:DIGITS]
            repeats[name] += 1
            more = f"-{repeats[name]}" if repeats[name] > 1 else ""
            name = f"{name[:2]}/{name}{more}{picture.suffix}"
            path = partial / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture.content)
            csv.writer(lists[picture.part], lineterminator="\n").writerow((name, picture.label))
            if done % tenth == 0:
                _say(f"{self.target}: {done} of {content.images} images")
        for part in (TRAIN, TEST):
            if rows := lists[part].getvalue():
                _write(partial / f"{part}.csv", rows)
        names = enumerate(" ".join(name.split()) for name in content.classes)
        _write(partial / "classes.txt", "".join(f"{label} {name}\n" for label, name in names))
        _write(
            partial / "README.txt",
            NOTE.format(", ".join(path.name for path in self.source.files.values())),
        )


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _say(text: str) -> None:
    print(text, file=sys.stderr)
