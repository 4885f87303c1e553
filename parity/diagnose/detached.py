"""Outputs of modules that a gradient reaches on one side alone, where both compute the same.

Such an output is detached: it has no gradient, or one of zeros. So have the modules before it that
only it is computed from, and their parameters. Gradients further back lack this part. Where the
outputs of the model differ, the output may be left out instead, so nothing is said of it here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from parity.comparison.judge import row_without_numbers
from parity.comparison.measure import norm, size_of
from parity.comparison.missing import stages_of_gradients
from parity.comparison.verdict import Evidence, OneSided, Row
from parity.diagnose.faults import Fault, is_part, owner_of, params_of
from parity.diagnose.finding import Finding
from parity.diagnose.reach import Pass
from parity.diagnose.sizes import OF_GRADIENTS
from parity.diagnose.sources import Sources
from parity.diagnose.stages import Place, module_of, place_of
from parity.listing import some

CODE = "detached"
STAGES = {"backward": "forward", "training backward": "training forward"}
LEAST = 0.5  # relative error, at least, where one array is zeros; that of a sketch is estimated
NO_GRADIENT = "one side has no gradient here"


@dataclass
class Stopped:
    """Per mode (training or not): outputs that no gradient reaches, and the side that stops it.

    `known`: the outputs that have a gradient on a side.
    """

    known: dict[bool, set[str]] = field(default_factory=lambda: {False: set(), True: set()})
    sides: dict[bool, dict[str, str]] = field(default_factory=lambda: {False: {}, True: {}})
    points: dict[bool, set[str]] = field(default_factory=lambda: {False: set(), True: set()})
    rows: list[Row] = field(default_factory=list)  # for gradients that one side lacks

    def starts(self, place: Place) -> bool:
        """Whether a gradient stops at this output, and not at a later one."""
        of_pass = place.kind == "backward" and not place.isolated
        return of_pass and place.name in self.points[place.training]

    def has(self, name: str, training: bool) -> bool:
        """Whether a parameter gets no gradient because of it: no call of its module gets one."""
        owner, sides = owner_of(name), self.sides[training]
        calls = [tap for tap in self.known[training] if owner and is_part(owner, module_of(tap))]
        found = {sides.get(call) for call in calls}
        return len(found) == 1 and None not in found

    def fault(self, place: Place) -> Fault:
        """The fault of an output at which a gradient stops."""
        stops = self.sides[place.training]
        text = f"the {stops[place.name]} alone detaches an output: no gradient reaches it"
        if others := [name for name in stops if name not in self.points[place.training]]:
            text += f", nor {some(others)} before it"
        return Fault((CODE, stops[place.name]), "other state", CODE, text, "", "state")


def with_detached(
    finding: Finding, detached: Stopped, one_sided: OneSided
) -> tuple[Finding, OneSided]:
    """The finding of detached outputs with what one side lacks because of it, and the other taps of
    one side. A finding of another cause is returned as it is."""
    if finding.code != CODE:
        return finding, one_sided
    mine = []
    lists = {"candidate": one_sided.baseline, "baseline": one_sided.candidate}
    for side, names in lists.items():
        for name in names:
            place = place_of(*name.split("/", 1))
            if place.kind not in OF_GRADIENTS or place.isolated:
                continue
            stops = detached.sides[place.training]
            is_input = place.name.startswith("input:") and side in stops.values()
            if place.name in stops or is_input or detached.has(place.name, place.training):
                mine.append(name)
    explained = tuple(dict.fromkeys([*finding.explained, *mine]))
    return replace(finding, explained=explained), one_sided.without(mine)


def stopped(
    rows: Sequence[Row],
    one_sided: OneSided,
    sources: Sources,
    graph: Pass,
    outputs: Mapping[bool, str],
) -> Stopped:
    """The outputs that no gradient reaches on one side, from taps that it lacks and from zeros.

    Args:
        rows: those that differ.
        outputs: modes, training or not, in which the sides return other outputs.
    """
    found = Stopped()
    for pair in sources.pairs:
        for stage, tap in (
            n.split("/", 1) for t in (pair.baseline, pair.candidate) for n in t.taps
        ):
            if stage in STAGES:
                place = place_of(stage, tap)
                found.known[place.training].add(place.name)
    frozen = frozen_parameters(rows, one_sided, sources)

    def add(name: str, training: bool, side: str) -> bool:
        if any((side, parameter) in frozen for parameter in params_of(name, graph)):
            return False
        found.sides[training][name] = side
        return True

    for whole in (*one_sided.baseline, *one_sided.candidate):
        stage, _, tap = whole.partition("/")
        place = place_of(stage, tap)
        for pair in sources.pairs if stage in STAGES else ():
            side = side_without(whole, f"{STAGES[stage]}/{place.name}", pair)
            if side and add(place.name, place.training, side):
                row = row_without_numbers(stage, tap, pair)  # as if that side had zeros
                found.rows.append(replace(row, error=1.0, pair_error=1.0))
    for row in rows:
        place = place_of(row.stage, row.tap)
        if row.stage in STAGES and (side := side_of_zeros(row, sources.of_row(row))):
            add(place.name, place.training, side)
    keep_sure(found, rows, outputs)
    for training in found.sides:
        found.points[training] = points_of(found.sides[training], training, graph)
    return found


def keep_sure(found: Stopped, rows: Sequence[Row], outputs: Mapping[bool, str]) -> None:
    """Where a mode computes other numbers, keep the outputs that are stopped in the other mode."""
    places = [place_of(row.stage, row.tap) for row in rows if row.verdict == "different"]
    unlike = {p.training for p in places if p.kind in ("forward", "loss") and not p.isolated}
    unlike |= outputs.keys()
    sure = {name for mode, names in found.sides.items() if mode not in unlike for name in names}
    for mode in unlike:
        found.sides[mode] = {n: side for n, side in found.sides[mode].items() if n in sure}

    def is_kept(row: Row) -> bool:
        place = place_of(row.stage, row.tap)
        return place.name in found.sides[place.training]

    found.rows = [row for row in found.rows if is_kept(row)]


def frozen_parameters(
    rows: Sequence[Row], one_sided: OneSided, sources: Sources
) -> set[tuple[str, str]]:
    """Side and parameter that gets no gradient even where its module runs alone."""
    lists = {"candidate": one_sided.baseline, "baseline": one_sided.candidate}
    found = [(side, tuple(name.split("/", 1))) for side, names in lists.items() for name in names]
    alone = [row for row in rows if place_of(row.stage, row.tap)[0::2] == (True, "gradients")]
    found += [(side_of_zeros(r, sources.of_row(r)), (r.stage, r.tap)) for r in alone]
    places = [(side, place_of(stage, tap)) for side, (stage, tap) in found]
    return {(side, p.name) for side, p in places if p.isolated and p.kind == "gradients"}


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
    if stage not in stages_of_gradients(traces[lacking[0]]):
        return ""
    (value,) = (trace.taps[backward] for trace in traces.values() if backward in trace.taps)
    return lacking[0] if norm(value) else ""


def points_of(sides: Mapping[str, str], training: bool, graph: Pass) -> set[str]:
    """The stopped outputs that no other stopped output is computed from, as far as reads tell.

    What a function outside of modules reads is not known. So an output without a reader may be read
    by each later output whose own input is made outside of modules.
    """
    read: dict[str, set[str]] = {}
    by_function = []  # stopped outputs whose inputs no module makes
    for whole in filter(is_forward, graph.taps.get(training, ())):
        name, made = whole.partition("/")[2], graph.made_by.get(whole)
        sources = [tap for tap in made.reads if is_forward(tap)] if made else []
        for tap in sources:
            read.setdefault(tap.partition("/")[2], set()).add(name)
        if name in sides and (made is None or len(sources) < len(made.reads)):
            by_function.append(graph.place(name))
    last = max(by_function, default=-1)
    return {
        name
        for name in sides
        if (read[name] - sides.keys() if name in read else graph.place(name) >= last)
    }


def is_forward(tap: str) -> bool:
    """Whether a tap is the output of a module."""
    return tap.partition("/")[0].rpartition(" ")[2] == "forward"
