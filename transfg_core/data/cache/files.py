"""The files of a cache of images, and how a reader takes pixels from them.

    KEY-NUMBER.pixels    (H, W, 3) uint8 images, one after another
    KEY.index            which image lies where; safetensors with a checksum
    KEY.lock             locked by the process that appends

KEY stands for the settings that decide the pixels, and the versions of Pillow and its decoders. So
train and test, folds and runs with the same settings share one cache. Pixels are only appended, and
the index is replaced as a whole after they are on the disk. A reader looks at nothing but what its
index names: a killed builder leaves bytes that no index names, and the next builder overwrites
them.

An entry belongs to a path and a region. It is valid while the file has the size, the time of
modification and the time of change that it had when it was read. Every read compares them, so a
file that changes, also during a run, is read itself.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from transfg_core.checkpoints import file as safetensors_file
from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets.samples import Samples
from transfg_core.data.mapped_image import MappedImage
from transfg_core.errors import UserError

FORMAT = 1
# The keys of DataConfig that decide the pixels of a resized image.
DECIDING = ("exif", "interpolation", "max_megapixels", "resize")
DECODERS = ("jpg", "libjpeg_turbo", "jpg_2000", "libtiff", "webp", "avif", "zlib")

Pixels = NDArray[np.uint8]


def stored_config(data: DataConfig, training: bool) -> DataConfig:
    """The settings whose pixels are stored: without a resize where training cuts before it."""
    cuts_first = training and data.random_resized_crop is not None
    return data.model_copy(update={"resize": None}) if cuts_first else data


def key_of(data: DataConfig) -> str:
    """A name for the settings and program versions that decide the stored pixels."""
    tree = data.model_dump(mode="json", include=set(DECIDING))
    versions = [features.version(name) for name in DECODERS]
    text = json.dumps([FORMAT, tree, getattr(Image, "__version__", ""), versions], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def state_of(path: str) -> tuple[int, int, int]:
    """Size, time of modification and time of change of a file, in bytes and nanoseconds.

    The time of change catches a file that another one of the same size and date has replaced.

    Raises:
        OSError: the file cannot be reached.
    """
    facts = os.stat(path)
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def names_of(samples: Samples, rows: Iterable[int]) -> NDArray[np.uint64]:
    """A hash of the absolute path and the region of each row: (n,)."""
    hashes = [
        hashlib.blake2b(
            f"{os.path.abspath(samples.paths[row])}\0{samples.region(row)}".encode(
                errors="surrogateescape"
            ),
            digest_size=8,
        ).digest()
        for row in rows
    ]
    return np.frombuffer(b"".join(hashes), np.uint64)


@dataclass(frozen=True, eq=False)
class Index:
    """What the cache holds, M entries; `number` is that of the pixel file.

    Attributes:
        names: (M,) uint64, see `names_of`. Of equal names the last entry counts.
        states: (M, 3) int64, see `state_of`.
        offsets: (M,) int64, the place of the first byte in the pixel file.
        sizes: (M, 2) int32, height and width; (0, 0) for a file that is not a readable image.
    """

    number: int
    names: NDArray[np.uint64]
    states: NDArray[np.int64]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int32]

    @property
    def end(self) -> int:
        """The number of bytes of the pixel file that belong to entries."""
        ends = self.offsets + 3 * self.sizes.prod(axis=1, dtype=np.int64)
        return int(ends.max(initial=0))

    def find(self, names: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The entry of each name, or -1: (n,)."""
        if not len(self.names):
            return np.full(len(names), -1, np.int64)
        order = np.argsort(self.names, kind="stable")
        place = np.searchsorted(self.names[order], names, side="right") - 1
        entry = order[np.maximum(place, 0)]
        found: NDArray[np.int64] = np.where(self.names[entry] == names, entry, -1)
        return found

    def extended(self, more: "Index") -> "Index":
        """This index and further entries."""
        columns = [f.name for f in fields(self) if f.name != "number"]
        joined = {c: np.concatenate([getattr(self, c), getattr(more, c)]) for c in columns}
        return Index(self.number, **joined)

    @classmethod
    def of(
        cls, number: int, rows: Sequence[tuple[int, tuple[int, ...], int, tuple[int, ...]]] = ()
    ) -> "Index":
        """An index of rows (name, state, offset, (height, width))."""
        names, states, offsets, sizes = zip(*rows, strict=True) if rows else ((), (), (), ())
        return cls(
            number,
            np.array(names, np.uint64),
            np.array(states, np.int64).reshape(-1, 3),
            np.array(offsets, np.int64),
            np.array(sizes, np.int32).reshape(-1, 2),
        )


