"""Where a finding is, for a person: the candidate's own name, the code, and what reads a gradient's
place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os.path import commonprefix  # of any sequences
from typing import Any

from parity.comparison.trace import Trace
from parity.comparison.verdict import Row
from parity.diagnose.causes.facts import Operation, operations_of
from parity.diagnose.reach import Pass
from parity.diagnose.sources import Sources
from parity.diagnose.stages import Place, module_of, place_of
from parity.diagnose.upstream import Code
from parity.listing import some
from parity.matching.named import split
from parity.matching.views import own_name

MOST = 3  # modules that read one output


@dataclass(frozen=True)
class Where:
    """The place of a row. Each part is empty where the recordings do not show it."""

    own: str = ""  # the candidate's own name, if it is another one
    code: str = ""  # `BatchNorm in jittor/nn.py:671`: what may be wrong
    source: str = ""  # the file and line of it
    readers: str = ""  # `GELU mlp.1`: of a gradient by an output, what reads this output


def where_of(row: Row, sources: Sources, graph: Pass, between: bool) -> Where:
    """The place of a row; `between`: the fault is outside of modules, before the row's tap."""
    place = place_of(row.stage, row.tap)
    own = own_path(row, sources)
    if between:
        before = graph.before(place.name)
        code, source = container_of([own, own_path_of(before, sources)], sources)
        return Where("", code, source)
    own = own if own != place.name else ""
    if is_behind(place):  # the fault is not in this module
        found = readers_of(place, graph.made_by)
        words = some([f"{made.module} {name}".strip() for name, made in found], MOST)
        return Where(own, readers=words)
    module, source = code_of(row, sources)
    return Where(own, f"{module} in {source}" if source else "", source)


def is_behind(place: Place) -> bool:
    """Whether a row shows what is computed after its place: a gradient of a whole pass."""
    return place.kind == "backward" and not place.isolated


def codes_of(rows: Sequence[Row], sources: Sources, graph: Pass) -> Code:
    """The candidate's code at the places of some rows; of a gradient by an output, that of what
    reads the output in the candidate."""
    found: set[tuple[str, str]] = set()
    theirs = operations_of(sources.main.candidate.manifest) if sources.main else {}
    for row in rows:
        place = place_of(row.stage, row.tap)
        if is_behind(place):
            readers = [made for _, made in readers_of(place, theirs)]
            found |= {(made.source, made.operation) for made in readers} or {("", "")}
        else:
            made = graph.made_by.get(f"{row.stage}/{row.tap}")
            operation = made.operation if made else graph.operation_of(place)
            found.add((code_of(row, sources)[1], operation))
    return Code(frozenset(s for s, _ in found), frozenset(o for _, o in found))


def own_path(row: Row, sources: Sources) -> str:
    """The candidate's name of a row's module or parameter."""
    evidence = sources.of_row(row)
    name = f"{row.stage}/{row.tap}"
    return split(own_name(evidence.candidate, name) if evidence else name)[1]


def own_path_of(module: str, sources: Sources) -> str:
    """The candidate's name of a module of the baseline; empty if it has no tap."""
    trace = sources.main.candidate if sources.main else None
    names = [name for name in (f"forward/{module}", f"training forward/{module}") if trace]
    found = [split(own_name(trace, name))[1] for name in names if trace and name in trace.taps]
    return found[0] if found and module else ""


def readers_of(place: Place, made_by: Mapping[str, Operation]) -> list[tuple[str, Operation]]:
    """The modules that read an output, by name."""
    prefix = "training " if place.training else ""
    wanted = f"{prefix}forward/{place.name}"
    return [
        (tap.partition("/")[2], made)
        for tap, made in made_by.items()
        if tap.startswith(f"{prefix}forward/") and wanted in made.reads
    ]


def code_of(row: Row, sources: Sources) -> tuple[str, str]:
    """The class of the candidate's module for a row, and file and line of its code.

    Both are empty if the candidate's trace has none.
    """
    if sources.main is None:
        return "", ""
    place = place_of(row.stage, row.tap)
    operations = sources.main.candidate.manifest.get("operations") or {}
    module = module_of(place.name)
    owner = module if place.kind in ("forward", "backward") else module.rpartition(".")[0]
    keys = (f"forward/{owner}", f"training forward/{owner}", f"{row.stage}/{row.tap}")
    made: dict[str, Any] = next((operations[key] for key in keys if key in operations), {})
    return str(made.get("module") or "code"), str(made.get("source") or "")


def container_of(paths: list[str], sources: Sources) -> tuple[str, str]:
    """The innermost module of the candidate that holds all paths: `SE se in mine.py:31`, and the
    file and line. Both are empty if the trace has no such table."""
    trace: Trace | None = sources.main.candidate if sources.main else None
    table: dict[str, Any] = (trace.manifest.get("containers") if trace else None) or {}
    parts = [path.split(".")[:-1] for path in paths if path]
    shared = commonprefix(parts)
    for count in range(len(shared), -1, -1):
        path = ".".join(shared[:count])
        entry = table.get(path) or {}
        if entry.get("source"):
            name = f"{entry.get('module', '')} {path}".strip()
            return f"{name} in {entry['source']}", str(entry["source"])
    return "", ""
