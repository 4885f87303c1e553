"""Trace files: what one implementation computed, and everything a comparison must know about it.

    write_trace("a.npz", {"forward/logits": logits}, {"subject": {"weights": digest(weights)}})
    trace = read_trace("a.npz")

A trace is an .npz file: one JSON manifest and one array per tap, in data order, named `rung/tap`.
Large arrays can be stored as *sketches* of a few thousand numbers, from which the relative
difference of two arrays can still be told to about one per cent. Needs NumPy alone; any framework
can write one (docs/parity.md).

A sketch is the CountSketch of Charikar, Chen and Farach-Colton 2002: element i is added with a
pseudo-random sign to one of m buckets, so |sketch(a) - sketch(b)| estimates |a - b| with relative
standard deviation 1 / sqrt(2 m).
"""

import hashlib
import json
import os
import sys
import zipfile
import zlib
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transfg_core.errors import RunFailed, UserError

Array = NDArray[Any]

FORMAT = "parity-trace/1"
MANIFEST = "manifest.json"
BUCKETS = 4096  # power of two, so that sketches of different sizes can be compared
ABSENT = "absent"
KINDS = "fiub"  # floating point, integers, booleans


@dataclass(frozen=True)
class Sketch:
    """What is kept of a large array: (m,) float64 buckets, and numbers that are exact."""

    shape: tuple[int, ...]
    dtype: str
    buckets: Array
    norm: float  # of the finite elements
    largest: float
    not_finite: int
    crc: int  # of the bytes


Tap = Array | Sketch


@dataclass(frozen=True)
class Trace:
    """Taps by name in data order, and the manifest that was stored with them."""

    path: Path
    manifest: Mapping[str, Any]
    taps: Mapping[str, Tap] = field(default_factory=dict)

    def rungs(self) -> list[str]:
        """Names of the rungs, in order: what stands before the first slash of a tap."""
        return list(dict.fromkeys(name.partition("/")[0] for name in self.taps))

    def arrays(self, rung: str) -> dict[str, Array]:
        """The full arrays of a rung, without its name."""
        prefix = f"{rung}/"
        return {
            name.removeprefix(prefix): value
            for name, value in self.taps.items()
            if name.startswith(prefix) and isinstance(value, np.ndarray)
        }

    @property
    def label(self) -> str:
        """Producer, precision and variant, for tables."""
        words = [self.producer("name"), self.manifest["precision"]]
        return " ".join(str(word) for word in [*words, self.manifest.get("variant")] if word)

    def producer(self, key: str) -> Any:
        """One fact about who computed it, such as `name`, `version` or `device`."""
        return self.manifest["producer"].get(key, "unknown")


def digest(arrays: Mapping[str, Array]) -> str:
    """SHA-256 over names, types, shapes and bytes; the order of the names does not matter."""
    state = hashlib.sha256()
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        shape = np.shape(arrays[name])  # a scalar has become (1,)
        state.update(f"{name} {value.dtype.str} {shape}\n".encode())
        state.update(value.data if value.size else b"")
    return state.hexdigest()


