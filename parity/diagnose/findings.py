"""Findings from faults, and from settings that differ without any tap that shows it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from parity.comparison.verdict import Row
from parity.diagnose.faults import Fault
from parity.diagnose.finding import Finding
from parity.diagnose.sources import Sources
from parity.diagnose.stages import DIRECTIONS, module_of, place_of
from parity.diagnose.state import label_of
from parity.diagnose.structure import Difference
from parity.diagnose.words import error_of, in_words, lost_of, sentence_of


def finding_of(fault: Fault, sources: Sources, settings: Mapping[str, Difference]) -> Finding:
    """The finished finding of a fault."""
    first = fault.first
    place = place_of(first.stage, first.tap)
    seen = dict.fromkeys(f"{row.stage}/{row.tap}" for row in [*fault.rows, *fault.folded])
    differ = dict.fromkeys(settings[p].text for p in with_settings(fault, settings))
    module, source = code_of(first, sources)
    label = label_of(first, sources) if fault.code == "state" else ""
    behind = place.kind == "backward" and not place.isolated  # the fault is not in this module
    module, source = ("", "") if behind else (module, source)
    text = sentence_of(fault, f"{module} in {source}" if source else "", "; ".join(differ), label)
    direction = DIRECTIONS.get(place.kind, "forward")
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
        source,
        fault.shown_by,
        error_of(fault),
        lost_of(fault),
    )


def with_settings(fault: Fault, settings: Mapping[str, Difference]) -> list[str]:
    """The modules of a fault whose settings differ; that of a statistic is its batch norm."""
    modules = [m for place in fault.places for m in (place, place.rpartition(".")[0])]
    return [module for module in dict.fromkeys(modules) if module in settings]


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
