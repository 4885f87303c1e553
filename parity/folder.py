"""The recordings of a pair in one folder, as `parity run` makes them, and their comparison.

A file's name says what it holds: `SIDE-KIND-PRECISION[-VARIANT].npz`, such as
`baseline-pass-float32-ulp1.npz`. Traces of one kind are compared with one another.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from parity.api import compare_traces
from parity.comparison.trace import Trace, read_trace
from parity.comparison.verdict import Comparison, Evidence, OneSided, Row
from parity.errors import NothingInCommon, ParityError
from parity.matching.declared import Declared
from parity.matching.named import Found
from parity.matching.traces import found_paths, unused_patterns
from parity.recording.depends import changed_files

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


def refuse_two_states(traces: Sequence[Trace]) -> None:
    """Refuse recordings of `parity run` that are not all of one state of the models.

    Raises:
        ParityError: those of one side differ in what they were made from, or one was fed by
            another recording than the one that is there.
    """
    made = {trace.path.stem: trace.manifest.get("made_from") or {} for trace in traces}
    files: dict[tuple[str, str], str] = {}  # side, path -> digest
    states: dict[str, str] = {}  # side -> digest
    for trace in traces:
        facts, side = made[trace.path.stem], trace.path.stem.partition("-")[0]
        problems = [
            f"{name} has changed between its recordings"
            for name, digest in (facts.get("files") or {}).items()
            if files.setdefault((side, name), digest) != digest
        ]
        if states.setdefault(side, facts.get("side", "")) != facts.get("side", ""):
            problems.append("its recordings are of several states of its model")
        problems += [
            f"it used another {name} than the one that is here"
            for name, key in (facts.get("used") or {}).items()
            if name in made and made[name].get("key") != key
        ]
        if problems:
            raise ParityError(
                f"{trace.path}: {side}: {problems[0]}; run `parity run {facts.get('pair', 'PAIR')}"
                f" --out {trace.path.parent}` again"
            )


def source_changes(folder: Path) -> str:
    """What is said of recordings of `parity run` whose models have other source by now: a file that
    one was made from is missing or has other bytes. Empty if all is as it was.

    Raises:
        ParityError: as in `recorded_files`.
    """
    files: dict[str, str] = {}
    pair = "PAIR"
    for path in [path for paths in recorded_files(folder).values() for path in paths]:
        facts = read_trace(path).manifest.get("made_from") or {}
        files |= facts.get("files") or {}
        pair = facts.get("pair", pair)
    changed = changed_files(files)
    if not changed:
        return ""
    more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
    return (
        f"{folder}: recorded from other source than there is now: {changed[0]}{more} changed "
        f"since; run `parity run {pair} --out {folder}` again"
    )


def refuse_changed_files(folder: Path) -> None:
    """Refuse recordings of `parity run` whose models have other source by now.

    Raises:
        ParityError: as `source_changes` says, or as in `recorded_files`.
    """
    if text := source_changes(folder):
        raise ParityError(f"{text}, or give the pair file")


def is_pair(trace: Trace) -> bool:
    """Whether `parity run` made a recording."""
    return bool(trace.manifest.get("made_from"))


def compare_folder(
    folder: Path, mapping: Mapping[str, str] | Declared | None = None
) -> tuple[Comparison, list[Trace]]:
    """The verdicts on all recordings of a pair, and the traces of its pass: the pair first.

    `mapping`: names and layouts; by default those of the pair file that was recorded.

    Raises:
        ParityError: as in `recorded_files`, `refuse_two_states` and `compare_traces`.
    """
    rows: list[Row] = []
    one_sided, found = OneSided(), Found()
    pairs: list[Evidence] = []
    main: list[Trace] = []
    kinds = [[read_trace(path) for path in paths] for paths in recorded_files(folder).values()]
    refuse_two_states([trace for traces in kinds for trace in traces])
    if mapping is None:  # the pair file's own
        facts = kinds[0][0].manifest.get("made_from") or {}
        mapping = Declared(facts.get("names") or {}, facts.get("layouts") or {})
    declared = mapping if isinstance(mapping, Declared) else Declared(mapping)
    declared = replace(declared, strict=False)  # a kind of recording may lack some taps
    own = [trace for traces in kinds for trace in traces if trace.path.name.startswith(SIDES[1])]
    found += Found(unused=tuple(unused_patterns(own, declared)), of_pair=is_pair(kinds[0][0]))
    for traces in kinds:
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