@dataclass(frozen=True)
class CacheFiles:
    """The paths of one key in a folder."""

    folder: Path
    key: str

    @classmethod
    def of(cls, data: DataConfig) -> "CacheFiles":
        """The files of `data.cache` for settings as `stored_config` gives them."""
        assert data.cache is not None
        return cls(Path(data.cache), key_of(data))

    @property
    def index(self) -> Path:
        """The path of the index."""
        return self.folder / f"{self.key}.index"

    @property
    def lock(self) -> Path:
        """The path of the lock."""
        return self.folder / f"{self.key}.lock"

    def pixels(self, number: int) -> Path:
        """The path of a pixel file."""
        return self.folder / f"{self.key}-{number}.pixels"

    def load(self) -> Index | None:
        """The index; None if there is none, or if it or the pixel file is damaged."""
        try:
            arrays, metadata = safetensors_file.load(self.index)
            index = Index(number=metadata["number"], **arrays)
            whole = self.pixels(index.number).stat().st_size >= index.end
        except (UserError, OSError, TypeError, KeyError):
            return None
        return index if whole else None

    def save(self, index: Index) -> None:
        """Replace the index.

        Raises:
            RunFailed: the disk is full, or the folder is not writable; the older index is intact.
        """
        columns = {f.name: getattr(index, f.name) for f in fields(index) if f.name != "number"}
        safetensors_file.save(self.index, columns, {"number": index.number})


@dataclass(frozen=True, eq=False)
class CachedImages:
    """The entries of N samples: pickled to worker processes; each maps the pixel file by itself."""

    path: str
    end: int
    states: NDArray[np.int64]  # (N, 3)
    offsets: NDArray[np.int64]  # (N,), -1 where nothing is cached
    sizes: NDArray[np.int32]  # (N, 2)

    def image(self, index: int, path: str) -> MappedImage | None:
        """The image of a sample; None if it is not cached, or if its file has changed since."""
        offset = int(self.offsets[index])
        if offset < 0:
            return None
        try:
            if state_of(path) != tuple(self.states[index].tolist()):
                return None
            pixels = _mapped(self.path, self.end)
        except OSError:  # the image or the cache is gone: the reader of the file says what is wrong
            return None
        height, width = self.sizes[index].tolist()
        part = pixels[offset : offset + 3 * height * width]
        return MappedImage(part.reshape(height, width, 3))


@lru_cache(maxsize=8)
def _mapped(path: str, end: int) -> Pixels:
    """The first `end` bytes of a file, as memory that is read when it is used."""
    # not as np.memmap, whose slices are slow to make
    return np.asarray(np.memmap(path, np.uint8, "r", shape=(end,)))


def open_cache(samples: Samples, data: DataConfig, training: bool) -> CachedImages | None:
    """What the cache holds of these samples; None without `data.cache` or before it is filled."""
    if data.cache is None:
        return None
    files = CacheFiles.of(stored_config(data, training))
    index = files.load()
    if index is None or index.end == 0:
        return None
    entry = index.find(names_of(samples, range(len(samples.paths))))
    sizes = index.sizes[entry]
    held = (entry >= 0) & (sizes[:, 0] > 0)
    return CachedImages(
        str(files.pixels(index.number)),
        index.end,
        index.states[entry],
        np.where(held, index.offsets[entry], -1),
        sizes,
    )
