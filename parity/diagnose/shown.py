"""The fault that one row shows: a known cause, else the place alone."""

from collections.abc import Sequence

from parity.comparison.verdict import Row
from parity.diagnose.causes.hypothesis import Rule
from parity.diagnose.causes.pair import Cause
from parity.diagnose.faults import Fault
from parity.diagnose.finding import Sureness
from parity.diagnose.local import class_of, likely, state_cause
from parity.diagnose.precision import why_less_precise
from parity.diagnose.reach import Pass
from parity.diagnose.sources import Sources
from parity.diagnose.stages import Place, place_of
from parity.diagnose.state import unequal_weight
from parity.diagnose.structure import INPUT
from parity.diagnose.sums import broken_sum
from parity.diagnose.where import code_of
from parity.diagnose.words import ABOUT, BETWEEN, OF_INPUT, OTHER, UNKNOWN


def fault_of(
    row: Row,
    other: Row | None,
    place: Place,
    sources: Sources,
    graph: Pass,
    rule: Rule,
    right: set[str],
) -> Fault:
    """The fault that one row shows. `right`: the taps that agree."""
    seen = sources.seen(row, other)
    evidence, context = sources.of_row(seen), sources.context(seen)
    made = graph.made_by.get(f"{row.stage}/{row.tap}")
    operation = (made.operation or made.module) if made else ""
    if wrong := of_sum(seen, sources, graph):
        before = graph.before(place.name) or "the inputs"
        text = f"{BETWEEN}{before} and {place.name}, outside of modules, the candidate computes "
        text += f"another function: {wrong.text}" if wrong.code == "sum" else wrong.text
        return Fault((wrong.code, text), "another function", wrong.code, text, "", "recomputing")
    if place.kind == "state":
        kind_of, text = unequal_weight(row, sources)
        return Fault(("state", kind_of), "other state", "state", text, "parameter", "state")
    cause = likely(row, evidence, context, rule, sources.failed) if evidence else None
    less = why_less_precise(row, other, context, cause[0] if cause else None, evidence)
    if less:
        of_module = operation or graph.operation_of(place)
        behind = place.kind == "backward" and not place.isolated
        text = f"{ABOUT['backward'] if behind else ''}{less[1]}"
        return Fault((less[0], of_module), "less precise", less[0], text, of_module, "numbers")
    if cause:
        code, text = cause[0].code, cause[0].text
        kind = class_of(code)
        shown: Sureness = (
            "recomputing" if cause[1] else "state" if kind == "other state" else "numbers"
        )
        related = () if cause[1] or kind == "other state" else (place.kind,)
        text = f"{ABOUT.get(place.kind, '')}{text}" if related else text
        group = operation or (place.kind if place.kind != "forward" else "")
        if row.stage.endswith("inputs"):  # what a module reads is made before it
            before = graph.before(place.name) or "the inputs"
            text, group = f"between {before} and {place.name}, outside of modules: {text}", ""
        owner = "framework" if is_frameworks(row, sources) else ""  # not one with the port's own
        return Fault((code, text, operation, owner, *related), kind, code, text, group, shown)
    text, key = unknown(row, place, graph, right)
    if place.isolated:  # two classes that are wrong have two causes
        key = (*key, operation, *code_of(row, sources))
    return Fault(key, "another function", "", text, operation or place.kind, "place")


def unknown(row: Row, place: Place, graph: Pass, right: set[str]) -> tuple[str, tuple[str, ...]]:
    """What is said of a row without a known cause, and the key of its group.

    A function outside of modules is said to differ where a tap has no module, or where the module
    agrees alone; not where all that the module reads agrees. `right`: the taps that agree.
    """
    made = graph.made_by.get(f"{row.stage}/{row.tap}")
    if not place.isolated and place.kind == "forward":
        reads = made.reads if made and row.stage.endswith("forward") else ()
        alone = f"isolated {row.stage}/{row.tap}" in right or f"isolated forward/{row.tap}" in right
        if not reads or (alone and not right.issuperset(reads)):
            before = graph.before(place.name) or "the inputs"
            text = (
                f"{BETWEEN}{before} and {place.name}, outside of modules, the candidate computes "
            )
            text += f"another function; {UNKNOWN}"
            return text, (text,)
    what = OTHER.get(place.kind, "the numbers differ")
    if (place.isolated and place.kind == "backward") or place.name.startswith(INPUT):
        what = OF_INPUT
    text = f"{what}: {row.reason}" if row.reason else f"{what}; {UNKNOWN}"
    return text, (what,) if place.isolated else (place.kind, place.name)


def is_frameworks(row: Row, sources: Sources) -> bool:
    """Whether the candidate's module of a row is its framework's own."""
    name = str(sources.main.candidate.producer("name")) if sources.main else ""
    return bool(name) and code_of(row, sources)[1].startswith(f"{name}/")


def right_taps(rows: Sequence[Row]) -> set[str]:
    """The taps that agree in every precision."""
    verdicts: dict[str, set[str]] = {}
    for row in rows:
        verdicts.setdefault(f"{row.stage}/{row.tap}", set()).add(row.verdict)
    return {tap for tap, found in verdicts.items() if found <= {"equivalent", "vacuous"}}


def of_sum(row: Row, sources: Sources, graph: Pass) -> Cause | None:
    """What the candidate computes in the place of a sum outside of modules, if it is no sum."""
    evidence = sources.of_row(row)
    return broken_sum(row, evidence, graph) if evidence else None


def has_own_state(row: Row, sources: Sources) -> bool:
    """Whether a row shows a cause of state, such as no gradient at all, that no fault brings."""
    if place_of(row.stage, row.tap).kind not in ("gradients", "update", "random"):
        return False
    evidence = sources.of_row(row)
    if evidence is None:
        return False
    return state_cause(row, evidence, sources.context(row)) is not None
