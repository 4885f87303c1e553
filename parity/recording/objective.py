"""The inputs of a pass as tensors, its loss, and its optimiser."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from parity.comparison.sketch import Array
from parity.errors import ParityError
from parity.recording.adapter import Adapter
from parity.recording.draw import generator
from parity.recording.laid_out import input_in_layout, shape_of_baseline
from parity.recording.pair import LABELS
from parity.recording.subject import Subject


def native_inputs(subject: Subject) -> dict[str, Any]:
    """The inputs as tensors; floats can be differentiated by."""
    adapter = subject.adapter
    made = {}
    for name, array in subject.inputs.items():
        native = adapter.tensor(array)
        floats = array.dtype.kind in "fc" and "gradients" in adapter.abilities
        made[name] = adapter.watch_gradients(native) if floats else native
    return made


def native_targets(subject: Subject) -> dict[str, Any]:
    """The targets as tensors; class labels are integers of 64 bits, as frameworks want them."""
    wide = {LABELS} if subject.loss == "cross_entropy" else set()
    return {
        name: subject.adapter.tensor(array.astype(np.int64) if name in wide else array)
        for name, array in subject.targets.items()
    }


def all_native(subject: Subject) -> dict[str, Any]:
    """Inputs and targets as tensors: for a model that computes its own loss."""
    inputs = {name: subject.adapter.tensor(array) for name, array in subject.inputs.items()}
    return inputs | native_targets(subject)


def loss_of(subject: Subject, outputs: Sequence[Any], inputs: Mapping[str, Any]) -> Any:
    """The scalar loss of a pass, of the model's outputs, its inputs and the targets."""
    adapter = subject.adapter
    inputs = {**inputs, **native_targets(subject)}
    if callable(subject.loss):
        loss = adapter.own_loss(subject.loss, outputs, inputs)
        shape = adapter.array(loss).shape if adapter.is_tensor(loss) else type(loss).__name__
        if not isinstance(shape, tuple) or np.prod(shape) != 1:
            raise ParityError(
                f"loss: expected the function to return one number as an array of the framework, "
                f"found {shape if isinstance(shape, str) else f'an array of shape {shape}'}"
            )
        return loss
    cotangents = [
        adapter.tensor(_cotangent(subject, number, adapter.array(output).shape))
        for number, output in enumerate(outputs)
    ]
    return adapter.loss(subject.loss, outputs, inputs, cotangents)


def _cotangent(subject: Subject, number: int, shape: tuple[int, ...]) -> Array:
    """What an output is multiplied by in the loss: the same numbers in every layout."""
    name = f"output.{number}" if number else "output"
    drawn = generator(subject.seed, f"cotangent {number}").standard_normal(
        shape_of_baseline(name, shape, subject.declared)
    )
    return input_in_layout(name, drawn.astype(np.float32), subject.declared)


def check_update(adapter: Adapter, update: Mapping[str, Any]) -> None:
    """Make the optimiser, before anything slow.

    Raises:
        ParityError: an option of it is wrong.
    """
    try:
        adapter.optimiser([], update)
    except (TypeError, ValueError, KeyError) as error:
        raise ParityError(
            f"update: expected options of the framework's own optimiser {update.get('name')}, "
            f"found {dict(update)}: {error}"
        ) from error