@lru_cache(maxsize=4)
def _hashes(size: int) -> tuple[Array, Array]:
    """Bucket (before the modulus) and sign of each element: splitmix64 of its index."""
    x = np.arange(size, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    x ^= x >> np.uint64(31)
    return (x & np.uint64(0xFFFF)).astype(np.uint16), 1.0 - 2.0 * (x >> np.uint64(63))


def l2(values: Array) -> float:
    """L2 norm of any shape in float64, also where squares would leave its range."""
    largest = float(np.abs(values).max(initial=0.0))
    if not 0 < largest < np.inf:
        return largest
    return largest * float(np.linalg.norm(values.reshape(-1) / largest))


def sketch(value: Array, buckets: int = BUCKETS) -> Sketch:
    """The sketch of a floating-point array of any shape; elements that are not finite count 0."""
    flat = np.ascontiguousarray(value).reshape(-1)
    finite = np.isfinite(flat)
    numbers = np.where(finite, flat, 0).astype(np.float64)
    place, sign = _hashes(flat.size)
    sums = np.bincount(place % np.uint16(buckets), weights=sign * numbers, minlength=buckets)
    return Sketch(
        shape=value.shape,
        dtype=value.dtype.str,
        buckets=sums,
        norm=l2(numbers),
        largest=float(np.abs(numbers).max(initial=0.0)),
        not_finite=int(flat.size - finite.sum()),
        crc=zlib.crc32(flat.data if flat.size else b""),
    )


def fold(buckets: Array, size: int) -> Array:
    """A sketch with fewer buckets, as if it had been taken so."""
    folded: Array = buckets.reshape(-1, size).sum(axis=0)
    return folded


def write_trace(
    path: Path | str,
    taps: Mapping[str, Array],
    manifest: Mapping[str, Any],
    sketch_above: int | None = None,
    buckets: int = BUCKETS,
    full: Collection[str] = (),
) -> None:
    """Write a trace; the file appears whole or not at all.

    Args:
        taps: arrays by `rung/tap`, in data order.
        manifest: `producer` (name, version, device, threads), `precision`, `subject` (what was
            computed: digests of weights and inputs, configuration), and optionally `variant`.
        sketch_above: store floating-point arrays of more elements than this as sketches.
        full: rungs whose arrays are stored whole all the same.

    Raises:
        UserError: an array is not numeric, or the folder does not exist.
        RunFailed: the operating system refused.
    """
    path = Path(path)
    stored: dict[str, Array] = {}
    index: dict[str, Any] = {}
    for name, value in taps.items():
        value = np.asarray(value)
        if value.dtype.kind not in KINDS:
            raise UserError(f"{path}: tap {name} has type {value.dtype}; expected numbers")
        index[name] = {"shape": value.shape, "dtype": value.dtype.str}
        large = sketch_above is not None and value.size > sketch_above
        if large and value.dtype.kind == "f" and name.partition("/")[0] not in full:
            kept = sketch(value, buckets)
            numbers = ("norm", "largest", "not_finite", "crc")
            index[name]["sketch"] = {key: getattr(kept, key) for key in numbers}
            value = kept.buckets
        stored[f"taps/{len(stored)}"] = value
    whole = {"format": FORMAT, **manifest, "taps": index}
    text = json.dumps(whole, allow_nan=True, default=str).encode()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            np.savez(file, **{MANIFEST: np.frombuffer(text, np.uint8)}, **stored)
        temporary.replace(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: cannot write: no such folder; make it first") from error
    except OSError as error:
        raise RunFailed(f"{path}: cannot write: {error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def read_trace(path: Path | str) -> Trace:
    """Read a trace and check it whole.

    Raises:
        UserError: the file is missing, truncated, damaged, of another version or no trace.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such trace") from error
    except IsADirectoryError as error:
        raise UserError(f"{path}: expected a trace file, found a folder") from error
    except (
        zipfile.BadZipFile,
        ValueError,
        EOFError,
        OSError,
        zlib.error,
        KeyError,
        TypeError,  # NumPy's one array without an archive
        RuntimeError,  # zipfile's, where a flipped bit asks for a password or another packing
    ) as error:
        raise UserError(
            f"{path}: damaged, cut off or no trace ({error}); record it anew"
        ) from error
    return _assemble(path, arrays)


def _assemble(path: Path, arrays: dict[str, Array]) -> Trace:
    if MANIFEST not in arrays:
        raise UserError(f"{path}: an .npz file, but no trace: it has no {MANIFEST}")
    try:
        manifest = json.loads(arrays[MANIFEST].tobytes())
        version = manifest["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: the manifest cannot be read: {error!r}") from error
    if version != FORMAT:
        raise UserError(
            f"{path}: format {version!r}, but this program reads {FORMAT!r}; record it anew"
        )
    try:
        index = manifest.pop("taps")
        manifest["producer"]["name"], manifest["precision"], manifest["subject"]
        taps = {
            name: _tap(arrays.pop(f"taps/{number}"), facts)
            for number, (name, facts) in enumerate(index.items())
        }
        said = {name: (facts["dtype"], list(facts["shape"])) for name, facts in index.items()}
        held = {name: (np.dtype(tap.dtype).str, list(tap.shape)) for name, tap in taps.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: the manifest lacks {error}; record it anew") from error
    for name, facts in said.items():
        if facts != held[name] or np.dtype(facts[0]).kind not in KINDS:
            raise UserError(
                f"{path}: tap {name}: the manifest says {facts}, the file holds {held[name]}; "
                "expected the same, and numbers; record it anew"
            )
    if arrays.keys() != {MANIFEST}:
        raise UserError(f"{path}: holds arrays that its manifest does not list; record it anew")
    return Trace(path, manifest, taps)


def _tap(stored: Array, facts: Mapping[str, Any]) -> Tap:
    if "sketch" not in facts:
        return stored
    if stored.ndim != 1 or stored.dtype != np.float64 or BUCKETS % (stored.size or np.inf):
        raise TypeError(f"a sketch: found {stored.dtype} {stored.shape}")
    return Sketch(tuple(facts["shape"]), facts["dtype"], stored, **facts["sketch"])


def refuse_mixture(traces: list[Trace]) -> None:
    """Traces can be compared only if they are of one computation.

    Raises:
        UserError: inputs, weights or settings differ: which, and between which files.
    """
    first = traces[0]
    for other in traces[1:]:
        ours, theirs = _flat(first.manifest["subject"]), _flat(other.manifest["subject"])
        for key in dict.fromkeys([*ours, *theirs]):
            if ours.get(key, ABSENT) != theirs.get(key, ABSENT):
                raise UserError(
                    f"{first.path} and {other.path} are not of one computation: {key} is "
                    f"{_short(ours.get(key, ABSENT))} in the first and "
                    f"{_short(theirs.get(key, ABSENT))} in the "
                    "second; record both from the same weights, inputs and settings"
                )


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping) or (prefix and not tree):
        return {prefix: tree}
    return {
        key: value
        for name, branch in tree.items()
        for key, value in _flat(branch, f"{prefix}.{name}" if prefix else str(name)).items()
    }


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}…"


def environment() -> dict[str, Any]:
    """The interpreter and machine facts that every manifest carries."""
    return {
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "threads_asked": os.environ.get("OMP_NUM_THREADS"),
    }
