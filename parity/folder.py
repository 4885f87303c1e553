"""The recordings of a pair in one folder, as `parity run` makes them, and their comparison.

A file's name says what it holds: `SIDE-KIND-PRECISION[-VARIANT].npz`, such as
`baseline-pass-float32-ulp1.npz`. Traces of one kind are compared with one another.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from parity.api import compare_traces
from parity.comparison.trace import Trace, read_trace
from parity.comparison.verdict import Comparison, Evidence, OneSided, Row
from parity.errors import NothingInCommon, ParityError
from parity.matching.declared import Declared
from parity.matching.named import Found
from parity.matching.traces import found_paths

FILE = re.compile(r"(baseline|candidate)-([^-]+)-(.+)\.npz")
SIDES = ("baseline", "candidate")


def recorded_files(folder: Path) -> dict[str, list[Path]]:
    """Kind of recording -> its files: first the pair in float32, then the evidence.

    Raises:
        ParityError: the folder has no recordings, or a kind lacks one trace of the pair.
    """
    if not folder.is_dir():
        raise ParityError(f"{folder}: no such folder; expected one with the traces of `parity run`")
    kinds: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.npz")):
        if match := FILE.fullmatch(path.name):
            kinds.setdefault(match[2], []).append(path)
    if not kinds:
        raise ParityError(
            f"{folder}: expected traces such as baseline-pass-float32.npz, found none; "
            "record the pair with `parity run`, or give the traces themselves"
        )
    for kind, paths in kinds.items():
        pair = [folder / f"{side}-{kind}-float32.npz" for side in SIDES]
        for path in pair:
            if path not in paths:
                raise ParityError(f"{path}: no such trace; record the pair again")
        kinds[kind] = [*pair, *(path for path in paths if path not in pair)]
    return dict(sorted(kinds.items(), key=lambda item: item[0] != "pass"))


def compare_folder(
    folder: Path, mapping: Mapping[str, str] | Declared | None = None
) -> tuple[Comparison, list[Trace]]:
    """The verdicts on all recordings of a pair, and the traces of its pass: the pair first.

    Raises:
        ParityError: as in `recorded_files` and `compare_traces`.
    """
    declared = mapping if isinstance(mapping, Declared) else Declared(mapping or {})
    declared = replace(declared, strict=False)  # a kind of recording may lack some taps
    rows: list[Row] = []
    one_sided, found = OneSided(), Found()
    pairs: list[Evidence] = []
    main: list[Trace] = []
    for paths in recorded_files(folder).values():
        traces = [read_trace(path) for path in paths]
        try:
            part = compare_traces(traces, declared)
        except NothingInCommon:
            if not main:
                raise
            continue  # such as modules alone, where the candidate is written without modules
        rows += part.rows
        one_sided += part.one_sided
        pairs += part.pairs
        found += part.found
        if not main:  # modules alone have the names that the whole pass showed
            renamed = {re.escape(own): name for own, name in found_paths(part.found).items()}
            declared = replace(declared, names={**declared.names, **renamed})
        main = main or traces
    return Comparison(rows, one_sided, tuple(pairs), found), main
