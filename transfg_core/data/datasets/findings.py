"""What a person should know of a data set's files before training, though none is an error."""

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from transfg_core.config.sections import DataConfig
from transfg_core.data.bad_image import BadImage, open_regular
from transfg_core.data.decoding import has_more_frames, image_orientation
from transfg_core.data.walk import ImageFile, printable

JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")
# formats whose EXIF orientation viewers apply
TURNED_SUFFIXES = (*JPEG_SUFFIXES, ".webp", ".tif", ".tiff")
FRAME_SUFFIXES = (".gif", ".apng", ".png", ".webp", ".tif", ".tiff")
MOST_HEADERS = 1000  # files of each kind whose headers are read
MOST_COMPARED = 100_000  # images; in larger data sets, files are not compared
ENDS = 4096  # bytes at both ends of a file that are compared first


@dataclass(frozen=True)
class Finding:
    """How many files are so, and one of them as a shown name."""

    kind: ClassVar[str]
    count: int
    example: str

    def record(self) -> dict[str, Any]:
        """The finding for env.json."""
        return asdict(self)


@dataclass(frozen=True)
class _Sampled(Finding):
    """`count` were found among the `sample` of all `images` whose headers were read."""

    sample: int
    images: int

    def of(self, what: str) -> str:
        """`3 of 3 images, a sample of 7,`."""
        of_all = f", a sample of {self.images}," if self.sample < self.images else ""
        return f"{self.count} of {self.sample} {what}{of_all}"


class Turned(_Sampled):
    """Photographs that are used as they are stored, though their EXIF orientation turns them."""

    kind = "turned"

    def __str__(self) -> str:
        return (
            f"not turned: {self.of('photographs')} have an EXIF orientation (such as "
            f"{printable(self.example)}); data.exif=apply applies it"
        )


class Frames(_Sampled):
    """Animations and documents of several pages, of which one picture is used."""

    kind = "frames"

    def __str__(self) -> str:
        return (
            f"only the first picture is used: {self.of('images')} have several frames or pages "
            f"(such as {printable(self.example)})"
        )


@dataclass(frozen=True)
class EqualFiles(Finding):
    """Test images whose file is also a training image; `original` is that of the example."""

    kind = "equal"
    original: str

    def __str__(self) -> str:
        return (
            f"equal files: test images that are also training images: {self.count} (such as "
            f"{printable(self.example)} and {printable(self.original)}). They make the accuracy "
            "too high; remove them from one side"
        )


class EqualValidation(EqualFiles):
    """Validation images whose file is also a training image."""

    kind = "equal validation"

    def __str__(self) -> str:
        return (
            f"equal files: validation images that are also training images: {self.count} (such as "
            f"{printable(self.example)} and {printable(self.original)}). They choose a step that "
            "fits the training images; remove them from one side"
        )


class Trained(Finding):
    """Evaluated images that the run's split.csv names as training images."""

    kind = "trained"

    def __str__(self) -> str:
        return (
            f"the run trained with {self.count} of the evaluated images (such as "
            f"{printable(self.example)}); the accuracy is too high"
        )


class New(Finding):
    """Images of a flat folder that count as new, since the run's split.csv names none of them."""

    kind = "new"

    def __str__(self) -> str:
        return (
            f"all {self.count} images count as new to the model: the run's split.csv has none of "
            f"their names (such as {printable(self.example)})"
        )


def header_findings(config: DataConfig, images: Sequence[ImageFile]) -> tuple[Finding, ...]:
    """Photographs that a viewer shows turned and this program does not, and further frames.

    Reads the headers of at most MOST_HEADERS files of each kind, evenly spread.
    """
    found: list[Finding] = []
    checks: list[tuple[type[_Sampled], tuple[str, ...], Callable[[str], bool]]] = [
        (Frames, FRAME_SUFFIXES, has_more_frames)
    ]
    if config.exif == "ignore":
        checks.insert(0, (Turned, TURNED_SUFFIXES, _is_turned))
    for kind, suffixes, holds in checks:
        own = [image for image in images if image.name.lower().endswith(suffixes)]
        sample = own[:: -(-len(own) // MOST_HEADERS) or 1]
        names = []
        for image in sample:
            with suppress(BadImage):
                if holds(image.path):
                    names.append(image.name)
        if names:
            found.append(kind(len(names), names[0], len(sample), len(own)))
    return tuple(found)


def _is_turned(path: str) -> bool:
    return image_orientation(path) != 1


def equal_files(
    train: Sequence[str],
    test: Sequence[str],
    names: tuple[Sequence[str], Sequence[str]],
    kind: type[EqualFiles] = EqualFiles,
) -> tuple[EqualFiles, ...]:
    """Test images with the bytes of a training image; none in very large data sets.

    Args:
        train, test: paths of the files.
        names: shown names of both.
    """
    if len(train) + len(test) > MOST_COMPARED:
        return ()
    sides = [list(range(len(train))), list(range(len(test)))]
    for key in (_size, _ends, _content):  # from cheap to costly; each leaves fewer files
        keys = [
            {row: key(paths[row]) for row in rows}
            for paths, rows in zip((train, test), sides, strict=True)
        ]
        common = set(keys[0].values()) & set(keys[1].values()) - {None}
        sides = [[row for row, value in side.items() if value in common] for side in keys]
    originals = {keys[0][row]: row for row in reversed(sides[0])}
    pairs = [(names[1][row], names[0][originals[keys[1][row]]]) for row in sides[1]]
    return (kind(len(pairs), *pairs[0]),) if pairs else ()


def _size(path: str) -> int | None:
    """The size in bytes; None if there is no such regular file, which is an error later."""
    with suppress(OSError, ValueError):  # ValueError: a zero byte in the name
        status = os.stat(path)
        return status.st_size if stat.S_ISREG(status.st_mode) else None
    return None


def _ends(path: str) -> bytes | None:
    """A hash of the size and of the bytes at both ends of a file."""
    with suppress(OSError), open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        ends = file.read(ENDS)
        file.seek(max(0, size - ENDS))
        return hashlib.sha256(b"%d " % size + ends + file.read(ENDS)).digest()
    return None


def _content(path: str) -> bytes | None:
    """A hash of a file."""
    with suppress(OSError), open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").digest()
    return None
