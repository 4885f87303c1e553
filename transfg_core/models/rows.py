"""Rows of an architecture's tables: a `ParamSpec` per parameter, a `TapSpec` per tap."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

Shape = tuple[int, ...]

# Parameters whose gradient is zero by structure: pattern of the name -> `OLD>NEW`, the replacement
# that gives the name of a sibling. A constant added to every score does not change the softmax, so
# a key bias has no gradient.
KEY_BIASES = {"*.attn.key.bias": ".attn.key.>.attn.query."}


class ParamSpec(NamedTuple):
    """One parameter: its shape in letters and its initial values.

    `uniform` draws from ±1/√n, with n the product of the letters in `fan`, the inputs. `kaiming`
    draws from a normal distribution of variance 2/n, with the outputs in `fan`; `normal` from one
    of deviation 0.02.

    A `statistic` is a running mean or variance: the forward pass sets it in training, the optimiser
    never does, and it has no gradient. Everywhere else it counts as a parameter.
    """

    name: str
    dims: str
    init: Literal["zeros", "ones", "uniform", "xavier", "near_zero", "kaiming", "normal"]
    fan: str = ""
    statistic: bool = False


class PartGrid(NamedTuple):
    """The patches that parts are chosen from, row by row; sizes are in pixels.

    A patch starts at `stride` times its row and column. The last ones may reach beyond the image.
    """

    rows: int
    columns: int
    patch: int
    stride: int


class FeatureMap(NamedTuple):
    """The last feature map of a model, which Grad-CAM reads; sizes are in pixels of the image.

    Position (i, j) of the map sees a region around (centre + i stride, centre + j stride), where a
    pixel's own centre is at one half. The last regions may reach beyond the image.
    """

    tap: str
    rows: int
    columns: int
    stride: int
    centre: float


class TapSpec(NamedTuple):
    """One tap: its axes in letters, and the operation that computes it from other taps.

    `reads` names the input taps (or `images`), `params` the parameters. `stride` and `padding`
    belong to a convolution, `eps` to a layer norm. Taps of the stage `selection` have no gradient.
    """

    axes: str
    operation: str
    reads: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    stride: int = 1
    padding: int = 0
    stage: Literal["forward", "selection"] = "forward"
    eps: float = 1e-6


def resolve(dims: str, sizes: Mapping[str, int]) -> Shape:
    """The shape that letters and digits stand for: "D R P P" -> (768, 3, 16, 16)."""
    return tuple(int(dim) if dim.isdigit() else sizes[dim] for dim in dims.split())


def affine(module: str) -> tuple[str, str]:
    """Names of a module's weight and bias."""
    return f"{module}.weight", f"{module}.bias"


def batch_norm_specs(module: str, channels: str) -> tuple[ParamSpec, ...]:
    """The rows of a batch norm; `channels` is the letter of its channels."""
    return (
        ParamSpec(f"{module}.weight", channels, "ones"),
        ParamSpec(f"{module}.bias", channels, "zeros"),
        ParamSpec(f"{module}.running_mean", channels, "zeros", statistic=True),
        ParamSpec(f"{module}.running_var", channels, "ones", statistic=True),
    )


def batch_norm_params(module: str) -> tuple[str, ...]:
    """Names of a batch norm's parameters and statistics, in the order of its rows."""
    return tuple(spec.name for spec in batch_norm_specs(module, ""))
