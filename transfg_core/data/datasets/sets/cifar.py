"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 32 x 32 pixels, as pickles for Python.

    cifar-10-batches-py/data_batch_1 ... data_batch_5, test_batch, batches.meta
    cifar-100-python/train, test, meta                    the labels are the 100 fine ones
    cifar-10-python.tar.gz, cifar-100-python.tar.gz       read where the folder is absent

A file holds `data`, uint8 (N, 3072): 1,024 red values by rows, then green, then blue. The images
are unpacked once as PNG, which loses nothing.
"""

import io
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets.listing import find_root
from transfg_core.data.datasets.official import OFFICIAL
from transfg_core.data.datasets.samples import Dataset
from transfg_core.data.datasets.sets.plain_pickle import Refused, as_text, read_plain_pickle
from transfg_core.data.datasets.split import TEST, TRAIN, SplitList
from transfg_core.data.datasets.unpacked import Content, Picture, Source, read_unpacked
from transfg_core.errors import UserError

SIDE = 32


@dataclass(frozen=True)
class _Form:
    """Names in one of the two sets: its folder, files by split, and keys of classes and labels."""

    folder: str
    archive: str
    files: Mapping[str, tuple[str, ...]]
    meta: str
    names: str
    labels: str


FORMS = {
    "cifar10": _Form(
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz",
        {TRAIN: tuple(f"data_batch_{k}" for k in range(1, 6)), TEST: ("test_batch",)},
        "batches.meta",
        "label_names",
        "labels",
    ),
    "cifar100": _Form(
        "cifar-100-python",
        "cifar-100-python.tar.gz",
        {TRAIN: ("train",), TEST: ("test",)},
        "meta",
        "fine_label_names",
        "fine_labels",
    ),
}


def read_cifar(config: DataConfig, seed: int | None, saved: SplitList | None = None) -> Dataset:
    """Read CIFAR from `config.root`, from the set's own folder inside it, or from its archive.

    Raises:
        UserError: see `read_listing`; or a file is absent, damaged, or names what is no data.
        RunFailed: the images cannot be unpacked.
    """
    form = FORMS[config.name]
    outer = form.archive.partition(".")[0]
    nested = list(dict.fromkeys((form.folder, outer, f"{outer}/{form.folder}")))
    root = find_root(Path(config.root), [form.meta, form.archive], nested)
    if (root / form.meta).exists():
        names = (*form.files[TRAIN], *form.files[TEST], form.meta)
        files = {name: root / name for name in names}
        absent = [name for name, path in files.items() if not path.is_file()]
        if absent:
            raise UserError(
                f"{root}: expected {', '.join(names)}, found no {', '.join(absent)}; is the copy "
                "complete?"
            )
    else:
        files = {form.archive: root / form.archive}

    def read() -> Content:
        classes = _classes(form, *_load(form, root, form.meta))
        official = OFFICIAL[config.name]
        pictures = _pictures(form, root, len(classes))
        return Content(official.train + official.test, classes, pictures)

    return read_unpacked(config, seed, saved, root, Source(files, config.name, read))


def _pictures(form: _Form, root: Path, classes: int) -> Iterator[Picture]:
    for part, names in form.files.items():
        for name in names:
            yield from _pictures_of(part, classes, form.labels, *_load(form, root, name))


def _pictures_of(
    part: str, classes: int, key: str, where: str, content: dict[str, Any]
) -> Iterator[Picture]:
    """The images of one file; its labels are under `key`."""
    data, labels = content.get("data"), content.get(key)
    sound = isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.ndim == 2
    if not sound or data.shape[1] != 3 * SIDE * SIDE:  # type: ignore[union-attr]
        raise UserError(
            f"{where}: expected `data`, uint8 of N x {3 * SIDE * SIDE}, found "
            f"{getattr(data, 'dtype', type(data).__name__)} {getattr(data, 'shape', '')}; copy it "
            "again"
        )
    assert isinstance(data, np.ndarray)
    if not isinstance(labels, list) or len(labels) != len(data):
        found = f"{len(labels)} labels" if isinstance(labels, list) else "no list"
        raise UserError(
            f"{where}: expected `{key}`, a label for each of {len(data)} images, found {found}; "
            "is it the file of another set?"
        )
    for place, (row, label) in enumerate(zip(data, labels, strict=True)):
        if type(label) is not int or not 0 <= label < classes:
            raise UserError(
                f"{where}, {key}[{place}]: expected an integer from 0 to {classes - 1}, found "
                f"{label!r:.50}; copy the file again"
            )
        png = io.BytesIO()
        Image.fromarray(row.reshape(3, SIDE, SIDE).transpose(1, 2, 0)).save(png, "PNG")
        yield Picture(part, label, ".png", png.getvalue(), row.tobytes())


def _classes(form: _Form, where: str, content: dict[str, Any]) -> list[str]:
    names = content.get(form.names)
    try:
        classes = [as_text(name) for name in names] if isinstance(names, list) else []
    except Refused:
        classes = []
    if not classes or not all(name.strip() for name in classes):
        raise UserError(
            f"{where}: expected the names of the classes in `{form.names}`, found "
            f"{type(names).__name__}; is it the file of another set?"
        )
    return classes


def _load(form: _Form, root: Path, name: str) -> tuple[str, dict[str, Any]]:
    """Where a file is, for messages, and its dictionary."""
    path, archive = root / name, root / form.archive
    inside = not (root / form.meta).exists()
    where = f"{archive}, {form.folder}/{name}" if inside else str(path)
    try:
        if inside:
            with tarfile.open(archive) as tar:
                return where, read_plain_pickle(_member(tar, f"{form.folder}/{name}"))
        with open(path, "rb") as file:
            return where, read_plain_pickle(file)
    except (OSError, EOFError, tarfile.TarError, zlib.error, LookupError) as error:
        raise UserError(
            f"{where}: cannot read it ({type(error).__name__}: {error}); is the copy complete?"
        ) from error
    except Refused as error:
        raise UserError(
            f"{where}: expected a pickle of numbers and texts, found {error}; nothing of it was "
            "run; take the file from https://www.cs.toronto.edu/~kriz/cifar.html"
        ) from error


def _member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    """A file of an archive; the search ends at the file.

    Raises:
        LookupError: there is none.
    """
    for member in tar:
        if member.name.removeprefix("./") == name and member.isfile():
            file = tar.extractfile(member)
            assert file is not None
            return file
    raise LookupError(f"no file {name} in the archive")
