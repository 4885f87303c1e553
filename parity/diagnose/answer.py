"""The answer to "are they equal?": causes, each with the taps that it explains.

    result = answer(rows, pairs, one_sided)      # pairs: the Evidence that the rows were judged by
    for finding in result.findings:
        print(finding.text)

Rows are explained in this order:

1. *Names and layouts* (`matched.py`), *settings* that differ between the two manifests, and what
   only one side has. A tap whose numbers only lie in another order is not looked at further.
2. *State*: parameters and buffers that are unequal at the start (`state.py`).
3. *Isolated modules*. Each was fed with the baseline's numbers, so each that differs has a fault
   of its own. The cause is recomputed from these numbers. Equal causes in many modules are
   one finding.
4. *Whole passes*, in the order of computation: evaluation before training, forward before backward.
   A tap that a known fault can reach follows from it, and is folded. A tap that none can reach is a
   finding of its own: a function outside of modules, or one whose modules were not recorded alone.

`reach.py` says what a fault can reach, and `sizes.py` how large an error it can bring. A finding
explains no row of a worse verdict than its own. A difference in float32 alone explains none in
float64. `undecided` rows become no findings.

Findings are sorted by class: another function, other state, less precise, other structure. In a
class, those come last whose error is below a hundredth of the largest. Of the others, and of these,
the surest come first: recomputed, seen in the settings, in the state, by a relation of the two
arrays, or by the place alone. Then the order of computation counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

from parity.comparison.missing import stages_of_outputs
from parity.comparison.verdict import Evidence, OneSided, Row, Verdict, worst
from parity.diagnose.causes.hypothesis import Rule
from parity.diagnose.causes.rules import rule_for
from parity.diagnose.detached import CODE as DETACHED
from parity.diagnose.detached import NO_GRADIENT, Stopped, stopped, with_detached
from parity.diagnose.faults import Fault, explained_by, with_one_reason, without_repeated_dropout
from parity.diagnose.finding import Finding, Kind
from parity.diagnose.findings import finding_of, unshown, with_settings
from parity.diagnose.limits import limits_of
from parity.diagnose.matched import matched_findings, not_matched, true_layouts
from parity.diagnose.outputs import (
    CODE,
    auxiliary_parameters,
    fault_of_loss,
    output_differences,
    output_findings,
    taps_of_outputs,
    with_auxiliary,
)
from parity.diagnose.reach import Pass, pass_of
from parity.diagnose.shown import fault_of, has_own_state, of_sum, right_taps
from parity.diagnose.sizes import FACTOR
from parity.diagnose.sources import BAD, Sources
from parity.diagnose.stages import ORDER, Place, module_of, place_of
from parity.diagnose.structure import (
    SETTINGS,
    one_sided_findings,
    setting_differences,
    with_one_sided,
)
from parity.matching.named import Found

SURENESS = ("recomputing", "settings", "state", "numbers", "place")
CLASSES: tuple[Kind, ...] = (
    "another function",
    "other state",
    "less precise",
    "other structure",
)


@dataclass(frozen=True)
class Answer:
    """Findings in the order of the module's text, and what is left open."""

    verdict: Verdict
    findings: tuple[Finding, ...]
    open: tuple[Row, ...]  # undecided rows that follow from no finding
    begins: Row | None  # the first row, in the order of computation, that has the worst verdict
    limits: tuple[str, ...] = ()  # what these recordings cannot show, a sentence each


def answer(
    rows: Sequence[Row],
    pairs: Sequence[Evidence],
    one_sided: OneSided | None = None,
    rule: Rule = rule_for,
    found: Found | None = None,
) -> Answer:
    """The findings that explain the rows of one comparison.

    Args:
        rows: all rows, of whole passes and isolated modules, in any precision.
        pairs: the comparisons that these rows are from.
        one_sided: the taps that only one side has.
        rule: the known mistakes of a tap's operation.
        found: how the names and layouts of the pair fit together.
    """
    findings: list[Finding] = []
    left: list[Row] = []
    failed: dict[str, str] = {}
    ordered: list[Row] = []  # of the computation
    for case in dict.fromkeys(row.case for row in rows):
        own = [row for row in rows if row.case == case]
        mine = [pair for pair in pairs if str(pair.baseline.manifest.get("case", "")) == case]
        sources = Sources(mine, failed=failed)
        graph = pass_of(sources.main.baseline) if sources.main else Pass()
        known, undecided, missing = explain_case(
            own, sources, graph, one_sided or OneSided(), rule, found or Found()
        )
        findings += known
        left += undecided
        own += missing
        ordered += sorted(own, key=lambda row: (rank(row, graph)[:-1], row.precision == "float64"))
    verdict, limits = worst([row.verdict for row in rows]), limits_of(pairs, failed)
    layouts = (found or Found()).layouts  # a finding says so: the numbers are the same
    others = [row for row in ordered if f"{row.stage}/{row.tap}" not in layouts]
    begins = first_row(others, verdict) or first_row(ordered, verdict)
    return Answer(verdict, tuple(findings), tuple(left), begins, tuple(limits))


