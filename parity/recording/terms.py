"""How many terms a gradient or a running statistic sums, for the bound (`terms` of the manifest).

The gradient by a bias, or by the weight of a norm, is a plain sum over all positions: as many terms
as the output has numbers for each of the parameter's. Libraries add them in different ways, also
one by one, so that the rounding error may reach the square root of their number. The same holds for
the mean of a batch, which a running statistic follows.
"""

from collections.abc import Iterable, Mapping

from parity.comparison.sketch import Array
from parity.recording.recorder import ModuleCall


def gradient_terms(
    calls: Iterable[ModuleCall],
    taps: Mapping[str, Array],
    outputs: str,
    gradients: str,
    repeat: str = "",
) -> dict[str, int]:
    """Tap of the gradient by a parameter of one axis -> terms of its sums, over all its calls.

    Args:
        calls: module calls whose outputs and gradients are in `taps`.
        outputs: what stands before the name of a call in its output's tap.
        gradients, repeat: the same for the name of a parameter, and what stands behind it.
    """
    terms: dict[str, int] = {}
    for call in calls:
        first = next(iter(call.outputs), "")
        end = first.partition(f"forward/{call.name}")[2]  # `.0` of the first of several outputs
        output = taps.get(f"{outputs}{call.name}{end}")
        for parameter in call.module.parameters:
            tap = f"{gradients}{parameter}{repeat}"
            gradient = taps.get(tap)
            if output is not None and gradient is not None and gradient.ndim == 1 and gradient.size:
                terms[tap] = terms.get(tap, 0) + output.size // gradient.size
    return {tap: count for tap, count in terms.items() if count > 1}


def statistic_terms(
    calls: Iterable[ModuleCall],
    taps: Mapping[str, Array],
    outputs: str,
    statistics: str,
    state: Mapping[str, Array],
    repeat: str = "",
) -> dict[str, int]:
    """Tap of a running statistic of one axis -> terms of the mean that it follows.

    Args:
        calls, taps, outputs, repeat: as in `gradient_terms`.
        statistics: what stands before the name of a statistic in its tap.
        state: parameters and buffers of this side, by name.
    """
    terms: dict[str, int] = {}
    for call in calls:
        output = taps.get(f"{outputs}{call.name}")
        for name in call.module.buffers:
            value = state.get(name)
            if output is None or value is None or value.ndim != 1 or value.dtype.kind != "f":
                continue
            if value.size and output.size // value.size > 1:
                terms[f"{statistics}{name}{repeat}"] = output.size // value.size
    return terms
