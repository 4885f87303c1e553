"""One recording of a model: evaluation, training, and one update, as stages of one trace.

    taps, facts = record_pass(subject, handed)

Stages and their names are those of docs/parity.md. Every pass starts from the loaded weights.
"""

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from parity.comparison.sketch import Array
from parity.listing import some
from parity.recording.following import Branch, Handed
from parity.recording.objective import all_native, loss_of, native_inputs
from parity.recording.recorder import ModuleCall, Recorder
from parity.recording.subject import Recording, Subject
from parity.recording.terms import gradient_terms, statistic_terms

TRAINING = "training "
SEEDS = (11, 12)  # of two passes that show whether a mode draws random numbers
MOST = 5  # names in one note
SAME = 1e-4  # relative distance of two such passes: rounding is below, dropout far above


def record_pass(
    subject: Subject,
    handed: Handed | None,
    once: bool = True,
    recording: Recording | None = None,
    random: bool = True,
) -> Recording:
    """Record all stages of a model from its weights.

    `once`: also what one recording of a side shows, `parameters/...`.
    `random`: with `once`, also whether the model draws random numbers, which takes five passes.
    `recording`: an empty one with a sink, to which taps go as they come.
    """
    recording, adapter = recording or Recording(), subject.adapter
    subject.start()
    if once:
        recording.notes += subject.kept.notes() if subject.kept else []
        state = adapter.state(subject.model)
        recording.taps |= {f"parameters/{name}": entry.array for name, entry in state.items()}
        recording.flush()
    if "taps" in adapter.abilities:
        _record_taps(subject, recording)
        return recording
    if "eval" in subject.modes:
        _record_mode(subject, recording, handed, training=False)
    if "eval" in subject.modes and once and random:
        recording.taps["evaluation/random"] = np.array(_random(subject, training=False))
    if "train" in subject.modes and adapter.abilities >= {"gradients"}:
        subject.start()
        before = adapter.unsaved(subject.model)
        outputs, trained = _record_mode(subject, recording, handed, training=True)
        _record_statistics(subject, recording, before)
        if once and random:
            _record_randomness(subject, recording, outputs)
        if subject.update and "update" in adapter.abilities:
            if trained:
                _record_update(subject, recording, handed)
            else:
                recording.notes.append("nothing in the model is trained: no update is recorded")
    return recording


def call_once(subject: Subject) -> None:
    """Run the forward pass and the loss in the first mode, and keep nothing of it."""
    adapter = subject.adapter
    subject.start()
    training = "eval" not in subject.modes
    if "taps" in adapter.abilities:
        subject.place = "forward"
        adapter.taps(subject.model, all_native(subject), training=training)
        return
    stage = TRAINING if training else ""
    recorder = Recorder(adapter, subject.modules, Branch(), stage, None)
    with _running(subject, recorder, training):
        inputs = native_inputs(subject)
        outputs = recorder.record_model_outputs(_forward(subject, inputs))
        recorder.active = False
        if "gradients" in adapter.abilities and outputs:
            subject.place = f"{stage}loss"
            loss_of(subject, outputs, inputs)


def _record_taps(subject: Subject, recording: Recording) -> None:
    """The taps of a model that returns them all."""
    adapter = subject.adapter
    for mode, stage in (("eval", ""), ("train", TRAINING)):
        if mode in subject.modes:
            subject.place = f"{stage}forward"
            subject.start()
            native = all_native(subject)
            taps = adapter.taps(subject.model, native, training=bool(stage)) or {}
            recording.taps |= {f"{stage}{name}": value for name, value in taps.items()}


def _record_mode(
    subject: Subject, recording: Recording, handed: Handed | None, training: bool
) -> tuple[list[Array], bool]:
    """Forward, loss and gradients in one mode.

    Returns:
        the arrays of the model's outputs, and whether an optimiser has something to do: there is a
        parameter, and the loss has a gradient by anything.
    """
    adapter, stage = subject.adapter, TRAINING if training else ""
    subject.start()
    recorder = Recorder(adapter, subject.modules, recording.branch, stage, handed)
    with _running(subject, recorder, training):
        inputs = native_inputs(subject)
        outputs = recorder.record_model_outputs(_forward(subject, inputs))
        recorder.active = False
        arrays = [adapter.array(native) for native in outputs]
        if "gradients" in adapter.abilities and outputs:
            subject.place = f"{stage}loss"
            loss = loss_of(subject, outputs, inputs)
            value = np.asarray(adapter.array(loss)).reshape(())
            recorder.taps[f"{stage}losses/loss"] = value
            subject.place = f"{stage}backward"
            recorder.taps |= _gradients(subject, recorder, loss, inputs)
            recording.terms |= gradient_terms(
                recorder.calls.values(), recorder.taps, f"{stage}forward/", f"{stage}gradients/"
            )
        if training:
            prefixes = f"{stage}forward/", f"{stage}statistics/"
            calls = recorder.calls.values()
            recording.terms |= statistic_terms(calls, recorder.taps, *prefixes, subject.weights)
    subject.calls[stage] = recorder.calls
    _note_silent(recording, recorder)
    recording.taps |= recorder.taps
    recording.kinks |= recorder.kinks
    recording.operations |= recorder.operations
    state = adapter.state(subject.model).values()
    trained = any(entry.kind == "parameter" for entry in state)
    trained &= any(tap.startswith(f"{stage}gradients/") for tap in recorder.taps)
    recorder.taps.clear()
    recording.flush()
    return arrays, trained


def _note_silent(recording: Recording, recorder: Recorder) -> None:
    """A note on leaf modules whose outputs hold no tensor that the recorder can see."""
    found = [f"{name} ({kind})" for name, kind in recorder.silent.items()]
    if found and not recorder.stage:
        recording.notes.append(
            f"no tensor is seen in what these modules return, so they are not compared: "
            f"{some(found, MOST)}"
        )


