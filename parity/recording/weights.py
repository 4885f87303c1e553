"""The weights of a pair: drawn for the baseline, and given to the candidate by matched names."""

import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from parity.comparison.sketch import Array
from parity.comparison.trace import Trace
from parity.errors import ParityError
from parity.listing import some
from parity.matching.declared import JOIN, PART, Declared, with_parts
from parity.matching.named import Doubt, Fused, Match, Named
from parity.matching.names import match
from parity.matching.telling import SURE
from parity.matching.traces import align_traces, found_paths
from parity.recording.draw import draw_weight, drawn
from parity.recording.laid_out import fits
from parity.recording.pair import BUILT, Pair

State = Sequence[Sequence[Any]]  # name, shape, type, kind; of every entry
MOST = 5  # names in one sentence


def baseline_weights(
    pair: Pair, state: State, folder: Path, tables: Collection[str] = ()
) -> tuple[dict[str, Array], list[str]]:
    """The arrays to load into the baseline: drawn, or those of the pair's file; and notes.

    `tables`: names of the weights of embeddings.

    Raises:
        ParityError: the file is missing, or has no array or another shape for a parameter.
    """
    if pair.weights == BUILT:
        return {}, []
    if pair.weights is None:
        return {
            name: draw_weight(pair.seed, name, tuple(shape), name in tables)
            for name, shape, dtype, kind in state
            if drawn(name, np.empty(0, dtype), kind)
        }, []
    path = folder / pair.weights
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, TypeError, EOFError, BadZipFile, zlib.error) as error:
        raise ParityError(f"weights: {path}: expected an .npz file of arrays: {error}") from error
    for name, shape, _, kind in state:
        if name not in arrays and kind == "parameter":
            raise ParityError(f"weights: {path}: no array {name}; the baseline has this parameter")
        if name in arrays and arrays[name].shape != tuple(shape):
            raise ParityError(
                f"weights: {path}: {name}: expected shape {tuple(shape)}, found "
                f"{arrays[name].shape}"
            )
    names = [name for name, *_ in state]
    unknown = [name for name in arrays if name not in names]
    floats = [name for name, _, dtype, _ in state if np.dtype(dtype).kind == "f"]
    missing = [name for name in floats if name not in arrays]
    notes = [
        f"weights: {path}: {words}: {some(found, MOST)}"
        for words, found in (
            ("the baseline has no such arrays, they are not used", unknown),
            ("no such arrays, the baseline keeps its own", missing),
        )
        if found
    ]
    return {name: arrays[name] for name in names if name in arrays}, notes


def candidate_names(
    pair: Pair, baseline: State, candidate: State, declared: Declared, may_fold: bool = False
) -> tuple[dict[str, str], list[str], dict[str, str]]:
    """The candidate's names of weights -> the baseline's, notes on those without a partner, and
    those of the names that only the order has paired.

    `declared` has the candidate's layouts. `may_fold`: a weight that the candidate lacks may be
    part of another one.

    Raises:
        ParityError: two partners have different shapes, no name has a partner, or a weight is
            folded into another one.
    """
    if pair.weights == BUILT:
        return {}, ["weights: each side has those of its own builder"], {}
    shapes = {name: tuple(shape) for name, shape, *_ in candidate}
    expected = {name: tuple(shape) for name, shape, *_ in baseline}
    parts = _declared_parts(pair, shapes)
    zeros = {name: np.broadcast_to(np.float32(0), shape) for name, shape in expected.items()}
    whole = with_parts(zeros, parts.values())
    expected |= {name: whole[name].shape for name in parts.values()}
    left = [entry for entry in baseline if entry[0] in whole]
    found = _matched(pair, left, [e for e in candidate if e[0] not in parts], declared)
    _refuse_fused(found)
    names = found.mapping() | parts
    counters = {
        name for name, _, dtype, _ in [*baseline, *candidate] if np.dtype(dtype).kind in "iu"
    }
    notes = _notes(found, counters)
    guessed = {p.candidate: p.baseline for p in found.pairs if p.confidence < SURE}
    for doubt in found.doubts:
        guessed |= _by_order(doubt, expected, shapes, declared)
    names |= guessed
    if may_fold:
        _refuse_folded(found, baseline)
    _refuse_shapes(names, expected, shapes, declared)
    if not names and (baseline or candidate):
        raise ParityError("candidate: no weight has a partner in the baseline; give `names`")
    return names, notes, guessed


def note_on_order(guessed: Mapping[str, str]) -> list[str]:
    """What is said of weights that only their order has paired: the candidate's name -> the
    baseline's. Nothing, if there are none."""
    if not guessed:
        return []
    words = some([f"{own} is taken for {theirs}" for own, theirs in guessed.items()], MOST)
    weights = "1 weight is" if len(guessed) == 1 else f"{len(guessed)} weights are"
    return [
        f"{weights} paired by order alone, and nothing confirms it: {words}; if this is wrong, "
        "give `names` in the pair file"
    ]


Shapes = dict[str, tuple[int, ...]]


def _declared_parts(pair: Pair, shapes: Collection[str]) -> dict[str, str]:
    """The candidate's weights that `names` makes of several of the baseline's, or of a part."""
    declared = Declared(pair.names)
    aliases = {name: fitting[1] for name in shapes if (fitting := declared.alias(name))}
    return {name: a for name, a in aliases.items() if JOIN in a or PART.fullmatch(a)}


