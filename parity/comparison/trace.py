"""Trace files: the arrays that one implementation computed, and the facts to compare them.

    write_trace("a.npz", {"forward/logits": logits}, {"subject": {"weights": digest(weights)}})
    trace = read_trace("a.npz")

A trace is an .npz file: one JSON manifest and one array per tap, in data order, named `stage/tap`.
A large array can be stored as a *sketch* of a few thousand numbers. Two sketches still give the
relative difference of their arrays, within about one per cent. Needs only NumPy, so programs in any
framework can write traces (docs/parity.md).
"""

import json
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from parity.comparison.measure import relative
from parity.comparison.modes import MODES
from parity.comparison.old_format import OLD_FORMAT, with_new_names
from parity.comparison.sketch import BUCKETS, KIND, OLD_KIND, Array, Tap
from parity.comparison.stored import AGAIN, Arrays, Header, StoredTaps
from parity.comparison.subject import differences, digest, malformed
from parity.comparison.writer import FORMAT, KINDS, MANIFEST, TraceWriter, write_trace
from parity.errors import ParityError

READ = ("parity-trace/2", FORMAT)  # and OLD_FORMAT, with its own names
# Tables of the manifest by name, and the type of their values
TABLES: dict[str, type] = {"kinks": dict, "operations": dict, "layouts": str}
PRODUCER = ("name", "version", "device")  # facts that are equal in two traces of one producer

__all__ = [
    "FORMAT",
    "MANIFEST",
    "Trace",
    "TraceWriter",
    "digest",
    "read_trace",
    "refuse_mixture",
    "write_trace",
]


@dataclass(frozen=True)
class Trace:
    """Taps by name in data order, and the manifest that was stored with them.

    `read_trace` gives taps that are read from the file when they are asked for.
    """

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


def read_trace(path: Path | str) -> Trace:
    """Read a trace and check all of it.

    Raises:
        ParityError: the file is missing, cut off, damaged, of another version or no trace.
    """
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe may never end
        raise ParityError(f"{path}: expected a trace file, found no regular file; check the path")
    return _assemble(path, Arrays(path))


def is_trace(path: Path) -> bool:
    """Whether an .npz file has a manifest. `parity run` also writes plain ones, of inputs.

    Raises:
        ParityError: the file is missing, cut off or damaged.
    """
    return MANIFEST in Arrays(path).headers


def _assemble(path: Path, arrays: Arrays) -> Trace:
    if MANIFEST not in arrays.headers:
        raise ParityError(f"{path}: an .npz file, but no trace: it has no {MANIFEST}")
    manifest = _manifest(path, arrays[MANIFEST].tobytes())
    try:
        index = manifest.pop("taps")
        manifest["producer"]["name"], manifest["precision"], manifest["subject"]
        declared = {name: (facts["dtype"], list(facts["shape"])) for name, facts in index.items()}
        headers = [arrays.headers[f"taps/{number}"] for number in range(len(index))]
        if any("sketch" in facts for facts in index.values()):
            manifest.setdefault("sketches", OLD_KIND)
        taps = StoredTaps(arrays, index, manifest.get("sketches", KIND))
        stored = {
            name: _as_declared(taps, name, facts, header)
            for (name, facts), header in zip(index.items(), headers, strict=True)
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ParityError(f"{path}: the manifest lacks {error}; {AGAIN}") from error
    for name, facts in declared.items():
        if facts != stored[name] or np.dtype(facts[0]).kind not in KINDS:
            raise ParityError(
                f"{path}: tap {name}: the manifest says {facts}, the file holds {stored[name]}; "
                f"expected the same, and numbers; {AGAIN}"
            )
    _check_facts(path, manifest)
    if len(arrays.headers) != len(index) + 1:
        raise ParityError(f"{path}: holds arrays that its manifest does not list; {AGAIN}")
    return Trace(path, manifest, taps)


def _manifest(path: Path, text: bytes) -> dict[str, Any]:
    """The manifest, with the names of the present format."""
    try:
        manifest: dict[str, Any] = json.loads(text)
        version = manifest["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ParityError(f"{path}: the manifest cannot be read: {error!r}; {AGAIN}") from error
    if version == OLD_FORMAT:
        return with_new_names(manifest)
    if version not in READ:
        known = ", ".join(map(repr, (OLD_FORMAT, *READ)))
        raise ParityError(
            f"{path}: format {version!r}, but this program reads {known}; {AGAIN} with this version"
        )
    return manifest


def _check_facts(path: Path, manifest: Mapping[str, Any]) -> None:
    """Refuse a manifest with facts that a comparison cannot use."""
    facts = {key: manifest.get(key) for key in ("precision", "variant")}
    branch = manifest.get("branch")
    if isinstance(branch, dict):
        texts = all(isinstance(value, str) and value for value in branch.values())
        if branch.keys() != set(MODES) or not texts:
            raise ParityError(
                f"{path}: branch: expected text, or a text for each of {' and '.join(MODES)}, "
                f"found {branch!r}; {AGAIN}"
            )
    else:
        facts["branch"] = branch
    facts |= {f"producer {key}": manifest["producer"].get(key) for key in PRODUCER}
    for place, value in facts.items():
        if isinstance(value, list | dict):
            raise ParityError(f"{path}: {place}: expected text, found {value!r}; {AGAIN}")
    if manifest.get("sketches", KIND) not in (KIND, OLD_KIND):
        raise ParityError(
            f"{path}: sketches {manifest['sketches']!r}: expected {KIND} or {OLD_KIND}; {AGAIN} "
            "with this version"
        )
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


def _as_declared(
    taps: StoredTaps, name: str, facts: Mapping[str, Any], header: Header
) -> tuple[str, list[int]]:
    """Type and shape of a stored tap; of a sketch, those of the array that it stands for.

    Raises:
        TypeError: it is no sketch, although the manifest says so.
    """
    if "sketch" not in facts:
        return header.dtype.str, list(header.shape)
    size = math.prod(header.shape)
    if len(header.shape) != 1 or header.dtype != np.float64 or BUCKETS % (size or BUCKETS + 1):
        raise TypeError(f"a sketch: found {header.dtype} {header.shape}")
    tap = taps[name]
    return np.dtype(tap.dtype).str, list(tap.shape)


def refuse_mixture(traces: list[Trace]) -> None:
    """Refuse traces that are not of one computation.

    Raises:
        ParityError: inputs, weights or settings differ; the text names the fact and both files.
    """
    first = traces[0]
    kinds = {trace.manifest["sketches"]: trace for trace in traces if "sketches" in trace.manifest}
    if len(kinds) > 1:
        old, new = [trace.path for trace in kinds.values()][:2]
        raise ParityError(
            f"{old} and {new}: sketches of two kinds, {' and '.join(kinds)}, which cannot be "
            f"compared; {AGAIN} with one version"
        )
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
    return relative(trace.taps[name], reference.taps[name], same_type=False)
