"""Which photographs belong together, so that near-identical shots do not lie on both sides.

`data.group` is a regular expression with a group: images with equal text in it belong together.
Without it, three signs tell:

    files with equal content
    one camera, with less than BURST_SECONDS from shot to shot (EXIF)
    neighbours by name in one folder that look alike, if EXIF has no time: frames of a film
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from transfg_core.data.bad_image import UNREADABLE, open_regular
from transfg_core.data.walk import ImageFile
from transfg_core.errors import UserError

BURST_SECONDS = 10
ALIKE = 0.95  # correlation of two thumbnails; test_groups.py measures it on real photographs
THUMBNAIL = (16, 16)
EXIF_IFD = 0x8769
MAKE, MODEL, SERIAL, TIME_TAKEN = 0x010F, 0x0110, 0xA431, 0x9003

Pixels = NDArray[np.float64]


def pattern_groups(ids: Sequence[str], pattern: str) -> list[str]:
    """The text that the groups of a regular expression found in each id.

    Raises:
        UserError: an id does not match.
    """
    compiled, found = re.compile(pattern), []
    for name in ids:
        match = compiled.search(name)
        texts = [text for text in match.groups() if text] if match else []
        if not texts:
            raise UserError(
                f"data.group: expected {pattern!r} to match every image, found no match in {name}; "
                f"change the pattern, or set data.group='{pattern}|(.+)' to leave such images alone"
            )
        found.append(" ".join(texts))
    return found


def burst_groups(images: Sequence[ImageFile]) -> list[str]:
    """The name of the first image that each image belongs together with; see above."""
    joined = _Joined(len(images))
    _join_equal_files(images, joined)
    shots: dict[tuple[str, ...], list[tuple[datetime, int]]] = defaultdict(list)
    undated: list[int] = []
    for i, image in enumerate(images):
        camera, time = _shot(image.path)
        if time is None:
            undated.append(i)
        else:
            shots[camera].append((time, i))
    for series in shots.values():
        for (before, i), (after, j) in pairwise(sorted(series)):
            if (after - before).total_seconds() < BURST_SECONDS:
                joined.join(i, j)
    _join_alike(images, undated, joined)
    return [images[joined.root(i)].name for i in range(len(images))]


class _Joined:
    """Sets of numbers that grow together; the smallest number names a set."""

    def __init__(self, count: int) -> None:
        self._above = list(range(count))

    def root(self, i: int) -> int:
        while self._above[i] != i:
            self._above[i] = self._above[self._above[i]]
            i = self._above[i]
        return i

    def join(self, i: int, j: int) -> None:
        low, high = sorted((self.root(i), self.root(j)))
        self._above[high] = low


def _join_equal_files(images: Sequence[ImageFile], joined: _Joined) -> None:
    def content(i: int) -> object:
        with open_regular(images[i].path) as file:
            return hashlib.file_digest(file, "sha256").digest()

    by_size = _sets(range(len(images)), lambda i: images[i].size)
    for same_size in by_size:
        for equal in _sets(same_size, content):
            for i, j in pairwise(equal):
                joined.join(i, j)


def _sets(numbers: Sequence[int], key: Callable[[int], object]) -> list[list[int]]:
    """Numbers with equal keys, for keys that occur twice or more."""
    found: dict[object, list[int]] = defaultdict(list)
    for i in numbers:
        found[key(i)].append(i)
    return [group for group in found.values() if len(group) > 1]


def _shot(path: str) -> tuple[tuple[str, ...], datetime | None]:
    """Camera and time of a photograph; no time if its EXIF data have none or are damaged."""
    try:
        with open_regular(path) as file, Image.open(file) as image:
            exif = image.getexif()
            details = exif.get_ifd(EXIF_IFD)
            camera = (exif.get(MAKE), exif.get(MODEL), details.get(SERIAL))
            time = datetime.strptime(str(details[TIME_TAKEN])[:19], "%Y:%m:%d %H:%M:%S")
    except (*UNREADABLE, KeyError, TypeError, AttributeError):
        return (), None
    return tuple(map(str, camera)), time


def _join_alike(images: Sequence[ImageFile], numbers: Sequence[int], joined: _Joined) -> None:
    ordered = sorted(numbers, key=lambda i: _natural(images[i].name))
    last: tuple[list[str], int, Pixels | None] | None = None
    for i in ordered:
        current = images[i].folders, i, _thumbnail(images[i].path)
        if last and last[0] == current[0] and _alike(last[2], current[2]):
            joined.join(last[1], i)
        last = current


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts 2 before 10."""
    parts = re.split(r"(\d+)", name, flags=re.ASCII)
    return [(1, int(part), part) if k % 2 else (0, 0, part) for k, part in enumerate(parts)]


def _thumbnail(path: str) -> Pixels | None:
    """The thumbnail of a file; None if the file cannot be read."""
    try:
        with open_regular(path) as file, Image.open(file) as image:
            image.draft("L", (4 * THUMBNAIL[0], 4 * THUMBNAIL[1]))  # JPEG: decodes fewer pixels
            return _normalised(image)
    except (*UNREADABLE, MemoryError):
        return None


def _normalised(image: Image.Image) -> Pixels | None:
    """Small grey pixels of mean 0 and length 1; None for a plain image."""
    grey = image.convert("L").resize(THUMBNAIL, Image.Resampling.BOX)
    pixels = np.asarray(grey, dtype=np.float64).ravel()
    pixels -= pixels.mean()
    length = float(np.linalg.norm(pixels))
    return pixels / length if length else None


def _alike(left: Pixels | None, right: Pixels | None) -> bool:
    return left is not None and right is not None and float(left @ right) > ALIKE