def _of_modules(fused: Fused) -> list[str]:
    """Entries of `names` for the modules of fused weights, which fit their taps as well.

    Where the two weights have other names in their modules, the entries are for the weights alone:
    `in_proj_weight` of PyTorch's attention is `weight` of three others.
    """
    entries = []
    if len({name.rpartition(".")[2] for name in (fused.name, *fused.parts)}) > 1:
        for line in fused.lines():
            pattern, _, names = line.partition(": ")
            entries.append(f'r"{pattern}": r"{names}"')
        return entries
    whole, *parts = (name.rpartition(".")[0] for name in (fused.name, *fused.parts))
    for line in replace(fused, name=whole, parts=tuple(parts)).lines():
        pattern, _, names = line.partition(": ")
        end = f"\\g<{pattern.count('(') + 1}>"  # what follows the module's path
        ends = [
            f"{name[:-5]}{end}{name[-5:]}" if PART.fullmatch(name) else name + end
            for name in names.split(JOIN)
        ]
        entries.append(f'r"{pattern}(\\..*)?": r"{JOIN.join(ends)}"')
    return entries


def _refuse_fused(found: Match) -> None:
    """Refuse query, key and value in one weight on one side alone: nothing can be loaded."""
    if not found.fused:
        return
    lines = [line for fused in found.fused for line in _of_modules(fused)]
    names = ", ".join(dict.fromkeys(lines))
    first = found.fused[0]
    other = "candidate" if first.side == "baseline" else "baseline"
    raise ParityError(
        f"candidate: weights: {first.name} of the {first.side} is {', '.join(first.parts)} of the "
        f"{other}, as sizes and names show; if the order is query, key, value, add to the pair "
        f"file: names={{{names}}}"
    )


def _by_order(doubt: Doubt, expected: Shapes, shapes: Shapes, declared: Declared) -> dict[str, str]:
    """Pairs of a doubt in their order; what they compute will show whether that is right."""
    ours, theirs = doubt.baseline, doubt.candidate
    if len(ours) != len(theirs) or not all(
        fits(own, shapes[own], expected[other], declared)
        for own, other in zip(theirs, ours, strict=True)
    ):
        raise ParityError(
            f"candidate: weights: {some(theirs, MOST)}: nothing shows which of the "
            f"baseline's these are: {some(ours, MOST)} ({doubt.why}); give `names` in the "
            'pair file, such as names={r"layers\\.(\\d+)\\.w": r"blocks.\\1.weight"}'
        )
    return dict(zip(theirs, ours, strict=True))


def _refuse_folded(found: Match, baseline: State) -> None:
    floats = {name for name, _, dtype, _ in baseline if np.dtype(dtype).kind == "f"}
    folded = [name for name in found.only_baseline if name in floats]
    if folded:
        raise ParityError(
            f"candidate: the file has no {some(folded, MOST)}; where they are folded into "
            f'other weights, drawn ones cannot be loaded: give `weights="{BUILT}"`, and build both '
            "models with the same weights"
        )


def _refuse_shapes(
    names: dict[str, str], expected: Shapes, shapes: Shapes, declared: Declared
) -> None:
    wrong = [
        f"{own} has shape {shapes[own]}, the baseline's {theirs} has {expected[theirs]}"
        for own, theirs in names.items()
        if not fits(own, shapes[own], expected[theirs], declared)
    ]
    if wrong:
        raise ParityError(
            f"candidate: weights: {some(wrong, MOST, '; ')}; build both models with the "
            "same sizes, or give `names` for those that do not belong together"
        )


def _notes(found: Match, counters: Collection[str]) -> list[str]:
    """A note for each side that has weights alone; whole numbers, such as counters, are none."""
    notes = []
    for side, alone in (("baseline", found.only_baseline), ("candidate", found.only_candidate)):
        names = [name for name in alone if name not in counters]
        if names:
            notes.append(f"weights only in the {side}: {some(names, MOST)}")
    return notes


def module_names(pair: Pair, baseline: Trace, candidate: Trace) -> dict[str, str]:
    """The candidate's names of module calls -> the baseline's, as the taps of a pass match."""
    declared = Declared(pair.names, pair.layouts, strict=False)
    _, found = align_traces([baseline, candidate], declared)
    paths = found_paths(found)
    for tap in candidate.manifest.get("operations") or {}:
        path = tap.partition("/")[2]
        alias = declared.alias(tap)
        if alias and path not in paths:
            paths[path] = alias[1].partition("/")[2]
    return paths


def _in_order(name: str, shape: tuple[int, ...], dtype: str, declared: Declared) -> Named:
    """A weight of the candidate with the shape that it has in the baseline's layout."""
    layout = declared.layout(name)
    moved = layout.shape_of(shape) if layout else shape
    return Named(name, moved or shape, dtype, fixed=moved is not None)


def _matched(pair: Pair, baseline: State, candidate: State, declared: Declared) -> Match:
    """The match of the weights: equal shapes first.

    What is left is matched with other orders of axes as well, for a message that names the two.
    """
    ours = [Named(name, tuple(shape), dtype, fixed=True) for name, shape, dtype, _ in baseline]
    theirs = [_in_order(name, tuple(shape), dtype, declared) for name, shape, dtype, _ in candidate]
    exact = match(ours, theirs, pair.names)
    if not (exact.only_baseline and exact.only_candidate):
        return exact
    free = [replace(item, fixed=False) for item in ours]
    found = match(
        free, [replace(item, fixed=False) for item in theirs], pair.names, exact.mapping()
    )
    sure = {(p.baseline, p.candidate): p for p in exact.pairs}
    return replace(found, pairs=tuple(sure.get((p.baseline, p.candidate), p) for p in found.pairs))
