"""Findings and answers in plain words."""

from dataclasses import replace

from parity.diagnose.faults import Fault
from parity.diagnose.finding import explains
from parity.diagnose.stages import place_of
from parity.diagnose.structure import Difference

PLURALS = {
    "batch_norm": "batch norms",
    "layer_norm": "layer norms",
    "softmax": "softmaxes",
    "gradients": "parameters",
    "update": "parameters",
    "statistics": "running statistics",
    "backward": "gradients of activations",
    "loss": "losses",
}
SINGULAR = {"batch_norm": "batch norm", "layer_norm": "layer norm"}


def many(count: int, operation: str) -> str:
    """`20 batch norms`; `20 places` if the operation has no name."""
    return f"{count} {PLURALS.get(operation, f'{operation}s' if operation else 'places')}"


def sentence_of(fault: Fault, source: str, settings: Difference | None) -> str:
    """One sentence: what differs, where, and how many taps follow from it."""
    places, text = fault.places, fault.text
    where = ", ".join(word for word in (places[0], source) if word)
    if (
        fault.operation == "batch_norm"
        or place_of(fault.first.stage, fault.first.tap).kind == "statistics"
    ):
        modules = list(dict.fromkeys(norm_of(p) for p in places))
        if modules and modules != places and all(m for m in modules):
            places, where = modules, ", ".join(word for word in (modules[0], source) if word)
            fault = fault_with(fault, "batch_norm")
    if len(places) > 1:
        text += f", in {many(len(places), fault.operation)} (first {where})"
    elif not text.startswith("between "):
        text += f" ({where})"
    if settings:
        text += "; the settings say so too"
    taps = {f"{row.stage}/{row.tap}" for row in [*fault.rows, *fault.folded]}
    return text + explains(len(taps))


def norm_of(name: str) -> str:
    """The module of a running statistic; the name itself, if it is none."""
    module, _, end = name.rpartition(".")
    return module if end in ("running_mean", "running_var") else name


def fault_with(fault: Fault, operation: str) -> Fault:
    """The fault with another name of its operation."""
    return replace(fault, operation=operation)
