"""Images inside other files (CIFAR's pickles, Parquet), unpacked once into files of their own.

    unpacked-<key>/
        images/train/0000/0000000.png, images/test/...   1,000 images in a folder
        train.csv, test.csv, classes.txt                 as `data.name: list` reads them

The key is a hash of what decides the images: the source's names, sizes and the bytes at both ends
of each file. The folder lies at `data.unpacked`, by default beside the source. It appears when it
is complete; a second process waits. All that reads files then works as with any other data set:
worker processes, caches, pictures, the search for equal files.
"""

import csv
import hashlib
import io
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets.samples import Dataset
from transfg_core.data.datasets.sets.text_lists import read_text_lists
from transfg_core.data.datasets.split import PARTS, TEST, TRAIN, SplitList
from transfg_core.data.whole_folder import one_writer, write_whole
from transfg_core.errors import UserError

FORMAT = 1  # increase it when any name or file in the folder changes
ENDS = 65_536  # bytes at both ends of each source file that go into the key
PER_FOLDER = 1000
NOTE = (
    "transfg unpacked these images from {}.\nDelete this folder, and the next run unpacks them "
    "again. `data.name: list` reads it, too.\n"
)


class Picture(NamedTuple):
    """An image of the source, in the order of the source: its split, label, and encoded bytes."""

    part: str  # TRAIN or TEST
    label: int
    suffix: str  # such as .png
    content: bytes


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

    def key(self) -> str:
        """A name for the content; the same for a copy elsewhere.

        Raises:
            UserError: a file cannot be read.
        """
        found = hashlib.sha256(f"{FORMAT}\0{self.settings}\0".encode())
        for name, path in sorted(self.files.items()):
            try:
                with open(path, "rb") as file:
                    size = os.fstat(file.fileno()).st_size
                    found.update(f"{name}\0{size}\0".encode() + file.read(ENDS))
                    file.seek(max(0, size - ENDS))
                    found.update(file.read(ENDS))
            except OSError as error:
                raise UserError(f"{path}: cannot read it: {error}; copy it again") from error
        return found.hexdigest()[:12]


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
        settings = {key: getattr(config, key) for key in ("name", "label", "unpacked")}
        place = [config.root, *(f"data.{key}={value}" for key, value in settings.items() if value)]
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
    return read_text_lists(config.model_copy(update={"root": str(target)}), seed, saved)


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
        counts = dict.fromkeys(PARTS, 0)
        tenth = -(-content.images // 10) or 1
        for done, picture in enumerate(content.pictures, 1):
            number = counts[picture.part]
            counts[picture.part] += 1
            name = f"{picture.part}/{number // PER_FOLDER:04d}/{number:07d}{picture.suffix}"
            path = partial / "images" / name
            if number % PER_FOLDER == 0:
                path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture.content)
            csv.writer(lists[picture.part], lineterminator="\n").writerow((name, picture.label))
            if done % tenth == 0:
                _say(f"{self.target}: {done} of {content.images} images")
        for part in (TRAIN, TEST):
            if counts[part]:
                _write(partial / f"{part}.csv", lists[part].getvalue())
        names = enumerate(" ".join(name.split()) for name in content.classes)
        _write(partial / "classes.txt", "".join(f"{label} {name}\n" for label, name in names))
        _write(partial / "README.txt", NOTE.format(", ".join(self.source.files)))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _say(text: str) -> None:
    print(text, file=sys.stderr)
