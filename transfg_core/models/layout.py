"""Parameters and taps of any architecture, as tables with axes named by letters.

    shapes = param_shapes(config.model, config.data.crop)    # canonical name -> shape
    taps = taps_of(config.model)                             # tap -> its axes, and what makes it

An architecture is a module with the functions of `Architecture`; `ARCHITECTURES` finds it by
`model.name`. Letters that all share: B images, R colour channels, C classes.
"""

from collections.abc import Collection, Mapping
from functools import cache
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from transfg_core.config.model import ModelConfig
from transfg_core.models import convnet, vit
from transfg_core.models.rows import Shape, Spec, Tap, resolve

Order = NDArray[np.intp]


class Architecture(Protocol):
    """What the core and the parity suite must know of an architecture."""

    AXES: dict[str, str]  # letter -> what lies along such an axis, in words
    SETTINGS: dict[str, str]  # letter -> the setting to look at when that dimension is wrong
    ZERO_GRADIENTS: dict[str, str]  # parameters without a gradient by structure -> sibling
    CHANNELS: str  # a parameter that is added to channels, which are its last axis

    def param_specs(self, model: Any) -> dict[str, Spec]:
        """Canonical name -> its row, in the model's order."""
        ...

    def dims_of(self, name: str) -> str:
        """The shape in letters of a parameter of any such model; nothing for another name."""
        ...

    def sizes(self, model: Any, image_size: tuple[int, int] | None = None) -> dict[str, int]:
        """Letter -> number; letters that depend on the image only with its (height, width).

        C is left out while `model.classes` is open.

        Raises:
            UserError: the image is too small.
        """
        ...

    def taps(self, model: Any) -> dict[str, Tap]:
        """Tap -> its row, in the order of the forward pass, up to `logits`."""
        ...

    def orders(self, model: Any, rng: np.random.Generator) -> dict[str, Order]:
        """Letter -> a random order of that axis under which the model computes the same."""
        ...

    def forward_flops(self, model: Any, image_size: tuple[int, int]) -> float:
        """Floating-point operations of one image forward; a matmul of m, k, n counts 2 m k n."""
        ...


ARCHITECTURES: dict[str, Architecture] = {"vit": vit, "convnet": convnet}


def architecture(model: ModelConfig) -> Architecture:
    """The architecture that `model.name` chooses."""
    return ARCHITECTURES[model.name]


def param_specs(model: ModelConfig) -> dict[str, Spec]:
    """Canonical name -> its row, in the model's order; `model.classes` may be open."""
    return architecture(model).param_specs(model)


def param_shapes(model: ModelConfig, image_size: tuple[int, int]) -> dict[str, Shape]:
    """Canonical name -> shape, in the model's order.

    Raises:
        UserError: `model.classes` is open, or the image is too small for the model.
    """
    sizes = architecture(model).sizes(model, image_size) | {"C": model.class_count}
    return {name: resolve(spec.dims, sizes) for name, spec in param_specs(model).items()}


@cache
def taps_of(model: ModelConfig) -> dict[str, Tap]:
    """Tap -> its row, in the order of the forward pass; those with a point are `fine` taps."""
    return architecture(model).taps(model)


def choice_taps(model: ModelConfig) -> frozenset[str]:
    """Taps of the choice of image parts: the loss has no gradient with respect to them."""
    return frozenset(name for name, tap in taps_of(model).items() if tap.stage == "selection")


def pass_stage(tap: str, model: ModelConfig) -> Literal["forward", "selection"]:
    """The stage of an activation's tap."""
    row = taps_of(model).get(tap)
    return row.stage if row else "forward"


def maker_of(param: str, taps: Mapping[str, Tap]) -> str:
    """The tap that a parameter takes part in: `blocks.3.attn.query.weight` -> `block03.attn.query`.

    A name that no tap lists gives the name of its module.
    """
    return next(
        (name for name, tap in taps.items() if param in tap.params), param.rpartition(".")[0]
    )


def hint(name: str, expected: Shape, found: Shape, names: Collection[str]) -> str:
    """The settings behind the dimensions that differ, as `; is model.width right?`, or nothing.

    `names` are all parameters of the model: they tell its architecture.
    """
    for known in ARCHITECTURES.values():
        if all(known.dims_of(other) for other in names):
            return suspects(known.dims_of(name), known.SETTINGS, expected, found)
    return ""


def suspects(dims: str, settings: Mapping[str, str], expected: Shape, found: Shape) -> str:
    """The settings behind the dimensions that differ, from a row's letters."""
    letters = dims.split()
    if not len(letters) == len(expected) == len(found):
        return ""
    differing = [a for a, b, c in zip(letters, expected, found, strict=True) if b != c]
    names = list(dict.fromkeys(settings[a] for a in differing if a in settings))
    verb = "are" if len(names) > 1 else "is"
    return f"; {verb} {' and '.join(names)} right?" if names else ""
