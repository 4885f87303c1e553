"""The answer of one model to one picture, as JSON: classes, patches, pictures, seconds.

This runs in a worker process (`worker.py`), which alone decodes pictures and holds a framework.
"""

import base64
import io
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from transfg_core.data.bad_image import BadImage, TooLarge
from transfg_core.errors import RunFailed, UserError
from transfg_core.explain.maps import explain
from transfg_core.explain.pictures import colours
from transfg_core.inference.facts import facts_of
from transfg_core.inference.images import Crop, crop_of, decode
from transfg_core.inference.predictor import Prediction, Predictor

Answer = dict[str, Any]

LONG_SIDE = 1024  # pixels of the photograph that the page shows
QUALITY = 88  # of its JPEG
PICTURE = "picture"  # how messages call it; a user's file name never gets here
TOP = 5


class Refused(Exception):
    """A picture that cannot be used: `code` names the message, `detail` the reason in English."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


def describe(predictor: Predictor) -> Answer:
    """What the page says of a model before any picture."""
    config = predictor.model.config
    return {
        "facts": facts_of(predictor.model),
        "cautions": predictor.model.cautions(),
        "data": config.data.name,
        "toy": config.data.toy.model_dump(),
        "input": config.data.model_dump(mode="json", include={"crop", "resize"}),
    }


def answer(predictor: Predictor, content: bytes, pictures: bool) -> Answer:
    """Classify a picture; with `pictures`, also explain and draw it.

    Raises:
        Refused: it is not readable, too large, or smaller than the crop.
        RunFailed: the logits are not finite.
    """
    began = time.perf_counter()
    seen, crop = read(predictor, content)
    decoded = time.perf_counter()
    (prediction,) = predictor.predict([crop])
    classified = time.perf_counter()
    result = classes_of(prediction)
    result["seconds"] = {"decode": decoded - began, "classify": classified - decoded}
    if pictures:
        result |= drawn(predictor, seen, crop)
        result["seconds"]["explain"] = time.perf_counter() - classified
    return result


def read(predictor: Predictor, content: bytes) -> tuple[Image.Image, Crop]:
    """Decode a picture: the pixels as the model sees them, and the crop.

    Raises:
        Refused: see `answer`.
    """
    data = predictor.model.config.data
    try:
        decoded = decode(content, PICTURE, data)
    except TooLarge as error:
        raise Refused("too_many_pixels", error.reason) from error
    except BadImage as error:
        raise Refused("unreadable", error.reason) from error
    except RunFailed as error:  # the memory is too small for the image
        raise Refused("memory", str(error)) from error
    try:
        return decoded.image, crop_of(decoded, PICTURE, data)
    except UserError as error:
        raise Refused("too_small", str(error)) from error
    except MemoryError as error:
        raise Refused("memory", "too little memory to resize the picture") from error


def classes_of(prediction: Prediction) -> Answer:
    """The numbers of a prediction: probabilities of all classes, the best five, the patches."""
    shares = prediction.probabilities
    order = np.argsort(-prediction.logits, kind="stable")[:TOP]
    boxes, view = prediction.upright_boxes, prediction.view
    height, width = view.upright
    whole = np.array([[0, 0, view.crop[2] - view.crop[0], view.crop[3] - view.crop[1]]], float)
    scale = np.array([width, height, width, height], float)
    return {
        "size": [height, width],
        "label": prediction.label,
        "top": [[prediction.classes[k], float(shares[k])] for k in order],
        "probabilities": shares.tolist(),
        "patches": None if prediction.part_index is None else prediction.part_index.tolist(),
        "boxes": None if boxes is None else (boxes / scale).tolist(),  # shares of the upright sides
        # an upright photograph is shown, but the model sees it as the file holds it
        "seen_turned": view.orientation != 1 and not view.turned,
        "crop": (view.to_upright(whole)[0] / scale).tolist(),
    }


def drawn(predictor: Predictor, seen: Image.Image, crop: Crop) -> Answer:
    """The upright photograph and the maps over it, as data addresses for `<img src>`."""
    assert crop.view
    photo = crop.view.upright_image(seen)
    photo.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS)
    (explained,) = explain(predictor, [crop])
    size = (photo.height, photo.width)
    maps = {name: crop.view.spread(values, size) for name, values in explained.maps.items()}
    return {
        "photo": data_address(photo, "JPEG"),
        "maps": {name: data_address(coloured(values), "PNG") for name, values in maps.items()},
        "peaks": {name: peak(values) for name, values in maps.items()},
    }


def peak(values: NDArray[np.float32]) -> list[float]:
    """Where a map (h, w) is greatest: x and y in shares of its sides."""
    if not np.isfinite(values).any():
        return [0.5, 0.5]
    row, column = np.unravel_index(np.nanargmax(values), values.shape)
    return [(int(column) + 0.5) / values.shape[1], (int(row) + 0.5) / values.shape[0]]


def coloured(values: NDArray[np.float32]) -> Image.Image:
    """A map (h, w) from 0 to 1 as colours; transparent where the model saw nothing."""
    seen = np.isfinite(values)
    level = np.clip(np.where(seen, values, 0), 0, 1)
    alpha = np.where(seen, 255, 0)[..., None]
    return Image.fromarray(np.concatenate([colours(level), alpha], axis=-1).round().astype("uint8"))


def data_address(image: Image.Image, form: str) -> str:
    """A picture as `data:image/...;base64,...`."""
    file = io.BytesIO()
    image.save(file, form, **({"quality": QUALITY} if form == "JPEG" else {}))
    return f"data:image/{form.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
