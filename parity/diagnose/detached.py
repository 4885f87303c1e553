"""Outputs of modules that a gradient reaches on one side alone: the other side detaches them.

A detached output has no gradient, or one of zeros. So have the modules before it that it is
computed from, and their parameters. All gradients further back differ, for they lack this part.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from parity.comparison.judge import row_without_numbers
from parity.comparison.measure import norm, size_of
from parity.comparison.verdict import Evidence, OneSided, Row
from parity.diagnose.faults import Fault, owner_of
from parity.diagnose.finding import Finding
from parity.diagnose.reach import Pass
from parity.diagnose.sizes import OF_GRADIENTS
from parity.diagnose.sources import Sources, has_stage
from parity.diagnose.stages import Place, place_of

CODE = "detached"
STAGES = {"backward": "forward", "training backward": "training forward"}
TEXTS = {
    "candidate": "the candidate detaches an output: no gradient reaches it",
    "baseline": "the baseline detaches an output, the candidate does not: a gradient reaches it",
}
LEAST = 0.5  # relative error, at least, where one array is zeros; that of a sketch is estimated


@dataclass
class Stopped:
    """Per mode (training or not): outputs that no gradient reaches, and the side that stops it."""

    sides: dict[bool, dict[str, str]] = field(default_factory=lambda: {False: {}, True: {}})
    points: dict[bool, set[str]] = field(default_factory=lambda: {False: set(), True: set()})
    rows: list[Row] = field(default_factory=list)  # of taps that one side lacks; for explaining

    def starts(self, place: Place) -> bool:
        """Whether a gradient stops at this output, and not at a later one."""
        return (
            place.kind == "backward"
            and not place.isolated
            and place.name in self.points[place.training]
        )

    def has(self, parameter: str, training: bool) -> bool:
        """Whether the module of a parameter is among them."""
        return owner_of(parameter) in self.sides[training]

    def fault(self, place: Place) -> Fault:
        """The fault of an output at which a gradient stops."""
        text = TEXTS[self.sides[place.training][place.name]]
        return Fault((CODE, text), "other state", CODE, text, "", "state")


def with_detached(
    finding: Finding, detached: Stopped, one_sided: OneSided
) -> tuple[Finding, OneSided]:
    """The finding of detached outputs with what one side lacks because of it, and the other taps of
    one side. A finding of another cause is returned as it is."""
    if finding.code != CODE:
        return finding, one_sided
    mine = []
    for name in (*one_sided.baseline, *one_sided.candidate):
        place = place_of(*name.split("/", 1))
        if place.kind in OF_GRADIENTS and not place.isolated:
            is_output = place.name in detached.sides[place.training]
            if is_output or detached.has(place.name, place.training):
                mine.append(name)
    explained = tuple(dict.fromkeys([*finding.explained, *mine]))
    return replace(finding, explained=explained), one_sided.without(mine)


def stopped(rows: Sequence[Row], one_sided: OneSided, sources: Sources, graph: Pass) -> Stopped:
    """The outputs that no gradient reaches on one side, from taps that it lacks and from zeros.

    Args:
        rows: those that differ.
    """
    found = Stopped()
    places = [place_of(row.stage, row.tap) for row in rows]
    modes = {place.training for place in places if place.kind in OF_GRADIENTS}
    for name in (*one_sided.baseline, *one_sided.candidate):
        stage, _, tap = name.partition("/")
        place = place_of(stage, tap)
        if stage not in STAGES or place.training not in modes:
            continue
        for pair in sources.pairs:
            if side := side_without(name, f"{STAGES[stage]}/{place.name}", pair):
                found.sides[place.training][place.name] = side
                row = row_without_numbers(stage, tap, pair)
                found.rows.append(replace(row, reason=CODE))
    for row, place in zip(rows, places, strict=True):
        if row.stage in STAGES and (side := side_of_zeros(row, sources.of_row(row))):
            found.sides[place.training][place.name] = side
    for training, sides in found.sides.items():
        read = readers(training, graph)
        found.points[training] = {
            name for name in sides if not read.get(name) or read[name] - sides.keys()
        }
    return found


def side_of_zeros(row: Row, pair: Evidence | None) -> str:
    """The side that alone has zeros in a row; empty if there is none."""
    name = f"{row.stage}/{row.tap}"
    if pair is None or row.error < LEAST:
        return ""
    values = {"baseline": pair.baseline.taps[name], "candidate": pair.candidate.taps[name]}
    zeros = [side for side, value in values.items() if size_of(value) and not norm(value)]
    return zeros[0] if len(zeros) == 1 else ""


def side_without(backward: str, forward: str, pair: Evidence) -> str:
    """The side without a gradient by an output that both compute; empty if that is not so.

    It records other gradients, and the other side's gradient is not zero.
    """
    traces = {"baseline": pair.baseline, "candidate": pair.candidate}
    lacking = [side for side, trace in traces.items() if backward not in trace.taps]
    if len(lacking) != 1 or not all(forward in trace.taps for trace in traces.values()):
        return ""
    stage = backward.partition("/")[0]
    if not has_stage(traces[lacking[0]], stage):
        return ""
    (value,) = (trace.taps[backward] for trace in traces.values() if backward in trace.taps)
    return lacking[0] if norm(value) else ""


def readers(training: bool, graph: Pass) -> dict[str, set[str]]:
    """Output of a module -> the outputs that are computed from it, as far as modules tell."""
    found: dict[str, set[str]] = {}
    for whole in graph.taps.get(training, ()):
        made = graph.made_by.get(whole)
        for read in made.reads if made and "forward" in whole.partition("/")[0] else ():
            found.setdefault(read.partition("/")[2], set()).add(whole.partition("/")[2])
    return found
