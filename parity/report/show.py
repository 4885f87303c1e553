"""What one trace holds, as lines of text."""

from collections.abc import Iterator
from pathlib import Path
from shlex import quote

import numpy as np

from parity.comparison.measure import norm
from parity.comparison.sketch import Sketch
from parity.comparison.trace import Trace, is_trace, read_trace
from parity.errors import ParityError
from parity.report.summary import shown
from parity.report.table import text_lines

FACTS = ("case", "kind", "precision", "variant", "branch", "format")
HEADER = ("tap", "type", "shape", "norm", "")
NEAREST = 5  # names that an error lists


def trace_lines(trace: Trace, stage: str | None = None) -> Iterator[str]:
    """The producer, the facts of the manifest, and each tap with its shape and norm.

    Raises:
        ParityError: there is no such stage.
    """
    producer = trace.manifest["producer"]
    yield shown("producer: " + ", ".join(f"{k} {v}" for k, v in producer.items() if v is not None))
    facts = [(key, trace.manifest.get(key)) for key in FACTS]
    yield shown(", ".join(f"{key} {_words(value)}" for key, value in facts if value))
    subject = trace.manifest["subject"]
    for part, value in subject.items() if isinstance(subject, dict) else ():
        count = f"{len(value)} arrays" if part != "settings" and isinstance(value, dict) else value
        yield shown(f"{part}: {count}")
    stages = trace.stages()
    if stage is not None and stage not in stages:
        raise ParityError(f"{trace.path}: no stage {stage}; expected one of {', '.join(stages)}")
    chosen = [name for name in trace.taps if stage in (None, name.partition("/")[0])]
    rows = [_row(name, trace) for name in chosen]
    yield f"{len(chosen)} taps in {1 if stage else len(stages)} stages:"
    yield from (line.rstrip() for line in text_lines([HEADER, *rows], (3,)))


def _words(fact: object) -> str:
    """A fact of the manifest as text."""
    return " ".join(f"{k}:{v}" for k, v in fact.items()) if isinstance(fact, dict) else f"{fact}"


def _row(name: str, trace: Trace) -> list[str]:
    tap = trace.taps[name]
    kind = f"sketch of {len(tap.buckets)} numbers" if isinstance(tap, Sketch) else ""
    shape = " x ".join(map(str, tap.shape)) or "number"
    return [shown(name), str(np.dtype(tap.dtype)), shape, f"{norm(tap):.6g}", kind]


def folder_lines(folder: Path) -> Iterator[str]:
    """One line for each trace of a folder.

    Raises:
        ParityError: there is no trace; or, after all lines, one cannot be read.
    """
    rows, paths = [], []
    problems: list[ParityError] = []
    for path in sorted(folder.glob("*.npz"), key=lambda path: path.stem):
        try:
            if not is_trace(path):
                continue
            trace = read_trace(path)
        except ParityError as error:
            rows.append([shown(path.name), "cannot be read", "", "", ""])
            problems.append(error)
            continue
        paths.append(path)
        facts = [trace.manifest.get(key) for key in ("kind", "precision", "variant")]
        counts = f"{len(trace.taps)} taps", f"{len(trace.stages())} stages"
        kind = shown(" ".join(str(fact) for fact in facts if fact))
        rows.append([shown(path.name), shown(trace.producer("name")), kind, *counts])
    if not rows:
        raise ParityError(f"{folder}: expected traces, files that end in .npz, found none")
    lines = text_lines([("file", "producer", "recording", "", ""), *rows], ())
    yield from (line.rstrip() for line in lines)
    if problems:
        raise problems[0]
    first = next((path for path in paths if "-pass-" in path.name), paths[0])
    yield f"to see one: parity show {quote(str(first))}"


def tap_lines(trace: Trace, name: str) -> Iterator[str]:
    """The numbers of one tap, shortened as NumPy does.

    Raises:
        ParityError: there is no such tap.
    """
    if name not in trace.taps:
        near = [other for other in trace.taps if name.rpartition("/")[2] in other][:NEAREST]
        names = near or list(trace.taps)[:NEAREST]
        raise ParityError(f"{trace.path}: no tap {name}; expected one such as {', '.join(names)}")
    tap = trace.taps[name]
    yield shown(f"{name}: {np.dtype(tap.dtype)}, shape {tap.shape}, norm {norm(tap):.9g}")
    facts = (trace.manifest.get("operations") or {}).get(name)
    if facts:
        yield shown(", ".join(f"{key} {value}" for key, value in facts.items() if value))
    if isinstance(tap, Sketch):
        yield f"a sketch: largest {tap.largest:.9g}, {tap.not_finite} elements are not finite"
    else:
        yield str(tap)