def first_row(rows: Sequence[Row], verdict: Verdict) -> Row | None:
    """The first row with the worst verdict: of whole passes, else of isolated modules.

    In float32 if there is one: a difference in float64 alone is small, and seldom what to mend.
    That a mode draws random numbers is no place: it comes last of a pass.
    """
    if verdict in ("equivalent", "vacuous"):
        return None
    bad = [row for row in rows if row.verdict == verdict]
    whole = [row for row in bad if not row.stage.startswith("isolated")]
    computed = [row for row in whole if place_of(row.stage, row.tap).kind != "random"]
    short = [row for row in computed if row.precision != "float64"]
    return next(iter([*short, *computed, *whole, *bad]), None)


def explain_case(
    rows: Sequence[Row],
    sources: Sources,
    graph: Pass,
    one_sided: OneSided,
    rule: Rule,
    found: Found,
) -> tuple[list[Finding], list[Row], list[Row]]:
    """The findings of one case, its undecided rows that follow from none, and rows for gradients
    that one side lacks since it detaches an output."""
    main = sources.main
    settings = setting_differences(main) if main else {}
    outputs = output_differences(one_sided, stages_of_outputs(main) if main else ())
    auxiliary = auxiliary_parameters(main.baseline) if main and outputs else set()
    found = true_layouts(found, rows, graph)
    rows = [row for row in rows if row.stage != SETTINGS]  # `settings` says it
    told = {*found.layouts, *one_sided.baseline, *one_sided.candidate}
    bad = [r for r in rows if r.verdict in BAD and f"{r.stage}/{r.tap}" not in told]
    exact = {(row.stage, row.tap): row for row in rows if row.precision == "float64"}
    near = {(row.stage, row.tap): row for row in rows if row.precision != "float64"}
    right = right_taps(rows)
    detached = Stopped()
    if any(row.verdict in BAD for row in rows):
        detached = stopped(bad, one_sided, sources, graph, outputs)
    faults: list[Fault] = []
    for row in sorted([*bad, *detached.rows], key=lambda row: rank(row, graph)):
        other = (near if row.precision == "float64" else exact).get((row.stage, row.tap))
        seen = sources.seen(row, other)
        known, place = explained_by(row, faults, graph), place_of(row.stage, row.tap)
        follows = known and (
            known.leaves_unused(row)
            or (known.code == CODE and place.name in auxiliary)
            or (known.code == DETACHED and detached.has(place.name, place.training))
        )
        stops = detached.starts(place)
        own = stops or (not follows and has_own_state(seen, sources))
        if known and not (own or of_sum(seen, sources, graph)):
            known.fold(row, place, graph)
            continue
        if row in detached.rows and not stops:
            continue  # it has no numbers to look at
        if place.kind == "loss" and place.training in outputs:
            new = fault_of_loss(outputs[place.training])
        elif stops:
            new = detached.fault(place)
        else:
            new = fault_of(row, other, place, sources, graph, rule, right)
        add_row(row, place, new, faults, graph)
    faults = without_repeated_dropout(with_one_reason(faults))
    left: list[Row] = []
    for row in (row for row in rows if row.verdict == "undecided"):
        fault = explained_by(row, faults, graph, of_any_size=True)
        (fault.folded if fault else left).append(row)
    findings = []
    for fault in faults:
        finding = with_one_sided(finding_of(fault, sources, settings, graph), one_sided)
        for module in with_settings(fault, settings):  # each is said once
            del settings[module]
        finding, one_sided = with_auxiliary(finding, auxiliary, one_sided)
        finding, one_sided = with_detached(finding, detached, one_sided)
        findings.append(finding)
    findings += list(matched_findings(found, rows))
    findings += list(one_sided_findings(rows, one_sided.without(not_matched(found)), findings))
    findings += list(output_findings(rows, outputs, faults, taps_of_outputs(one_sided)))
    findings += list(unshown(settings, rows))
    missing = [replace(row, error=inf, reason=NO_GRADIENT) for row in detached.rows]
    return by_importance(findings), left, missing


def by_importance(findings: Sequence[Finding]) -> list[Finding]:
    """The findings by class, those of far smaller errors last in it, then the surest first."""
    largest = {
        kind: max((f.error for f in findings if f.kind == kind and f.error > 0), default=0.0)
        for kind in CLASSES
    }

    def key(finding: Finding) -> tuple[int, bool, int]:
        is_small = finding.error * FACTOR < largest[finding.kind]  # not where it has no size
        return CLASSES.index(finding.kind), is_small, SURENESS.index(finding.shown_by)

    return sorted(findings, key=key)


def rank(row: Row, graph: Pass) -> tuple[int, ...]:
    """The order in which rows are explained; see the module's text."""
    place = place_of(row.stage, row.tap)
    kind = ORDER.index(place.kind)
    at = graph.place(module_of(place.name))
    if place.kind == "backward":
        at = -at
    inner = int(row.stage.endswith("forward"))  # a module's input is before its output
    first = 0 if place.kind == "state" else 1 if place.isolated else 2
    shorter = int(row.precision != "float64")
    if row.verdict == "less precise":  # float32 shows more of the digits that are lost
        shorter = 2 - shorter
    mode = 2 * int(place.training) if not place.isolated else kind
    return (first, mode, kind, at, inner, shorter)


def add_row(row: Row, place: Place, fault: Fault, faults: list[Fault], graph: Pass) -> None:
    """Add a row to the known fault that it shows, else to a new one."""
    known = next((each for each in faults if each.key == fault.key), None)
    if known is None:
        known = fault
        faults.append(fault)
    known.add(row, place, graph)
