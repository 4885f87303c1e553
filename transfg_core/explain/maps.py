"""Maps of what a trained model looks at in an image, as arrays over its evaluation crop."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transfg_core.config.model import ModelConfig
from transfg_core.inference.images import Crop
from transfg_core.inference.predictor import Prediction, Predictor
from transfg_core.models.layout import PART_GRIDS


@dataclass(frozen=True, eq=False)
class Explanation:
    """What a model says of an image, and where it looks.

    `maps` by name: values (h, w) that cover the crop evenly, from 0 (nothing) to 1 (the most of
    this image). `crop.view.spread(values, size)` places one on the photograph.
    """

    crop: Crop
    prediction: Prediction
    maps: dict[str, NDArray[np.float32]]


def map_names(model: ModelConfig) -> tuple[str, ...]:
    """The maps that a model has, the most telling first."""
    return ("rollout", "saliency") if model.name in PART_GRIDS else ("saliency",)


def explain(
    predictor: Predictor, crops: Sequence[Crop], names: Sequence[str] | None = None
) -> list[Explanation]:
    """Predict and explain readable crops, with the maps of these names or with all.

    Raises:
        UserError: the model has no such map.
        RunFailed: the logits are not finite.
    """
    raise NotImplementedError
