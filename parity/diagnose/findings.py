"""Findings from faults, and from settings that differ without any tap that shows it."""

from collections.abc import Iterator, Mapping, Sequence

from parity.comparison.verdict import Row
from parity.diagnose.faults import Fault
from parity.diagnose.finding import Finding
from parity.diagnose.reach import Pass
from parity.diagnose.sources import Sources
from parity.diagnose.stages import DIRECTIONS, place_of
from parity.diagnose.state import label_of
from parity.diagnose.structure import Difference
from parity.diagnose.upstream import Entry, in_short, known_fault
from parity.diagnose.where import codes_of, where_of
from parity.diagnose.words import BETWEEN, error_of, in_words, lost_of, sentence_of


def finding_of(
    fault: Fault, sources: Sources, settings: Mapping[str, Difference], graph: Pass
) -> Finding:
    """The finished finding of a fault."""
    first = fault.first
    place = place_of(first.stage, first.tap)
    seen = dict.fromkeys(f"{row.stage}/{row.tap}" for row in [*fault.rows, *fault.folded])
    differ = dict.fromkeys(settings[p].text for p in with_settings(fault, settings))
    where = where_of(first, sources, graph, fault.text.startswith(BETWEEN))
    label = label_of(first, sources) if fault.code == "state" else ""
    text = sentence_of(fault, where, "; ".join(differ), label)
    direction = DIRECTIONS.get(place.kind, "forward")
    is_set = any(f" {fault.code} " in f" {words} " for words in differ)  # by the port itself
    known, sure = (None, False) if is_set else known_of(fault, sources, graph, direction)
    text += f". {in_short(known, sure)}" if known else ""
    causes = ((fault.code, in_words(fault.text)),) if fault.code else ()
    return Finding(
        first.case,
        first.pair,
        first.precision,
        first.stage,
        first.tap,
        direction,  # type: ignore[arg-type]
        causes,
        text,
        fault.kind,
        tuple(fault.places),
        tuple(seen),
        where.source,
        fault.shown_by,
        error_of(fault),
        lost_of(fault),
        known.id if known and sure else "",
    )


def known_of(
    fault: Fault, sources: Sources, graph: Pass, direction: str
) -> tuple[Entry | None, bool]:
    """The known fault of the candidate's framework that this is, if it is one; is it sure?"""
    if sources.main is None:
        return None, False
    sides = (sources.main.baseline, sources.main.candidate)
    frameworks = [str(side.producer("name")) for side in sides]
    return known_fault(frameworks, fault.code, direction, codes_of(fault.rows, sources, graph))


def with_settings(fault: Fault, settings: Mapping[str, Difference]) -> list[str]:
    """The modules of a fault whose settings differ; that of a statistic is its batch norm."""
    modules = [m for place in fault.places for m in (place, place.rpartition(".")[0])]
    return [module for module in dict.fromkeys(modules) if module in settings]


def unshown(settings: Mapping[str, Difference], rows: Sequence[Row]) -> Iterator[Finding]:
    """Settings that differ and that no finding tells of."""
    groups: dict[str, list[str]] = {}
    for place, difference in settings.items():
        groups.setdefault(difference.text, []).append(place)
    first = next(iter(rows), None)
    for text, places in groups.items():
        if first is None:
            return
        count = f", in {len(places)} modules" if len(places) > 1 else ""
        sentence = f"{text}{count} (first {places[0]}); no tap shows it by itself"
        yield Finding(
            first.case,
            first.pair,
            first.precision,
            "forward",
            places[0],
            "forward",
            (("settings", text),),
            sentence,
            "other structure",
            tuple(places),
            (),
            settings[places[0]].source,
            "settings",
        )
