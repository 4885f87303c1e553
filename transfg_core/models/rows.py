"""The rows of an architecture's tables: one parameter, one tap."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

Shape = tuple[int, ...]

# Gradients that are zero by structure, by pattern -> the part of the name that makes a sibling's.
# A constant added to every score leaves the softmax as it is, so a key bias has no gradient.
KEY_BIASES = {"*.attn.key.bias": ".attn.key.>.attn.query."}


class Spec(NamedTuple):
    """One parameter: its shape in letters and how it starts; `fan_in` bounds `uniform`."""

    name: str
    dims: str
    init: Literal["zeros", "ones", "uniform", "xavier", "near_zero"]
    fan_in: str = ""


class Tap(NamedTuple):
    """One tap: its axes in letters, and the operation that makes it from other taps.

    `reads` names the taps that go in, `images` among them; `params` the parameters. `stride` is
    that of a convolution. What is computed in the stage `selection` has no gradient.
    """

    axes: str
    operation: str
    reads: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    stride: int = 1
    stage: Literal["forward", "selection"] = "forward"


def resolve(dims: str, sizes: Mapping[str, int]) -> Shape:
    """Letters and digits as numbers: "D R P P" -> (768, 3, 16, 16)."""
    return tuple(int(dim) if dim.isdigit() else sizes[dim] for dim in dims.split())


def affine(module: str) -> tuple[str, str]:
    """The weight and the bias of a module."""
    return f"{module}.weight", f"{module}.bias"
