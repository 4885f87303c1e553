"""What one side lacks although it decides the function: the model's outputs, and gradients.

Most taps of one side alone have no verdict, because the other side may be written in other modules.
An output that is not returned and a parameter that gets no gradient are differences by themselves.
"""

from collections.abc import Iterator

from parity.comparison.judge import judge_tap
from parity.comparison.trace import Trace
from parity.comparison.verdict import Evidence, OneSided, Row

OUTPUT = "output"  # the model's only or first output; others are `output.1`, `output.logits`


def missing_rows(evidence: Evidence, one_sided: OneSided) -> list[Row]:
    """A row, `different`, for each tap that only one side has and that decides the function."""
    outputs = [tap for tap in one_sided.baseline + one_sided.candidate if is_output(tap)]
    known = stages_of_outputs(evidence)
    names = [tap for tap in outputs if tap.partition("/")[0] in known]
    names += missing_gradients(evidence, one_sided)
    return [judge_tap(name, evidence) for name in dict.fromkeys(names)]


def is_output(name: str) -> bool:
    """Whether a tap is an output of the model in a whole pass."""
    stage, _, tap = name.partition("/")
    return stage in ("forward", "training forward") and tap.partition(".")[0] == OUTPUT


def stages_of_outputs(evidence: Evidence) -> set[str]:
    """The stages in which both sides recorded outputs: a framework may lack training."""
    sides = (evidence.baseline, evidence.candidate)
    first, second = ({n.partition("/")[0] for n in t.taps if is_output(n)} for t in sides)
    return first & second


def stages_of_gradients(trace: Trace) -> set[str]:
    """The stages in which a trace has gradients, or would have some if the loss had any."""
    recorded = {name.partition("/")[0] for name in trace.taps}
    if "gradients" in (trace.manifest.get("abilities") or ()):
        modes = [stage.removesuffix("forward") for stage in recorded if stage.endswith("forward")]
        recorded |= {mode + kind for mode in modes for kind in ("gradients", "backward")}
    return recorded


def missing_gradients(evidence: Evidence, one_sided: OneSided) -> Iterator[str]:
    """Gradients of the baseline by parameters that both sides have, and by inputs.

    The candidate must be able to record gradients in that stage.
    """
    taps = evidence.candidate.taps
    recorded = stages_of_gradients(evidence.candidate)
    for name in one_sided.baseline:
        stage, _, tap = name.partition("/")
        known = tap.startswith("input:") or f"parameters/{tap}" in taps
        if stage in ("gradients", "training gradients") and stage in recorded and known:
            yield name
