"""Parquet files with images inside, as the Hugging Face Hub stores data sets.

    train-00000-of-00002.parquet, train-00001-of-00002.parquet, test-00000-of-00001.parquet
    data/train-*.parquet, train/0000.parquet, ...        in folders, too

A file's name, or its folder's, says the split: train, test, or validation where there is no test.
An image column holds structs of `bytes` and `path`, or the bytes. The column of labels is the class
label in the metadata of the Hub, which has the names of the classes; otherwise a column `label` or
the like, of numbers or names. `data.label` chooses among several. The encoded bytes are unpacked
once into files, as they are.
"""

import importlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets.samples import Dataset
from transfg_core.data.datasets.sets.aircraft import BANNER
from transfg_core.data.datasets.sets.shards import parquet_files_below, shards_by_split
from transfg_core.data.datasets.split import SplitList
from transfg_core.data.datasets.unpacked import Content, Picture, Source, read_unpacked
from transfg_core.data.walk import Tally, relative_to, shown
from transfg_core.errors import UserError
from transfg_core.machine import install_command

IMAGE_NAMES = ("image", "img", "picture", "photo", "jpg")
LABEL_NAMES = ("label", "labels", "fine_label", "class", "class_id", "target", "category")
SUFFIXES = {  # of encoded images, by their first bytes
    b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"BM": ".bmp",
    b"II*\0": ".tif", b"MM\0*": ".tif", b"RIFF": ".webp",
}  # fmt: skip
# what pyarrow's own errors derive from
UNREADABLE = (OSError, ValueError, TypeError, KeyError, IndexError, NotImplementedError)
ROWS = 32  # read at a time
UNUSED = "Parquet files of a split that is not used"


def read_parquet(config: DataConfig, seed: int | None, saved: SplitList | None = None) -> Dataset:
    """Read the Parquet files below `config.root`.

    Raises:
        UserError: see `read_listing`; or pyarrow or a shard is absent, or a column is not found.
        RunFailed: the images cannot be unpacked.
    """
    root = Path(config.root)
    found = parquet_files_below(root)
    if not found:
        what = "no Parquet files" if root.is_dir() else f"no such folder{relative_to(root)}"
        raise UserError(
            f"{shown(str(root))}: expected train-*.parquet and test-*.parquet, found {what}; is "
            "data.root right?"
        )
    return read_shards(config, seed, saved, found)


def read_shards(
    config: DataConfig, seed: int | None, saved: SplitList | None, found: Sequence[Path]
) -> Dataset:
    """Read these Parquet files; see `read_parquet`."""
    root = Path(config.root)
    shards, unused = shards_by_split(config.name, root, found)
    files = {
        f"{part} {place:05d} {path.relative_to(root).as_posix()}": path
        for part, paths in shards.items()
        for place, path in enumerate(paths)
    }
    level = config.level if config.name == "aircraft" else ""
    banner = BANNER if config.name == "aircraft" else 0
    settings = "\0".join(("parquet", config.label or "", level))
    source = Source(files, settings, lambda: _content(config, shards), banner)
    dataset = read_unpacked(config, seed, saved, root, source)
    tally = Tally()
    for path in unused:
        tally.add(UNUSED, path.relative_to(root).as_posix())
    return replace(dataset, left_out=(*dataset.left_out, *tally.entries()))


@dataclass(frozen=True)
class _Columns:
    """The columns of images and labels; `names` are the classes in the metadata, if any."""

    image: str
    label: str
    names: tuple[str, ...]


def _pyarrow() -> Any:
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise UserError(
            f"Parquet files need the package pyarrow ({error}); {install_command('parquet')}"
        ) from error


