"""The traces of a candidate under the names of the baseline's taps.

    traces, found = align_traces(traces, declared)

First what the user declares; then equal names; then what `match` finds in each stage. A name that
is found in one stage counts in the next ones: the gradient of a module's output belongs to the
module. Layouts are applied only where they are declared; `find_layouts` recognises others.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from parity.comparison.trace import PRODUCER, Trace
from parity.errors import ParityError
from parity.matching.declared import Declared, in_short
from parity.matching.layouts import SAME, layout_of
from parity.matching.named import Found, Named, NamePair, pattern_of, split
from parity.matching.names import match
from parity.matching.settle import settle
from parity.matching.views import Taps, layout_plan, own_name, parts_plan, with_new_names

EXACT = "parameters/"  # the stage whose numbers are not computed


def align_traces(
    traces: Sequence[Trace], declared: Declared | None = None
) -> tuple[list[Trace], Found]:
    """The traces, those of the candidate under the baseline's names.

    Args:
        traces: the baseline, the candidate, then further traces of both.

    Raises:
        ParityError: a pattern of the user is wrong or fits no tap, or two taps become one.
    """
    declared = declared or Declared()
    if len(traces) < 2:
        return list(traces), Found()
    declared = _with_recorded(declared, traces)
    is_candidate = [_of_candidate(number, traces) for number in range(len(traces))]
    aliases = [
        _aliases(trace, declared) if own else {}
        for trace, own in zip(traces, is_candidate, strict=True)
    ]
    if declared.strict:
        _refuse_unused([t for t, own in zip(traces, is_candidate, strict=True) if own], declared)
    wanted = {alias for table in aliases for alias in table.values()}
    baselines = [
        trace if own else replace(trace, taps=Taps(trace.taps, parts_plan(trace, wanted)))
        for trace, own in zip(traces, is_candidate, strict=True)
    ]
    mapping, found = _match_stages(baselines[0], traces[1], aliases[1])
    result = []
    applied: dict[str, str] = {}
    for trace, own, table in zip(baselines, is_candidate, aliases, strict=True):
        if own:
            names = {name: mapping.get(name, alias) for name, alias in table.items()}
            plan, layouts = layout_plan(trace, names, declared, baselines[0])
            trace = replace(with_new_names(trace, names), taps=Taps(trace.taps, plan))
            applied |= layouts
        result.append(trace)
    return result, replace(found, declared=applied)


def _of_candidate(number: int, traces: Sequence[Trace]) -> bool:
    """Whether a trace is by the candidate's producer, and not by the baseline's as well."""
    if number < 2:
        return number == 1
    producers = [[t.producer(k) for k in PRODUCER[:2]] for t in (traces[number], *traces[:2])]
    return producers[0] == producers[2] != producers[1]


def _with_recorded(declared: Declared, traces: Sequence[Trace]) -> Declared:
    """With the layouts that the candidate's recorder declared, after the user's own."""
    recorded: Mapping[str, str] = traces[1].manifest.get("layouts") or {}
    if traces[0].manifest.get("layouts") == recorded:  # the same framework on both sides
        recorded = {}
    only = Declared(layouts=recorded, strict=False)
    used = {only.layout_pattern(name) for name in traces[1].taps}
    fitting = {pattern: name for pattern, name in recorded.items() if pattern in used}
    return replace(declared, layouts={**declared.layouts, **fitting})


def _aliases(trace: Trace, declared: Declared) -> dict[str, str]:
    """The names of a trace -> the names that the user gives them."""
    aliases: dict[str, str] = {}
    used: dict[str, str] = {}
    for name in trace.taps:
        found = declared.alias(name)
        new = in_short(found[1]) if found else name
        if new in used:
            raise ParityError(f"{trace.path}: names: two taps would be called {new}, one is {name}")
        used[new] = name
        aliases[name] = new
    return aliases


def unused_patterns(traces: Sequence[Trace], declared: Declared) -> list[str]:
    """The patterns of the user that fit no tap of the candidate's traces: `names: conv1`."""
    names = dict.fromkeys(name for trace in traces for name in trace.taps)
    renamed = {found[0] for name in names if (found := declared.alias(name))}
    laid_out = {declared.layout_pattern(name) for name in names}
    return [
        *(f"names: {pattern}" for pattern in declared.names if pattern not in renamed),
        *(f"layouts: {pattern}" for pattern in declared.layouts if pattern not in laid_out),
    ]


def _refuse_unused(traces: Sequence[Trace], declared: Declared) -> None:
    for pattern in unused_patterns(traces, declared):
        count = len({name for trace in traces for name in trace.taps})
        raise ParityError(f"{traces[0].path}: {pattern} fits none of its {count} taps")


