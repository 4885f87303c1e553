"""Numbers of inputs and weights, drawn by NumPy from a seed and a name: the same on every side.

inputs={"x": normal(2, 3, 64, 64), "ids": integers(1000, 2, 7)}
"""

import operator
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.comparison.measure import move_by_ulp
from parity.comparison.sketch import Array
from parity.errors import ParityError

# last part of a parameter's name -> how it is drawn, if it has one axis
SHIFT = re.compile(r".*(bias|beta|mean|shift|offset).*")
VARIANCE = re.compile(r"running_var|moving_variance|var|variance")
STATISTICS = re.compile(r"(.*[._/])?((running|moving)_)?(mean|var|variance)")
KERNEL = re.compile(r".*(weight|kernel|w|matrix)\d*")


@dataclass(frozen=True)
class Draw:
    """An array that is drawn when it is needed. `kind`: normal, uniform or integers."""

    kind: str
    shape: tuple[int, ...]
    low: float = 0.0
    high: float = 1.0

    def array(self, seed: int, name: str) -> Array:
        """The numbers: float32, or int64."""
        rng = generator(seed, name)
        if self.kind == "integers":
            whole: Array = rng.integers(int(self.low), int(self.high), self.shape)
            return whole
        if self.kind == "uniform":
            return rng.uniform(self.low, self.high, self.shape).astype(np.float32)
        return rng.standard_normal(self.shape).astype(np.float32)


Sizes = int | Sequence[int]  # of each axis; or of all, as one tuple


def normal(*shape: Sizes) -> Draw:
    """Standard normal numbers, float32."""
    return Draw("normal", _sizes("normal", shape))


def uniform(low: float, high: float, *shape: Sizes) -> Draw:
    """Uniform numbers in [low, high), float32."""
    if not (isinstance(low, int | float) and isinstance(high, int | float) and low < high):
        raise ParityError(f"uniform(low, high, *shape): expected low < high, found {low}, {high}")
    return Draw("uniform", _sizes("uniform", shape), low, high)


def integers(high: int, *shape: Sizes) -> Draw:
    """Whole numbers 0 to high - 1, int64."""
    if not isinstance(high, int) or high < 1:
        raise ParityError(
            f"integers(high, *shape): expected high of 1 or more, found {high}; the numbers are 0 "
            "to high - 1"
        )
    return Draw("integers", _sizes("integers", shape), 0, high)


def _sizes(function: str, given: tuple[Any, ...]) -> tuple[int, ...]:
    """The sizes of a shape that was given as numbers, or as one tuple."""
    one = len(given) == 1 and isinstance(given[0], Sequence)
    try:
        sizes = tuple(operator.index(size) for size in (given[0] if one else given))
    except TypeError:
        sizes = (0,)
    if any(size < 1 for size in sizes):
        raise ParityError(
            f"{function}: shape: expected whole numbers of 1 or more, found "
            f"{', '.join(map(repr, given))}"
        )
    return sizes


def generator(seed: int, name: str) -> np.random.Generator:
    """Random numbers that depend on a seed and a name alone."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def draw_inputs(inputs: Mapping[str, Draw | Array], seed: int) -> dict[str, Array]:
    """The arrays of a pair's inputs; floats are float32, the same numbers in every precision."""
    return {
        name: value.array(seed, f"input {name}") if isinstance(value, Draw) else single(value)
        for name, value in inputs.items()
    }


def single(value: Array) -> Array:
    """An array whose floats are float32."""
    array = np.asarray(value)
    return array.astype({"f": np.float32, "c": np.complex64}.get(array.dtype.kind, array.dtype))


def draw_weight(seed: int, name: str, shape: tuple[int, ...], table: bool = False) -> Array:
    """One parameter or running statistic, float32, so that every axis matters and sizes stay.

    Matrices and kernels: He et al. 2015 (normal, sqrt(2 / fan in), fan in = all axes but the
    first). Weights of norms and running variances: uniform in [0.5, 1.5). Biases, running means,
    `table`s of embeddings, and other arrays of two axes or more: normal, 0.1.
    """
    rng = generator(seed, f"weight {name}")
    last = re.split(r"[./]", name)[-1]
    if VARIANCE.fullmatch(last) or (len(shape) < 2 and not SHIFT.fullmatch(last)):
        return np.asarray(rng.uniform(0.5, 1.5, shape), np.float32)
    if len(shape) >= 2 and not table and KERNEL.fullmatch(last):
        scale = (2.0 / max(int(np.prod(shape[1:])), 1)) ** 0.5
    else:
        scale = 0.1
    return np.asarray(scale * rng.standard_normal(shape), np.float32)


def drawn(name: str, array: Array, kind: str) -> bool:
    """Whether an entry of a state is drawn: float parameters and running statistics.

    Counters and tables stay as the builder made them.
    """
    return array.dtype.kind == "f" and (kind == "parameter" or bool(STATISTICS.fullmatch(name)))


def ulp_moved(weights: Mapping[str, Array], variant: str) -> dict[str, Array]:
    """Weights of a variant `ulp:N`: every float moved by one unit in the last place of its type."""
    rng = np.random.default_rng([77, int(variant.partition(":")[2])])
    moved = {}
    for name in sorted(weights):
        value = weights[name]
        moved[name] = move_by_ulp(value, rng) if value.dtype.kind == "f" else value
    return {name: moved[name] for name in weights}


def ulp_moved_fed(value: Array, variant: str, name: str) -> Array:
    """What isolated replay feeds in a variant: moved in the same way, but zeros stay zeros.

    Many inputs are exactly zero behind a ReLU. There, the smallest number of either sign would
    change the choice of the next kink.
    """
    if value.dtype.kind != "f":
        return value
    rng = generator(int(variant.partition(":")[2]), f"fed {name}")
    return np.where(value == 0, value, move_by_ulp(value, rng))