def _open(path: Path) -> Any:
    parquet = _pyarrow()
    with _reading(path):
        return parquet.ParquetFile(path)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Refuse a file that pyarrow cannot read."""
    try:
        yield
    except UNREADABLE as error:
        raise UserError(
            f"{path}: expected a Parquet file, but reading it failed "
            f"({' '.join(str(error).split())[:200]}); copy it again"
        ) from error


def _content(config: DataConfig, shards: Mapping[str, Sequence[Path]]) -> Content:
    """All images; labels that are texts become numbers in the order of the sorted names."""
    files = [(part, path) for part, paths in shards.items() for path in paths]
    opened = {path: _open(path) for _, path in files}
    schema = opened[files[0][1]].schema_arrow
    columns = _columns(_wanted(config, schema.names), files[0][1], schema)
    for path, file in opened.items():
        for name in (columns.image, columns.label):
            if name not in file.schema_arrow.names:
                raise UserError(
                    f"{path}: expected the columns of {files[0][1].name}, found no {name!r}; do "
                    "the files belong together?"
                )
    images = sum(file.metadata.num_rows for file in opened.values())
    numbers, classes = _classes(columns, opened)

    def pictures() -> Iterator[Picture]:
        for part, path in files:
            yield from _pictures(part, path, opened[path], columns, numbers)

    return Content(images, classes, pictures())


def _wanted(config: DataConfig, names: Sequence[str]) -> str | None:
    """The column of labels that the settings name: of FGVC-Aircraft, by default `data.level`.

    The level `variant` may have another name in the file, as it is the usual one.
    """
    if config.label is not None or config.name != "aircraft":
        return config.label
    return config.level if config.level in names or config.level != "variant" else None


def _columns(wanted: str | None, path: Path, schema: Any) -> _Columns:
    """The columns by the metadata of the Hub, by type and by name."""
    features = _features(schema)
    images = [field.name for field in schema if _holds_images(field.type)]
    image = next((name for name in IMAGE_NAMES if name in images), images[0] if images else None)
    if image is None:
        raise UserError(
            f"{path}: expected a column of images, structs of bytes and path, found "
            f"{', '.join(schema.names)}; is it a data set of images?"
        )
    marked = [name for name, feature in features.items() if feature.get("_type") == "ClassLabel"]
    likely = [name for name in LABEL_NAMES if name in schema.names]
    if wanted is not None:
        label = wanted if wanted in schema.names else None
    elif len(marked) == 1:
        label = marked[0]
    else:
        label = next((name for name in likely if not marked or name in marked), None)
    if label is None:
        expected = f"the column data.label: {wanted}" if wanted else "a column of class labels"
        raise UserError(
            f"{path}: expected {expected}, found {', '.join(schema.names)}; set data.label to the "
            "column of the labels"
        )
    names = features.get(label, {}).get("names") or ()
    return _Columns(image, label, tuple(map(str, names)) if isinstance(names, list) else ())


def _features(schema: Any) -> dict[str, dict[str, Any]]:
    """The Hub's description of the columns; empty if there is none, or a damaged one."""
    try:
        tree = json.loads((schema.metadata or {})[b"huggingface"])
        features = tree["info"]["features"]
        return {key: value for key, value in features.items() if isinstance(value, dict)}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _holds_images(kind: Any) -> bool:
    """Whether a type is a struct with `bytes`, or bytes."""
    text = str(kind)
    return text in ("binary", "large_binary") or (
        text.startswith("struct<") and re.search(r"\bbytes: (large_)?binary", text) is not None
    )


def _classes(
    columns: _Columns, opened: Mapping[Path, Any]
) -> tuple[dict[object, int], tuple[str, ...]]:
    """Label in the files -> number, and the name of each number."""
    given: set[object] = set()
    for path, file in opened.items():
        for number in range(file.num_row_groups):
            with _reading(path):
                values = file.read_row_group(number, columns=[columns.label]).column(0).to_pylist()
            for row, value in enumerate(values):
                if type(value) not in (int, str) or value == -1 or value == "":
                    hint = "; a split without labels cannot be used: remove its files"
                    raise UserError(
                        f"{path}, {columns.label}: expected a number or a name, found {value!r} in "
                        f"row {row} of group {number}" + hint
                    )
                given.add(value)
    if len({type(value) for value in given}) > 1:
        raise UserError(
            f"{next(iter(opened))}: expected {columns.label} as numbers or as names, found both; "
            "do the files belong together?"
        )
    if columns.names and all(isinstance(value, int) for value in given):
        outside = sorted(v for v in given if not 0 <= v < len(columns.names))  # type: ignore
        if outside:
            raise UserError(
                f"{next(iter(opened))}: expected labels from 0 to {len(columns.names) - 1}, as "
                f"its metadata names {len(columns.names)} classes, found {outside[0]}; do the "
                "files belong together?"
            )
        return {number: number for number in range(len(columns.names))}, columns.names
    order = sorted(given)  # type: ignore[type-var]
    return {v: k for k, v in enumerate(order)}, tuple(map(str, order))


def _pictures(
    part: str, path: Path, file: Any, columns: _Columns, numbers: Mapping[object, int]
) -> Iterator[Picture]:
    row = 0
    with _reading(path):
        batches = file.iter_batches(ROWS, columns=[columns.image, columns.label])
    while True:
        with _reading(path):
            batch = next(batches, None)
            table = batch.to_pydict() if batch is not None else None
        if table is None:
            return
        for image, label in zip(table[columns.image], table[columns.label], strict=True):
            content = image.get("bytes") if isinstance(image, dict) else image
            if not isinstance(content, bytes):
                raise UserError(
                    f"{path}, {columns.image}: expected the bytes of an image in row {row}, found "
                    "none, perhaps a path alone; take a copy that holds the images"
                )
            suffix = next((s for head, s in SUFFIXES.items() if content.startswith(head)), ".jpg")
            yield Picture(part, numbers[label], suffix, content, content)
            row += 1
