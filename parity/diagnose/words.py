"""Findings in plain words."""

import re
from math import isfinite, log10, nan

from parity.comparison.verdict import Row
from parity.diagnose.faults import RANDOM, Fault
from parity.diagnose.precision import LEAST, lost_digits
from parity.diagnose.sizes import has_size
from parity.diagnose.sources import BAD
from parity.diagnose.stages import place_of
from parity.diagnose.where import Where

PLURALS = {
    "batch_norm": "batch norms",
    "layer_norm": "layer norms",
    "group norm": "group norms",
    "softmax": "softmaxes",
    "identity": "identities",
    "gradients": "parameters",
    "update": "parameters",
    "statistics": "running statistics",
    "backward": "gradients of activations",
    "loss": "losses",
}
# causes that are no matter of size
WITHOUT_SIZE = ("frozen", "detached", "dropout", "no dropout", "counter", "settings", "not finite")
# what differs in a tap of each kind, where no cause is known
OTHER = {
    "forward": "the output has other numbers",
    "loss": "the loss has another value",
    "backward": "the gradient by the output has other numbers, so what is computed from it differs",
    "gradients": "the gradient by the parameter has other numbers",
    "statistics": "the running statistics have other numbers",
    "update": "the step of the parameter has other numbers",
}
# what a relation of two arrays is about, where it is not about a module's output
ABOUT = {
    "backward": "in the gradient by the output, ",
    "gradients": "in the gradient by the parameter, ",
    "statistics": "in the running statistics, ",
    "update": "in the step of the parameter, ",
}
BETWEEN = "between "  # the first word on a function outside of modules
FAR = 10  # times the error of the place: the largest error of what follows is said
OF_INPUT = "the gradient by the input has other numbers"  # of a module alone
UNKNOWN = "no cause is known"


def many(count: int, operation: str) -> str:
    """`20 batch norms`; `20 places` if the operation has no name."""
    return f"{count} {PLURALS.get(operation, f'{operation}s' if operation else 'places')}"


def sentence_of(fault: Fault, at: Where, settings: str = "", label: str = "") -> str:
    """One sentence: what differs, where, how much, and how many further taps differ by it.

    Args:
        at: the candidate's own name of the place, and its code.
        settings: those of its places that differ, in words; may be empty.
        label: name and shape of the first place, if it is a parameter.
    """
    places, operation, own = fault.places, fault.operation, at.own
    if place_of(fault.first.stage, fault.first.tap).kind == "statistics" or (
        operation == "batch_norm"
    ):
        norms = list(dict.fromkeys(norm_of(place) for place in places))
        if norms != places and all(norms):
            places, operation, own = norms, "batch_norm", norm_of(own)
    own = f"in the candidate {own}" if own else ""
    read = f"which {at.readers} reads" if at.readers else ""
    where = ", ".join(word for word in (label or places[0], own, read, at.code) if word)
    parts = [in_words(fault.text)]
    if len(places) > 1:
        parts[0] += f", in {many(len(places), operation)} (first {where})"
    elif fault.text.startswith(BETWEEN):
        parts[0] += f" ({at.code})" if at.code else ""
    elif places[0] != RANDOM:
        parts[0] += f" ({where})"
    if settings:
        known = settings.count(" instead of ") == 1 and f" with {fault.code} " in settings
        parts.append("the settings say so too" if known else f"the settings: {settings}")
    parts += [size for size in [size_of(fault)] if size]
    follow = names_of(fault.folded) - names_of(fault.rows)
    if follow:
        words = f"{len(follow)} further tap{'s differ' if len(follow) > 1 else ' differs'}"
        rows = [row for row in fault.folded if row.verdict in BAD and has_size(row)]
        largest = max((row.error for row in in_pairs_precision(rows)), default=0.0)
        is_far = largest > FAR * error_of(fault)
        parts.append(f"{words}, by up to {largest:.2g}" if is_far else words)
    return "; ".join(parts)


def names_of(rows: list[Row]) -> set[str]:
    """The taps of rows, each once for all precisions."""
    return {f"{row.stage}/{row.tap}" for row in rows}


def size_of(fault: Fault) -> str:
    """How large the difference is, in words; empty where this means nothing."""
    rows = sized(fault)
    if not rows:
        return ""
    up_to = "up to " if len(names_of(rows)) > 1 else ""
    largest = max(rows, key=lambda row: row.error)
    if fault.kind != "less precise":
        bound = f" (bound {largest.bound:.2g})" if largest.bound else ""
        return f"the relative error is {up_to}{largest.error:.2g}{bound}"
    alone = "in float64 alone " if largest.precision == "float64" else ""
    if alone and largest.error > LEAST:
        return f"in float64 {int(-log10(largest.error))} digits agree"
    numbers = f"(error {largest.error:.2g}, bound {largest.bound:.2g})"
    return f"{alone}{up_to}{lost_of(fault):.1f} digits are lost {numbers}"


def sized(fault: Fault) -> list[Row]:
    """The rows that show a fault by themselves and have an error that means something.

    Those that failed in the pair's precision, if there are any: their bounds are what a user knows.
    """
    if fault.code in WITHOUT_SIZE or fault.kind == "other state" and fault.code == "state":
        return []
    names = names_of(fault.rows)
    rows = [row for row in [*fault.rows, *fault.folded] if f"{row.stage}/{row.tap}" in names]
    rows = [row for row in rows if row.verdict in BAD and isfinite(row.error) and row.error > 0]
    return in_pairs_precision(rows)


def in_pairs_precision(rows: list[Row]) -> list[Row]:
    """The rows that are not of float64, if there are any; else all."""
    return [row for row in rows if row.precision != "float64"] or rows


def error_of(fault: Fault) -> float:
    """The largest relative error among the rows that show a fault; NaN without one."""
    return max((row.error for row in sized(fault)), default=nan)


def lost_of(fault: Fault) -> float | None:
    """How many decimal digits are lost at most; None where the fault is of another class."""
    if fault.kind != "less precise":
        return None
    return max((round(lost_digits(row), 2) for row in sized(fault)), default=None)


def in_words(text: str) -> str:
    """A cause's sentence without its letters: A is the baseline, B the candidate."""
    text = text.replace("gives B", "gives the candidate's numbers and not the baseline's")
    text = re.sub(r"\bA's\b", "the baseline's", re.sub(r"\bB's\b", "the candidate's", text))
    return re.sub(r"\bA\b", "the baseline", re.sub(r"\bB\b", "the candidate", text))


def norm_of(name: str) -> str:
    """The module of a running statistic; the name itself, if it is none."""
    module, _, end = name.rpartition(".")
    return module if end in ("running_mean", "running_var") else name
