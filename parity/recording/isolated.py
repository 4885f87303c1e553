"""Isolated replay: each leaf module alone, fed with what the baseline's module got.

Input and cotangent (the gradient by the output) are the baseline's float32 arrays, on both sides.
So an early difference does not reach later modules, and a faulty module shows by itself.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from parity.comparison.sketch import Array
from parity.comparison.trace import Trace
from parity.errors import ParityError
from parity.recording.draw import ulp_moved_fed
from parity.recording.following import Handed
from parity.recording.laid_out import in_layout
from parity.recording.passes import TRAINING, collect_calls
from parity.recording.recorder import ModuleCall, Recorder
from parity.recording.structure import Slot, leaves, rebuild
from parity.recording.subject import Recording, Subject
from parity.recording.terms import gradient_terms, statistic_terms

WORDS = "isolated "


def record_isolated(
    subject: Subject,
    source: Trace,
    names: Mapping[str, str],
    handed: Handed | None,
    recording: Recording | None = None,
) -> Recording:
    """Record every leaf module alone; in training mode those with buffers.

    Args:
        source: the baseline's pass in float32, with whole arrays.
        names: this side's name of a module call -> the source's, where they differ.
        recording: an empty one with a sink, to which taps go as they come.
    """
    recording = recording or Recording()
    for stage in ("", TRAINING):
        training = stage == TRAINING
        if ("train" if training else "eval") not in subject.modes:
            continue
        calls = subject.calls.get(stage)
        if calls is None:
            calls = collect_calls(subject, training)
        subject.start()
        subject.adapter.mode(subject.model, training, dropout=not training)
        subject.adapter.seed(subject.seed)
        for name, call in calls.items():
            if training and not call.module.buffers:
                continue
            subject.place = f"{WORDS}{stage}forward of {name}"
            _record_call(subject, recording, (stage, name), call, source, names, handed)
            recording.flush()
    return recording


def _record_call(
    subject: Subject,
    recording: Recording,
    place: tuple[str, str],
    call: ModuleCall,
    source: Trace,
    names: Mapping[str, str],
    handed: Handed | None,
) -> None:
    stage, name = place
    theirs = names.get(name, name)
    fed = _inputs(subject, source, stage, theirs, call)
    if fed is None:
        return
    adapter = subject.adapter
    natives = {
        tap: _native(subject, array, f"{stage}{theirs} {number}")
        for number, (tap, array) in enumerate(fed.items())
    }
    copies = {tap: adapter.copy(native) for tap, native in natives.items()}  # changed in place?
    copies |= {tap: adapter.as_complex(copies[tap]) for tap in call.parts}
    tensors = [copies[tap] for tap in call.reads]
    args, kwargs = _with_tensors((call.args, call.kwargs), tensors)
    words = f"{WORDS}{stage}"
    recorder = Recorder(adapter, {}, recording.branch, words, handed, alone=True)
    recorder.fed(name, {tap: adapter.array(native) for tap, native in natives.items()})
    with adapter.intercept_functions(recorder.around_function):
        output = adapter.call_module(call.module, args, kwargs)
    recorder.active = False
    outputs: dict[str, Any] = {}
    for part, native in leaves(output, adapter.is_tensor):
        recorder.taps[f"{words}forward/{name}{part}"] = adapter.array(native)
        outputs[part] = native
    recording.taps |= recorder.taps
    recording.kinks |= recorder.kinks
    subject.place = f"{WORDS}{stage}backward of {name}"
    _record_gradients(subject, recording, place, call, source, theirs, natives, outputs)
    if stage == TRAINING:
        suffix = _repeat(name)
        state = adapter.state(subject.model)
        for buffer in call.module.buffers:
            recording.taps[f"{WORDS}statistics/{buffer}{suffix}"] = state[buffer].array
        prefixes = f"{WORDS}{stage}forward/", f"{WORDS}statistics/"
        recording.terms |= statistic_terms(
            [call], recording.taps, *prefixes, subject.weights, suffix
        )
        own = {buffer: subject.weights[buffer] for buffer in call.module.buffers}
        adapter.load(subject.model, own)


def _record_gradients(
    subject: Subject,
    recording: Recording,
    place: tuple[str, str],
    call: ModuleCall,
    source: Trace,
    theirs: str,
    natives: Mapping[str, Any],
    outputs: Mapping[str, Any],
) -> None:
    """Gradients by the first input and by the module's parameters, of the baseline's cotangent."""
    stage, name = place
    adapter = subject.adapter
    known = {}
    for part, native in outputs.items():
        given = source.taps.get(f"{stage}backward/d/{theirs}{part}")
        shape = adapter.array(native).shape
        value = _laid_out(subject, f"{stage}backward/d/{name}{part}", given, shape)
        if value is not None:
            known[part] = value
    if not known or "gradients" not in adapter.abilities:
        return
    words, suffix = f"{WORDS}{stage}", _repeat(name)
    wanted = {
        f"{words}gradients/{parameter}{suffix}": adapter.parameter(subject.model, parameter)
        for parameter in call.module.parameters
    }
    first = next((n for n in natives.values() if adapter.array(n).dtype.kind == "f"), None)
    if first is not None:
        wanted = {f"{words}backward/{name}": first} | wanted
    if not wanted:
        return
    found = adapter.gradients(
        [outputs[part] for part in known],
        list(wanted.values()),
        [
            _moved(subject, value, f"{stage}{theirs}{part} gradient")
            for part, value in known.items()
        ],
    )
    recording.taps |= {t: g for t, g in zip(wanted, found, strict=True) if g is not None}
    prefixes = f"{words}forward/", f"{words}gradients/"
    recording.terms |= gradient_terms([call], recording.taps, *prefixes, suffix)


def _inputs(
    subject: Subject, source: Trace, stage: str, theirs: str, call: ModuleCall
) -> dict[str, Array] | None:
    """This side's tap of each input -> the source's array; None if they do not fit."""
    operations = source.manifest.get("operations") or {}
    parts = [name.removeprefix(f"{stage}forward/{call.name}") for name in call.outputs]
    taps = [f"{stage}forward/{theirs}{part}" for part in parts]
    facts = next((operations[tap] for tap in taps if tap in operations), None)
    if facts is None or len({facts["operation"], call.module.operation} - {""}) > 1:
        return None  # a batch norm that was folded into a convolution has the name of the norm
    own, other = list(dict.fromkeys(call.reads)), list(dict.fromkeys(facts["reads"]))
    if len(own) != len(other):
        return None
    fed: dict[str, Array] = {}
    for tap, theirs in zip(own, other, strict=True):
        array = _laid_out(subject, tap, source.taps.get(theirs), call.shapes[tap])
        if array is None:
            return None
        fed[tap] = array
    return fed


def _laid_out(subject: Subject, tap: str, value: Any, shape: tuple[int, ...]) -> Array | None:
    """The baseline's array as this side's array of that tap and shape; None if it does not fit."""
    if not isinstance(value, np.ndarray):
        return None
    try:
        array = in_layout(tap, value, shape, subject.declared)
    except ParityError:
        return None
    return array if array.shape == shape else None


def _moved(subject: Subject, array: Array, name: str) -> Any:
    """A tensor in the run's precision; in a variant, moved by its last place."""
    native = subject.adapter.tensor(array)
    if subject.variant is None:
        return native
    moved = ulp_moved_fed(subject.adapter.array(native), subject.variant, name)
    return subject.adapter.tensor(moved)


def _native(subject: Subject, array: Array, name: str) -> Any:
    native = _moved(subject, array, name)
    floats = array.dtype.kind == "f" and "gradients" in subject.adapter.abilities
    return subject.adapter.watch_gradients(native) if floats else native


def _with_tensors(value: Any, tensors: Sequence[Any]) -> Any:
    """The structure with the tensors in its slots."""
    return rebuild(value, lambda v: isinstance(v, Slot), lambda slot: tensors[slot.number])


def _repeat(name: str) -> str:
    """`#2` of a repeated call, else nothing."""
    _, mark, number = name.rpartition("#")
    return f"#{number}" if mark and number.isdigit() else ""
