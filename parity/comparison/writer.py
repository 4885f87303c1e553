"""Writing a trace: each array goes to the file at once, and the manifest last.

    with TraceWriter("a.npz", manifest) as writer:
        writer.add("forward/conv1", array)

So the memory holds one array at a time. The file has a temporary name until it is whole.
"""

import json
import os
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from parity.comparison.sketch import BUCKETS, KIND, Array, sketch
from parity.errors import CannotWrite, ParityError

FORMAT = "parity-trace/3"
MANIFEST = "manifest.json"
NPY: Any = np.lib.format  # some of its functions have no types
KINDS = "fiub"  # floating point, integers, booleans
# Elements above which an array is stored as a sketch: one number, or by the name of the tap
Limit = int | None | Callable[[str], int | None]


class TraceWriter:
    """A trace that is being written; the file appears complete when the `with` block ends.

    An exception in the block leaves no new file, and an old file as it was.

    Attributes:
        manifest: what the file will say; it may be changed until the block ends.
    """

    def __init__(
        self,
        path: Path | str,
        manifest: Mapping[str, Any],
        sketch_above: Limit = None,
        buckets: int = BUCKETS,
        full: Collection[str] = (),
    ) -> None:
        """The arguments are those of `write_trace`."""
        self.path = Path(path)
        self.manifest: dict[str, Any] = dict(manifest)
        self._sketch_above, self._buckets, self._full = sketch_above, buckets, full
        self._index: dict[str, Any] = {}
        self._temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")

    @property
    def names(self) -> Collection[str]:
        """The names of the taps so far."""
        return self._index.keys()

    def __enter__(self) -> "TraceWriter":
        """Open the temporary file.

        Raises:
            ParityError: JSON cannot hold a value of the manifest, or there is no such folder.
            CannotWrite: the operating system cannot write the file.
        """
        _plain(self.manifest, self.path, "manifest")
        with self._told():
            self._file = open(self._temporary, "wb")
        self._archive = zipfile.ZipFile(self._file, "w")
        return self

    def add(self, name: str, value: Array) -> None:
        """Write one array.

        Raises:
            ParityError: the array is not numeric, or a tap of this name was written before.
            CannotWrite: the operating system cannot write the file.
        """
        value = np.asarray(value)
        if value.dtype.kind not in KINDS:
            raise ParityError(f"{self.path}: tap {name} has type {value.dtype}; expected numbers")
        if name in self._index:
            raise ParityError(f"{self.path}: tap {name}: recorded twice; give each tap its name")
        facts: dict[str, Any] = {"shape": value.shape, "dtype": value.dtype.str}
        limit = self._sketch_above(name) if callable(self._sketch_above) else self._sketch_above
        large = limit is not None and value.size > limit
        if large and value.dtype.kind == "f" and name.partition("/")[0] not in self._full:
            summary = sketch(value, self._buckets)
            if summary.not_finite == 0:  # a sketch does not say where infinities are
                numbers = ("norm", "largest", "not_finite", "crc")
                facts["sketch"] = {key: getattr(summary, key) for key in numbers}
                self.manifest["sketches"] = KIND
                value = summary.buckets
        self._store(f"taps/{len(self._index)}", value)
        self._index[name] = facts

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Write the manifest and give the file its name; after an exception, delete it.

        Raises:
            ParityError: JSON cannot hold a value of the manifest.
            CannotWrite: the operating system cannot write the file.
        """
        try:
            if kind is None:
                manifest = {"format": FORMAT, **self.manifest, "taps": self._index}
                text = json.dumps(_plain(manifest, self.path, "manifest")).encode()
                self._store(MANIFEST, np.frombuffer(text, np.uint8))
                with self._told():
                    self._archive.close()
                    self._file.close()
                    self._temporary.replace(self.path)
        finally:
            self._discard()

    def _store(self, name: str, value: Array) -> None:
        with self._told(), self._archive.open(f"{name}.npy", "w", force_zip64=True) as member:
            NPY.write_array(member, value, allow_pickle=False)

    def _discard(self) -> None:
        """Close and delete the temporary file; it no longer exists if the trace was written."""
        with suppress(OSError, ValueError):  # the archive cannot write its directory
            self._archive.close()
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._temporary.unlink(missing_ok=True)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of the operating system, as errors that a user can act on."""
        try:
            yield
        except FileNotFoundError as error:
            message = f"{self.path}: cannot write: no such folder; make it first"
            raise ParityError(message) from error
        except OSError as error:
            raise CannotWrite(f"{self.path}: cannot write: {error}") from error


def write_trace(
    path: Path | str,
    taps: Mapping[str, Array] | Iterable[tuple[str, Array]],
    manifest: Mapping[str, Any],
    sketch_above: Limit = None,
    buckets: int = BUCKETS,
    full: Collection[str] = (),
) -> None:
    """Write a trace; the file appears complete or not at all.

    Args:
        taps: arrays by `stage/tap`, in data order, or an iterator of pairs (name, array), of which
            one array at a time is in memory.
        manifest: `producer` (name, version, device, threads), `precision`, `subject` (what was
            computed: `array_facts` of weights and inputs, configuration), and optionally `variant`.
        sketch_above: floating-point arrays of more elements than this are stored as sketches; or
            a function from the name of a tap to this number, or to None: store it whole.
        full: stages whose arrays are always stored whole.

    Raises:
        ParityError: an array is not numeric, JSON cannot hold a value of the manifest, or the
            folder does not exist.
        CannotWrite: the operating system cannot write the file.
    """
    with TraceWriter(path, manifest, sketch_above, buckets, full) as writer:
        for name, value in taps.items() if isinstance(taps, Mapping) else taps:
            writer.add(name, value)


def _plain(value: Any, path: Path, place: str) -> Any:
    """A value as JSON gives it back, so that settings that are equal also compare as equal."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item, path, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, path, f"{place}.{i}") for i, item in enumerate(value)]
    if value is None or isinstance(value, str | int | float):
        return value
    raise ParityError(
        f"{path}: {place} is of type {type(value).__name__}; expected numbers, text, lists or "
        "tables of these"
    )
