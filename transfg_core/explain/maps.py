"""Maps of what a trained model looks at in an image, as arrays over its evaluation crop.

    (found,) = explain(load("runs/birds"), [crop])
    found.maps["rollout"]                 # (h, w) over the crop, from 0 to 1

Letters: B images of H x W pixels, J rows of part scores, N patches or positions of a feature map.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transfg_core.config.model import ModelConfig
from transfg_core.config.vit import VitConfig
from transfg_core.data.decoding import Size
from transfg_core.errors import UserError
from transfg_core.explain.labels import stretches
from transfg_core.explain.parts import part_heat
from transfg_core.inference.images import Crop
from transfg_core.inference.predictor import Prediction, Predictor
from transfg_core.models.layout import FEATURE_MAPS, feature_map, part_grid

Float32 = NDArray[np.float32]
LARGE = (1024, 1024)  # an image that is large enough for every model


@dataclass(frozen=True, eq=False)
class Explanation:
    """What a model says of an image, and where it looks.

    `maps` by name: values (h, w) that cover the crop evenly, from 0 (nothing) to 1 (the most of
    this image). The `scores` of `selection: cls_similarity` are cosines; there 0 is the least of
    this image. `crop.view.spread(values, size)` places one on the photograph. `values` are the
    same as computed: of each patch or position (rows, columns), or of each pixel (H, W).
    """

    crop: Crop
    prediction: Prediction
    maps: dict[str, Float32]
    values: dict[str, Float32] = field(default_factory=dict)


def map_names(model: ModelConfig) -> tuple[str, ...]:
    """The maps that a model has, the most telling first.

    `scores` are the part selection's own; `rollout` is the attention rollout of the class token;
    `grad_cam` needs a feature map with places; every model has the `saliency` of its pixels.
    """
    names = {
        "scores": model.selects_parts and not model.draws_parts,
        "rollout": isinstance(model, VitConfig),
        "grad_cam": FEATURE_MAPS[model.name](model, LARGE) is not None,
        "saliency": True,
    }
    return tuple(name for name, there in names.items() if there)


def explain(
    predictor: Predictor, crops: Sequence[Crop], names: Sequence[str] | None = None
) -> list[Explanation]:
    """Predict and explain readable crops, with the maps of these names or with all.

    Raises:
        UserError: the model has no such map.
        RunFailed: the logits are not finite.
    """
    model = predictor.model.config.model
    known, size = map_names(model), predictor.model.config.data.crop
    for name in names or ():
        if name not in known:
            raise UserError(
                f"map {name}: expected one of {', '.join(known)} for model.name {model.name}; "
                "choose one of these"
            )
    good = [crop for crop in crops if crop.view]
    if not good:
        return []
    predictions = predictor.predict(good)
    pixels = np.stack([crop.pixels for crop in good])
    wanted = known if names is None else tuple(names)
    computed = {n: predictor.locked(n, pixels)[n] for n in wanted if n != "scores"}
    found = []
    for row, (crop, prediction) in enumerate(zip(good, predictions, strict=True)):
        values, maps = {}, {}
        for name in wanted:
            raw = computed[name][row] if name != "scores" else fused_scores(model, prediction)
            values[name], maps[name] = on_crop(name, raw, model, size)
        found.append(Explanation(crop, prediction, maps, values))
    return found


def fused_scores(model: ModelConfig, prediction: Prediction) -> NDArray[Any]:
    """The part selection's own map: the mean over its rows, not negative: (N,)."""
    assert prediction.part_scores is not None
    heat = part_heat(model, {"part_scores": prediction.part_scores[None]})[0].mean(axis=0)
    return np.asarray(heat)


def on_crop(
    name: str, raw: NDArray[Any], model: ModelConfig, crop: Size
) -> tuple[Float32, Float32]:
    """A computed map, (N,) or (H, W), in rows and columns, and over the crop from 0 to 1."""
    raw = raw.astype(np.float32)
    if raw.ndim == 2:  # of pixels
        return raw, scaled(raw)
    if name == "grad_cam":
        lattice = feature_map(model, crop, "Grad-CAM")
        rows, columns, stride, centre = lattice[1:]
    else:
        grid = part_grid(model, crop, name)
        rows, columns, stride, centre = grid.rows, grid.columns, grid.stride, grid.patch / 2
    values = raw.reshape(rows, columns)
    spread = spread_grid(values, crop, stride, centre)
    if name == "scores" and stretches(model):
        spread = spread - spread.min()
    return values, scaled(spread)


def spread_grid(values: Float32, size: Size, stride: int, centre: float) -> Float32:
    """Values of patches or positions over all pixels of a crop: (rows, columns) -> `size`.

    The value of patch (i, j) is that of the point (centre + i stride, centre + j stride), in pixels
    from the upper left corner. Between these points the map is bilinear; beyond the outermost ones
    it keeps their values. So it also fits patches that overlap.
    """
    down, across = (
        shares(length, count, stride, centre)
        for length, count in zip(size, values.shape, strict=True)
    )
    return (down @ values @ across.T).astype(np.float32)


def shares(length: int, count: int, stride: int, centre: float) -> NDArray[np.float64]:
    """How much each of `count` points contributes to each pixel of a line: (length, count)."""
    place = np.clip((np.arange(length) + 0.5 - centre) / stride, 0, count - 1)
    distance = np.abs(place[:, None] - np.arange(count))
    near: NDArray[np.float64] = np.clip(1 - distance, 0, None)
    return near


def scaled(values: Float32) -> Float32:
    """Values that are not negative, divided by the largest; zeros stay."""
    largest = values.max()
    return values / largest if largest > 0 else values
