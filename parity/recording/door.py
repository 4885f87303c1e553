"""Record a model of a running script, without a pair file: what `parity.torch.record` does."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from parity.comparison.sketch import Array
from parity.comparison.subject import array_facts
from parity.comparison.trace import environment, read_trace, write_trace
from parity.errors import ParityError
from parity.recording.adapter import adapter_of
from parity.recording.draw import single, ulp_moved
from parity.recording.following import Handed
from parity.recording.objective import check_update
from parity.recording.passes import record_pass
from parity.recording.subject import Subject

PRECISIONS = ("float32", "float64")


def record_model(
    framework: str,
    path: Path | str,
    model: Any,
    inputs: Mapping[str, Array],
    *,
    precision: str = "float32",
    variant: str | None = None,
    follow: Path | str | None = None,
    loss: str | Callable[[Sequence[Any], Mapping[str, Any]], Any] = "projection",
    update: Mapping[str, Any] | None = None,
    modes: Sequence[str] = ("eval",),
    seed: int = 0,
    targets: Mapping[str, Array] | None = None,
    name: str | None = None,
    case: str = "",
    settings: Mapping[str, Any] | None = None,
    sketch_above: int | None = None,
) -> list[str]:
    """Record one pass of a model from its present weights into a trace; the model stays as it is.

    Args:
        inputs: NumPy arrays by name, in the order of the model's arguments.
        precision: of the recording: float32 or float64, from weights in float32.
        variant: `ulp:N` moves every weight by one unit in the last place.
        follow: a trace whose choices at kinks are used where this model is near a tie.
        loss, update, modes, seed, targets: as in a pair file (`Pair`); targets are arrays.
        name: of the producer; default: the framework. Two traces of one framework that are
            compared need two names.
        case: a name for tables.
        settings: everything else that decides the function; equal in both traces.
        sketch_above: as in `write_trace`.

    Returns:
        list of str: notes, such as that training stays random with dropout off.

    Raises:
        ParityError: an option is wrong, or the trace cannot be written.
    """
    if precision not in PRECISIONS:
        raise ParityError(f"precision {precision!r}: expected one of {', '.join(PRECISIONS)}")
    adapter = adapter_of(framework)
    inputs = {key: single(array) for key, array in inputs.items()}  # in every precision
    with adapter.inside_script(precision) or nullcontext():
        facts = adapter.start(precision)
        adapter.examples = inputs
        kept = adapter.keep(model, whole=True)
        try:
            own = adapter.finish_build(model)
            state = {key: entry.array for key, entry in adapter.state(own).items()}
            named = {key: single(array) for key, array in state.items()}
            weights = {key: named[key].astype(array.dtype) for key, array in state.items()}
            moved = ulp_moved(weights, variant) if variant else weights
            subject = Subject(
                adapter,
                own,
                inputs,
                moved,
                loss,
                update,
                modes,
                seed,
                variant=variant,
                targets=targets or {},
            )
            handed = Handed.from_trace(read_trace(follow)) if follow else None
            if update and "update" in adapter.abilities:
                check_update(adapter, update)
            recording = record_pass(subject, handed, once=not variant)
        finally:
            if kept:
                kept.restore()
    manifest = {
        "producer": {"name": name or framework, **facts, **environment()},
        "precision": precision,
        "variant": variant,
        "case": case,
        "kind": "pass",
        "subject": {
            "weights": array_facts(named),
            "inputs": array_facts({**inputs, **(targets or {})}),
            "settings": dict(settings or {}),
        },
        "branch": recording.branch.names(handed) if "follow" in adapter.abilities else None,
        "kinks": recording.kinks,
        "operations": recording.operations,
        "layouts": adapter.layouts(own),
    }
    write_trace(path, recording.taps, manifest, sketch_above)
    return recording.notes
