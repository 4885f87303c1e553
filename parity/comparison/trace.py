"""Trace files: the arrays that one implementation computed, and the facts to compare them.

    write_trace("a.npz", {"forward/logits": logits}, {"subject": {"weights": digest(weights)}})
    trace = read_trace("a.npz")

A trace is an .npz file: one JSON manifest and one array per tap, in data order, named `stage/tap`.
A large array can be stored as a *sketch* of a few thousand numbers. Two sketches still give the
relative difference of their arrays, within about one per cent. Needs only NumPy, so programs in any
framework can write traces (docs/parity.md).
"""

import json
import os
import sys
import zipfile
import zlib
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from parity.comparison.measure import gap
from parity.comparison.old_format import OLD_FORMAT, with_new_names
from parity.comparison.sketch import BUCKETS, Array, Sketch, Tap, sketch
from parity.comparison.subject import differences, digest, malformed
from parity.errors import CannotWrite, ParityError

FORMAT = "parity-trace/3"
READ = ("parity-trace/2", FORMAT)  # and OLD_FORMAT, with its own names
MANIFEST = "manifest.json"
AGAIN = "record it again"  # the end of messages about files that cannot be used
KINDS = "fiub"  # floating point, integers, booleans
# Tables of the manifest by name, and the type of their values
TABLES: dict[str, type] = {"kinks": dict, "operations": dict, "layouts": str}
PRODUCER = ("name", "version", "device")  # facts that are equal in two traces of one producer

__all__ = ["FORMAT", "MANIFEST", "Trace", "digest", "read_trace", "refuse_mixture", "write_trace"]


@dataclass(frozen=True)
class Trace:
    """Taps by name in data order, and the manifest that was stored with them."""

    path: Path
    manifest: Mapping[str, Any]
    taps: Mapping[str, Tap] = field(default_factory=dict)

    def stages(self) -> list[str]:
        """Names of the stages, in order: the part of each tap name before its first slash."""
        return list(dict.fromkeys(name.partition("/")[0] for name in self.taps))

    def arrays(self, stage: str) -> dict[str, Array]:
        """The whole arrays of a stage, by name without the stage; no sketches."""
        prefix = f"{stage}/"
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
        """One fact about the producer of the trace, such as `name`, `version` or `device`."""
        return self.manifest["producer"].get(key, "unknown")


