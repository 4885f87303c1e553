"""Parameters and taps of any architecture, as tables with axes named by letters.

    shapes = param_shapes(config.model, config.data.crop)    # canonical name -> shape
    taps = taps_of(config.model)                             # tap -> its axes and its operation

An architecture is a module with the members of `Architecture`; `ARCHITECTURES` finds it by
`model.name`. Common letters: B images, R colour channels, C classes.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from transfg_core.config.model import ModelConfig
from transfg_core.errors import UserError
from transfg_core.models import convnet, resnet, swin, swinfc, vit
from transfg_core.models.rows import FeatureMap, ParamSpec, PartGrid, Shape, TapSpec, resolve

Order = NDArray[np.intp]


class Architecture(Protocol):
    """What the core and the parity suite need from an architecture."""

    AXES: dict[str, str]  # letter -> what an index on such an axis counts, in words
    SETTINGS: dict[str, str]  # letter -> the setting to check when that dimension is wrong
    ZERO_GRADIENTS: dict[str, str]  # pattern of zero-gradient parameters -> sibling (rows.py)
    HIDDEN_SETTINGS: Sequence[str]  # keys of the section that no parameter's shape shows
    CHANNELS: str  # a parameter that is added to channels; they are its last axis

    def param_specs(self, model: Any) -> dict[str, ParamSpec]:
        """Dict: canonical name -> its row, in the model's order."""
        ...

    def dims_of(self, name: str) -> str:
        """Shape of a parameter in letters, for any such model; empty for an unknown name."""
        ...

    def sizes(self, model: Any, image_size: tuple[int, int] | None = None) -> dict[str, int]:
        """Dict: letter -> number.

        Letters that depend on the image are included only with its (height, width); C only if
        `model.classes` is set.

        Raises:
            UserError: the image is too small.
        """
        ...

    def layers(self, model: Any) -> dict[str, int]:
        """Dict: canonical name -> depth of its layer for `optim.layer_decay`.

        Layer 0 is the embedding; the last layer holds the head.
        """
        ...

    def taps(self, model: Any) -> dict[str, TapSpec]:
        """Dict: tap -> its row, in the order of the forward pass, up to `logits`."""
        ...

    def orders(self, model: Any, rng: np.random.Generator) -> dict[str, Order]:
        """Dict: letter -> a random permutation of that axis; it changes no result of the model."""
        ...

    def forward_flops(self, model: Any, image_size: tuple[int, int]) -> float:
        """Floating-point operations of one image's forward pass.

        A matmul of (m, k) and (k, n) counts 2 m k n.
        """
        ...


ARCHITECTURES: dict[str, Architecture] = {
    "vit": vit,
    "convnet": convnet,
    "resnet": resnet,
    "swin": swin,
    "swinfc": swinfc,
}
# (model, image size) -> the patches that its parts and attention maps are about
PART_GRIDS: dict[str, Callable[[Any, tuple[int, int]], PartGrid]] = {
    "vit": vit.part_grid,
    "swinfc": swinfc.part_grid,
}

# (model, image size) -> the last map of features that have a place in the image; None without one
FEATURE_MAPS: dict[str, Callable[[Any, tuple[int, int]], FeatureMap | None]] = {
    "vit": vit.feature_map,
    "convnet": convnet.feature_map,
    "resnet": resnet.feature_map,
    "swin": swin.feature_map,
    "swinfc": swinfc.feature_map,
}

# model.name -> that of its backbone, whose weights it takes; its own modules start as initialised
BACKBONES = {"swinfc": "swin"}


def architecture(model: ModelConfig) -> Architecture:
    """The architecture that `model.name` chooses."""
    return ARCHITECTURES[model.name]


def param_specs(model: ModelConfig) -> dict[str, ParamSpec]:
    """Dict: canonical name -> its row, in the model's order; works without `model.classes`."""
    return architecture(model).param_specs(model)


def param_shapes(model: ModelConfig, image_size: tuple[int, int]) -> dict[str, Shape]:
    """Dict: canonical name -> shape, in the model's order.

    Raises:
        UserError: `model.classes` is not set, or the image is too small for the model.
    """
    sizes = architecture(model).sizes(model, image_size) | {"C": model.class_count}
    return {name: resolve(spec.dims, sizes) for name, spec in param_specs(model).items()}


def part_grid(model: ModelConfig, image_size: tuple[int, int], task: str) -> PartGrid:
    """The patches that the model's parts and attention maps are about.

    Raises:
        UserError: the model has none, and `task` needs them; or the image is too small.
    """
    if model.name not in PART_GRIDS:
        names = " or ".join(PART_GRIDS)
        raise UserError(f"{task}: expected model.name {names}, found {model.name}")
    return PART_GRIDS[model.name](model, image_size)


def feature_map(model: ModelConfig, image_size: tuple[int, int], task: str) -> FeatureMap:
    """The last feature map of the model, which Grad-CAM reads.

    Raises:
        UserError: the model has none, and `task` needs it; or the image is too small.
    """
    found = FEATURE_MAPS[model.name](model, image_size)
    if found is None:
        names = ", ".join(name for name in FEATURE_MAPS if name != "vit")
        raise UserError(
            f"{task}: expected model.name {names}, or vit with a model.stem, found vit without a "
            "stem; choose rollout or saliency"
        )
    return found


@cache
def taps_of(model: ModelConfig) -> dict[str, TapSpec]:
    """Dict: tap -> its row, in the order of the forward pass; names with a dot are `fine` taps."""
    return architecture(model).taps(model)


def choice_taps(model: ModelConfig) -> frozenset[str]:
    """Taps of part selection; the loss has no gradient with respect to them."""
    return frozenset(name for name, tap in taps_of(model).items() if tap.stage == "selection")


def pass_stage(tap: str, model: ModelConfig) -> Literal["forward", "selection"]:
    """The stage in which a tap's activation is computed."""
    row = taps_of(model).get(tap)
    return row.stage if row else "forward"


def maker_of(param: str, taps: Mapping[str, TapSpec]) -> str:
    """The tap that a parameter helps compute: `blocks.3.attn.query.weight` -> `block03.attn.query`.

    If no tap lists the parameter, the result is the name of its module.
    """
    return next(
        (name for name, tap in taps.items() if param in tap.params), param.rpartition(".")[0]
    )


def hint(name: str, expected: Shape, found: Shape, names: Collection[str]) -> str:
    """A question about the settings of the dimensions that differ: `; is model.width right?`.

    `names` are all parameter names of the model; they show its architecture. The result is empty
    if no setting is known.
    """
    for candidate in ARCHITECTURES.values():
        if all(candidate.dims_of(param) for param in names):
            return suspects(candidate.dims_of(name), candidate.SETTINGS, expected, found)
    return ""


def suspects(dims: str, settings: Mapping[str, str], expected: Shape, found: Shape) -> str:
    """The question of `hint`, from a row's letters and the setting of each letter."""
    letters = dims.split()
    if not len(letters) == len(expected) == len(found):
        return ""
    pairs = zip(expected, found, strict=True)
    differing = [letter for letter, (a, b) in zip(letters, pairs, strict=True) if a != b]
    names = list(dict.fromkeys(settings[letter] for letter in differing if letter in settings))
    verb = "are" if len(names) > 1 else "is"
    return f"; {verb} {' and '.join(names)} right?" if names else ""