@contextmanager
def _running(subject: Subject, recorder: Recorder, training: bool, dropout: bool = False) -> Any:
    """The model in a mode, with every call going through the recorder; names where it fails."""
    adapter = subject.adapter
    adapter.seed(subject.seed)
    adapter.mode(subject.model, training, dropout or not training)
    subject.place = f"{recorder.stage}forward"
    with (
        adapter.intercept(subject.model, recorder.around_module),
        adapter.intercept_functions(recorder.around_function),
    ):
        try:
            yield
        except Exception:  # of any kind: it is raised again, with its place
            if recorder.running:
                subject.place += f" of {recorder.running[-1]}"
            raise


def _forward(subject: Subject, inputs: Mapping[str, Any]) -> Any:
    # A copy: a model may change its input in place.
    fed = [subject.adapter.copy(native) for native in inputs.values()]
    return subject.adapter.call(subject.model, fed)


def _gradients(
    subject: Subject, recorder: Recorder, loss: Any, inputs: Mapping[str, Any]
) -> dict[str, Array]:
    """Gradients by activations (last one first), by parameters and by inputs."""
    adapter, stage = subject.adapter, recorder.stage
    wanted: dict[str, Any] = {}
    for tap, native in reversed(recorder.natives.items()):
        wanted[f"{stage}backward/d/{tap.removeprefix(f'{stage}forward/')}"] = native
    state = adapter.state(subject.model)
    names = [name for name, entry in state.items() if entry.kind == "parameter"]
    for name in reversed(names):
        wanted[f"{stage}gradients/{name}"] = adapter.parameter(subject.model, name)
    for name, native in inputs.items():
        if subject.inputs[name].dtype.kind in "fc":
            wanted[f"{stage}gradients/input:{name}"] = native
    found = adapter.gradients([loss], list(wanted.values()))
    return {
        tap: gradient for tap, gradient in zip(wanted, found, strict=True) if gradient is not None
    }


def _record_statistics(subject: Subject, recording: Recording, before: Mapping[str, Array]) -> None:
    """Buffers after training; of those that are not saved only what has changed, no tables."""
    state = subject.adapter.state(subject.model)
    found = {name: entry.array for name, entry in state.items() if entry.kind == "buffer"}
    for name, array in subject.adapter.unsaved(subject.model).items():
        if not np.array_equal(
            array, before.get(name, np.empty(0)), equal_nan=array.dtype.kind == "f"
        ):
            found[name] = array
    recording.taps |= {f"training statistics/{name}": array for name, array in found.items()}
    recording.flush()


def collect_calls(subject: Subject, training: bool) -> dict[str, ModuleCall]:
    """The calls of leaf modules in one mode, from a forward pass that is not kept."""
    stage = TRAINING if training else ""
    subject.start()
    recorder = Recorder(subject.adapter, subject.modules, Branch(), stage)
    with _running(subject, recorder, training):
        _forward(subject, native_inputs(subject))
    subject.calls[stage] = recorder.calls
    return recorder.calls


def _random(subject: Subject, training: bool, dropout: bool = True) -> bool:
    """Whether two passes of one mode that start from different seeds differ."""
    first, second = (_outputs(subject, training, dropout, seed) for seed in SEEDS)
    return not _agree(first, second)


def _outputs(subject: Subject, training: bool, dropout: bool, seed: int) -> list[Array]:
    adapter = subject.adapter
    subject.start()
    recorder = Recorder(adapter, {}, Branch(), TRAINING if training else "", active=False)
    with _running(subject, recorder, training, dropout):
        adapter.seed(seed)
        output = _forward(subject, native_inputs(subject))
        return [adapter.array(native) for native in recorder.record_model_outputs(output)]


def _agree(first: Sequence[Array], second: Sequence[Array]) -> bool:
    return all(
        np.linalg.norm((a - b).reshape(-1)) <= SAME * np.linalg.norm(a.reshape(-1))
        for a, b in zip(first, second, strict=True)
    )


def _record_randomness(subject: Subject, recording: Recording, outputs: Sequence[Array]) -> None:
    """Whether training draws random numbers; a note if it does so even with dropout off."""
    again = _outputs(subject, training=True, dropout=False, seed=SEEDS[0])
    # A recorded pass may round otherwise than a free one, and deep networks enlarge that.
    if not _agree(outputs, again) and _random(subject, training=True, dropout=False):
        recording.notes.append(
            "the model draws random numbers in training even with dropout off; stages of "
            "training cannot agree; seed or remove this randomness (`replace`)"
        )
    recording.taps["training/random"] = np.array(_random(subject, training=True))


def _record_update(subject: Subject, recording: Recording, handed: Handed | None) -> None:
    """One step of the framework's own optimiser; taps are new minus old, in float64."""
    adapter = subject.adapter
    subject.start()
    # The choices of the recorded pass in training mode; the recorder's taps are not used.
    same = Handed(handed.branch, handed.choices) if handed else None
    recorder = Recorder(adapter, subject.modules, Branch(), TRAINING, same)
    with _running(subject, recorder, training=True):
        inputs = native_inputs(subject)
        outputs = recorder.record_model_outputs(_forward(subject, inputs))
        recorder.active = False
        subject.place = "one update"
        assert subject.update
        adapter.step(subject.model, loss_of(subject, outputs, inputs), subject.update)
    for name, entry in reversed(adapter.state(subject.model).items()):
        if entry.kind == "parameter":
            before = np.asarray(subject.weights[name], entry.array.dtype)
            step = entry.array.astype(np.float64) - before.astype(np.float64)
            recording.taps[f"one update/step/{name}"] = step
            recording.flush()
