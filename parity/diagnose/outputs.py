"""Outputs of the model that only one side returns: the loss of all outputs then has other terms.

Auxiliary heads are the usual case: a model returns their outputs in training alone, and a port
computes and drops them. Their parameters then get no gradient, which follows from the same cause.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from parity.comparison.missing import OUTPUT
from parity.comparison.trace import Trace
from parity.comparison.verdict import OneSided, Row
from parity.diagnose.faults import Fault
from parity.diagnose.finding import Finding
from parity.diagnose.stages import Place, place_of
from parity.listing import some

CODE = "outputs"
SHOWN = 3  # names in a sentence


def output_differences(one_sided: OneSided, stages: Collection[str]) -> dict[bool, str]:
    """Training or not -> which outputs the candidate lacks or adds, in words; empty if none.

    `stages`: those in which both sides recorded outputs.
    """
    found: dict[bool, list[str]] = {}
    for taps, text in (
        (one_sided.baseline, "the candidate does not return"),
        (one_sided.candidate, "the candidate also returns"),
    ):
        for training in (False, True):
            names = [
                place.name
                for place in (
                    place_of(*t.split("/", 1)) for t in taps if t.partition("/")[0] in stages
                )
                if is_output(place) and (place.kind, place.training) == ("forward", training)
            ]
            if names:
                found.setdefault(training, []).append(f"{text} {some(names, SHOWN)}")
    return {training: ", and ".join(parts) for training, parts in found.items()}


def taps_of_outputs(one_sided: OneSided) -> list[str]:
    """The outputs that one side returns alone, and the gradients by them."""
    both = (*one_sided.baseline, *one_sided.candidate)
    return [tap for tap in both if is_output(place_of(*tap.split("/", 1)))]


def is_output(place: Place) -> bool:
    """Whether a place is an output of the whole model, or the gradient by one."""
    of_pass = place.kind in ("forward", "backward") and not place.isolated
    return of_pass and place.name.partition(".")[0] == OUTPUT


def auxiliary_parameters(trace: Trace) -> set[str]:
    """Parameters that have a gradient in training and none in evaluation, where others have one."""
    names: dict[bool, set[str]] = {False: set(), True: set()}
    for tap in trace.taps:
        place = place_of(*tap.split("/", 1))
        if place.kind == "gradients" and not place.isolated:
            names[place.training].add(place.name)
    return names[True] - names[False] if names[False] else set()


def with_auxiliary(
    finding: Finding, auxiliary: Collection[str], one_sided: OneSided
) -> tuple[Finding, OneSided]:
    """The finding of outputs with the gradients that the candidate lacks because of it, and the
    other taps of one side. A finding of another cause is returned as it is."""
    if finding.code != CODE:
        return finding, one_sided
    places = {tap: place_of(*tap.split("/", 1)) for tap in one_sided.baseline}
    mine = [t for t, p in places.items() if p.kind == "gradients" and p.name in auxiliary]
    mine += taps_of_outputs(one_sided)
    explained = tuple(dict.fromkeys([*finding.explained, *mine]))
    return replace(finding, explained=explained), one_sided.without(mine)


def fault_of_loss(text: str) -> Fault:
    """The fault of a loss that differs since its outputs do."""
    sentence = f"the loss has other terms: {text}"
    return Fault((CODE, text), "other structure", CODE, sentence, "loss", "settings")


def output_findings(
    rows: Sequence[Row],
    outputs: Mapping[bool, str],
    faults: Sequence[Fault],
    taps: Sequence[str] = (),
) -> Iterator[Finding]:
    """Outputs that one side lacks, where no loss tells so: one finding for both modes.

    `taps`: the outputs and the gradients by them (`taps_of_outputs`).
    """
    told = {fault.key[1] for fault in faults if fault.code == CODE}
    for text in dict.fromkeys(outputs.values()):
        first = next(iter(rows), None)
        if first is None or text in told:
            continue
        modes = [training for training, each in outputs.items() if each == text]
        where = "in training, " if modes == [True] else ""
        where = "in evaluation, " if modes == [False] and len(outputs) > 1 else where
        yield Finding(
            first.case,
            first.pair,
            first.precision,
            "training forward" if modes == [True] else "forward",
            OUTPUT,
            "forward",
            ((CODE, where + text),),
            where + text,
            "other structure",
            (OUTPUT,),
            tuple(taps),
            "",
            "settings",
        )