def write_trace(
    path: Path | str,
    taps: Mapping[str, Array],
    manifest: Mapping[str, Any],
    sketch_above: int | None = None,
    buckets: int = BUCKETS,
    full: Collection[str] = (),
) -> None:
    """Write a trace; the file appears complete or not at all.

    Args:
        taps: arrays by `stage/tap`, in data order.
        manifest: `producer` (name, version, device, threads), `precision`, `subject` (what was
            computed: digests of weights and inputs, configuration), and optionally `variant`.
        sketch_above: floating-point arrays of more elements than this are stored as sketches.
        full: stages whose arrays are always stored whole.

    Raises:
        ParityError: an array is not numeric, JSON cannot hold a value of the manifest, or the
            folder does not exist.
        CannotWrite: the operating system cannot write the file.
    """
    path = Path(path)
    stored: dict[str, Array] = {}
    index: dict[str, Any] = {}
    for name, value in taps.items():
        value = np.asarray(value)
        if value.dtype.kind not in KINDS:
            raise ParityError(f"{path}: tap {name} has type {value.dtype}; expected numbers")
        index[name] = {"shape": value.shape, "dtype": value.dtype.str}
        large = sketch_above is not None and value.size > sketch_above
        if large and value.dtype.kind == "f" and name.partition("/")[0] not in full:
            summary = sketch(value, buckets)
            numbers = ("norm", "largest", "not_finite", "crc")
            index[name]["sketch"] = {key: getattr(summary, key) for key in numbers}
            value = summary.buckets
        stored[f"taps/{len(stored)}"] = value
    full_manifest = {"format": FORMAT, **manifest, "taps": index}
    text = json.dumps(_plain(full_manifest, path, "manifest")).encode()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            np.savez(file, **{MANIFEST: np.frombuffer(text, np.uint8)}, **stored)
        temporary.replace(path)
    except FileNotFoundError as error:
        raise ParityError(f"{path}: cannot write: no such folder; make it first") from error
    except OSError as error:
        raise CannotWrite(f"{path}: cannot write: {error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


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


def read_trace(path: Path | str) -> Trace:
    """Read a trace and check all of it.

    Raises:
        ParityError: the file is missing, cut off, damaged, of another version or no trace.
    """
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe may never end
        raise ParityError(f"{path}: expected a trace file, found no regular file; check the path")
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except FileNotFoundError as error:
        raise ParityError(f"{path}: no such trace") from error
    except IsADirectoryError as error:
        raise ParityError(f"{path}: expected a trace file, found a folder") from error
    except (
        zipfile.BadZipFile,
        ValueError,
        EOFError,
        OSError,
        zlib.error,
        KeyError,
        TypeError,  # NumPy: a single array instead of an archive
        RuntimeError,  # zipfile: a flipped bit asks for a password or another compression
    ) as error:
        raise ParityError(f"{path}: damaged, cut off or no trace ({error}); {AGAIN}") from error
    return _assemble(path, arrays)


def _assemble(path: Path, arrays: dict[str, Array]) -> Trace:
    if MANIFEST not in arrays:
        raise ParityError(f"{path}: an .npz file, but no trace: it has no {MANIFEST}")
    try:
        manifest = json.loads(arrays[MANIFEST].tobytes())
        version = manifest["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ParityError(f"{path}: the manifest cannot be read: {error!r}; {AGAIN}") from error
    if version == OLD_FORMAT:
        manifest = with_new_names(manifest)
    elif version not in READ:
        known = ", ".join(map(repr, (OLD_FORMAT, *READ)))
        raise ParityError(
            f"{path}: format {version!r}, but this program reads {known}; {AGAIN} with this version"
        )
    try:
        index = manifest.pop("taps")
        manifest["producer"]["name"], manifest["precision"], manifest["subject"]
        taps = {
            name: _tap(arrays.pop(f"taps/{number}"), facts)
            for number, (name, facts) in enumerate(index.items())
        }
        declared = {name: (facts["dtype"], list(facts["shape"])) for name, facts in index.items()}
        stored = {name: (np.dtype(tap.dtype).str, list(tap.shape)) for name, tap in taps.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ParityError(f"{path}: the manifest lacks {error}; {AGAIN}") from error
    for name, facts in declared.items():
        if facts != stored[name] or np.dtype(facts[0]).kind not in KINDS:
            raise ParityError(
                f"{path}: tap {name}: the manifest says {facts}, the file holds {stored[name]}; "
                f"expected the same, and numbers; {AGAIN}"
            )
    _check_facts(path, manifest)
    if arrays.keys() != {MANIFEST}:
        raise ParityError(f"{path}: holds arrays that its manifest does not list; {AGAIN}")
    return Trace(path, manifest, taps)


def _check_facts(path: Path, manifest: Mapping[str, Any]) -> None:
    """Refuse a manifest with facts that a comparison cannot use."""
    facts = {key: manifest.get(key) for key in ("precision", "variant", "branch")}
    facts |= {f"producer {key}": manifest["producer"].get(key) for key in PRODUCER}
    for place, value in facts.items():
        if isinstance(value, list | dict):
            raise ParityError(f"{path}: {place}: expected text, found {value!r}; {AGAIN}")
    zeros = manifest.get("zeros") or {}
    names = [*zeros, *zeros.values()] if isinstance(zeros, dict) else [None]
    if not all(isinstance(name, str) and ">" not in name for name in names):
        raise ParityError(
            f"{path}: zeros: expected names of taps, each with the name of its sibling, both "
            f"without `>`, found {zeros!r}; {AGAIN}"
        )
    for key in TABLES:
        table = manifest.get(key) or {}
        if not (
            isinstance(table, dict) and all(isinstance(v, TABLES[key]) for v in table.values())
        ):
            raise ParityError(f"{path}: {key}: expected a table by name, found {table!r}; {AGAIN}")
    if isinstance(manifest["subject"], dict) and (name := malformed(manifest["subject"])):
        raise ParityError(
            f"{path}: subject.{name}: expected shape, dtype and sha256 of an array; {AGAIN}"
        )
    terms = manifest.get("terms") or {}
    counts = terms.values() if isinstance(terms, dict) else [0]
    if not all(type(count) is int and count > 0 for count in counts):
        raise ParityError(
            f"{path}: terms: expected names of taps, each with the length of its sums, found "
            f"{terms!r}; {AGAIN}"
        )


def _tap(stored: Array, facts: Mapping[str, Any]) -> Tap:
    if "sketch" not in facts:
        return stored
    if stored.ndim != 1 or stored.dtype != np.float64 or BUCKETS % (stored.size or np.inf):
        raise TypeError(f"a sketch: found {stored.dtype} {stored.shape}")
    return Sketch(tuple(facts["shape"]), facts["dtype"], stored, **facts["sketch"])


def refuse_mixture(traces: list[Trace]) -> None:
    """Refuse traces that are not of one computation.

    Raises:
        ParityError: inputs, weights or settings differ; the text names the fact and both files.
    """
    first = traces[0]
    for trace in traces[1:]:
        problems = differences(first.manifest["subject"], trace.manifest["subject"])
        if problems:
            raise ParityError(
                f"{first.path} and {trace.path} are not of one computation: {problems[0]}; "
                "record both from the same weights, inputs and settings"
            )


def environment() -> dict[str, Any]:
    """Facts about interpreter and machine that every manifest holds."""
    return {
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "threads_asked": os.environ.get("OMP_NUM_THREADS"),
    }


def distance(name: str, trace: Trace, reference: Trace) -> float:
    """Relative L2 distance of one tap; infinite if either trace lacks it."""
    if name not in trace.taps or name not in reference.taps:
        return np.inf
    return gap(trace.taps[name], reference.taps[name], same_type=False).relative
