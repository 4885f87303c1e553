"""Inputs, weights and activations of the pair in the candidate's own layout.

The pair's arrays have the baseline's axes. The candidate's layouts are what its framework declares
(`Adapter.layouts`) and what the pair file adds (`layouts`, which comes first).
"""

from collections.abc import Mapping

import numpy as np

from parity.comparison.sketch import Array
from parity.errors import ParityError
from parity.matching.declared import Declared

MOVED = {"channels last": (1, -1), "channels first": (-1, 1)}  # axis of the baseline -> own axis


def input_in_layout(name: str, value: Array, declared: Declared) -> Array:
    """One input of the candidate's model; its layout is channels last, or channels first.

    Raises:
        ParityError: another layout is declared for it.
    """
    layout = declared.layout(name)
    if layout is None:
        return value
    if layout.name not in MOVED:
        known = " or ".join(MOVED)
        raise ParityError(f"layouts: input {name}: expected {known}, found {layout.name}")
    return np.ascontiguousarray(np.moveaxis(value, *MOVED[layout.name]))


def shape_of_baseline(name: str, shape: tuple[int, ...], declared: Declared) -> tuple[int, ...]:
    """The baseline's shape of an array that has this shape in the candidate's layout."""
    layout = declared.layout(name)
    if layout is None or layout.name not in MOVED:
        return shape
    own, baseline = MOVED[layout.name][::-1]
    return np.moveaxis(np.broadcast_to(np.float32(0), shape), own, baseline).shape


def inputs_in_layout(inputs: Mapping[str, Array], declared: Declared) -> dict[str, Array]:
    """All inputs of the candidate's model."""
    return {name: input_in_layout(name, value, declared) for name, value in inputs.items()}


def in_layout(name: str, value: Array, shape: tuple[int, ...], declared: Declared) -> Array:
    """The baseline's array as the candidate's array of this name and shape.

    Raises:
        ParityError: the declared layout does not turn one shape into the other.
    """
    layout = declared.layout(name)
    return value if layout is None else layout.undo(value, shape)


def fits(name: str, shape: tuple[int, ...], reference: tuple[int, ...], declared: Declared) -> bool:
    """Whether an array of the baseline's shape can be the candidate's array of this name."""
    try:
        laid_out = in_layout(name, np.broadcast_to(np.float32(0), reference), shape, declared)
    except ParityError:
        return False
    return _without_ones(laid_out.shape) == _without_ones(shape)


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape if len(shape) > 1 else tuple(size for size in shape if size != 1)