def _match_stages(
    baseline: Trace, candidate: Trace, aliases: Mapping[str, str]
) -> tuple[dict[str, str], Found]:
    """The candidate's tap -> the baseline's, where the two differ, and what was found."""
    known: dict[str, str] = {}  # path of the candidate -> path of the baseline
    mapping: dict[str, str] = {}
    found = Found()
    for stage in dict.fromkeys(name.partition("/")[0] for name in aliases.values()):
        ours = [name for name in baseline.taps if name.partition("/")[0] == stage]
        theirs = {a: name for name, a in aliases.items() if a.partition("/")[0] == stage}
        if set(theirs) <= set(ours) or set(ours) <= set(theirs):
            continue
        given = {}
        for alias in theirs:
            prefix, path = split(alias)
            if path in known and prefix + known[path] in ours:
                given[alias] = prefix + known[path]
        result = match(
            [_named(name, name, baseline) for name in ours],
            [_named(alias, name, candidate) for alias, name in theirs.items()],
            known=given,
        )
        result = settle(result, baseline.taps, {a: candidate.taps[n] for a, n in theirs.items()})
        for pair in result.renamed():
            mapping[theirs[pair.candidate]] = pair.baseline
            for own, theirs_path in _paths_of(pair):
                known.setdefault(own, theirs_path)
        paired = {pair.baseline for pair in result.renamed()}
        for alias in theirs.keys() & paired - {pair.candidate for pair in result.pairs}:
            mapping[theirs[alias]] = f"{alias} (candidate)"
        found = Found(
            found.renamed + tuple(p for p in result.renamed() if p.candidate not in given),
            doubts=found.doubts + result.doubts,
            fused=found.fused + result.fused,
        )
    return mapping, found


def found_paths(found: Found) -> dict[str, str]:
    """The candidate's path of a module or parameter -> the baseline's, where they differ."""
    paths: dict[str, str] = {}
    for pair in found.renamed:
        for own, theirs in _paths_of(pair):
            paths.setdefault(own, theirs)
    return paths


def _paths_of(pair: NamePair) -> list[tuple[str, str]]:
    """The paths, the candidate's first, that a pair of taps shows to belong together.

    A pair of parameters shows its modules, too. An input shows nothing: it has the name of the
    first module that reads it.
    """
    stage = pair.candidate.partition("/")[0]
    if stage.endswith("inputs"):
        return []
    paths = [(split(pair.candidate)[1], split(pair.baseline)[1])]
    if f"{stage}/" == EXACT:
        paths.append((paths[0][0].rpartition(".")[0], paths[0][1].rpartition(".")[0]))
    return paths


def _named(name: str, tap: str, trace: Trace) -> Named:
    """A tap and its operation; a gradient by an activation has that of the activation."""
    value = trace.taps[tap]
    known = trace.manifest.get("operations") or {}
    facts = known.get(tap) or known.get(f"forward/{split(tap)[1]}") or {}
    return Named(name, tuple(value.shape), operation=str(facts.get("operation") or ""))


def find_layouts(found: Found, baseline: Trace, candidate: Trace, taps: Sequence[str]) -> Found:
    """`found`, with the layouts that the numbers of these taps show (those that differ)."""
    layouts = {}
    for name in taps:
        if name not in baseline.taps or name not in candidate.taps:
            continue
        ours, theirs = baseline.taps[name], candidate.taps[name]
        if isinstance(ours, np.ndarray) and isinstance(theirs, np.ndarray) and ours.ndim:
            layout = layout_of(theirs, ours, exact=name.startswith(EXACT))
            if layout and layout.name != SAME:
                layouts[name] = layout.name
    return replace(found, layouts=layouts, patterns=_patterns(layouts, candidate))


def _patterns(layouts: Mapping[str, str], candidate: Trace) -> dict[str, str]:
    """Tap -> a pattern of the candidate's own names. It fits any number where all those taps have
    the same layout."""
    paths = {tap: split(own_name(candidate, tap))[1] for tap in candidate.taps}
    named: dict[str, set[str | None]] = {}  # path -> its layouts; None: as the baseline's
    for tap, path in paths.items():
        named.setdefault(path, set()).add(layouts.get(tap))
    result = {}
    for tap, name in layouts.items():
        pattern = pattern_of(paths[tap])
        fits = [found for path, found in named.items() if re.fullmatch(pattern, path)]
        alike = all(name in found for found in fits)
        result[tap] = pattern if alike else re.escape(paths[tap])
    return result
