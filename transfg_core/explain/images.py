"""Explanations of images as files: a figure (PNG) and its arrays (.npz) for each."""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from transfg_core.backend import Arrays
from transfg_core.checkpoints.file import replace_file
from transfg_core.config.sections import DataConfig
from transfg_core.data.bad_image import UNREADABLE, BadImage
from transfg_core.errors import UserError
from transfg_core.explain.figure import figure
from transfg_core.explain.labels import part_labels
from transfg_core.explain.maps import Explanation, explain
from transfg_core.inference.images import Crop, crop_of, decode
from transfg_core.inference.inputs import Input
from transfg_core.inference.predictor import Predictor

MADE_BY = "transfg explain"  # stands in the figures, so that no other picture is replaced
LONGEST_STEM = 80  # characters
NO_MEMORY = "too little memory to resize the image; make it smaller"


def explain_images(
    predictor: Predictor, inputs: Sequence[Input], out: Path, say: Callable[[str], None]
) -> Iterator[Path | None]:
    """Write a figure and arrays of each image into `out`; yields the figure's path.

    An image that cannot be read is named by `say` and gives None; the others follow. Images are
    explained one by one, because Jittor compiles again for every size of a batch.

    Raises:
        RunFailed: the logits are not finite, or a file cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    model, source = predictor.model.config.model, describe_source(predictor)
    stems = Stems(out, [Path(i.source) for i in inputs if isinstance(i.source, str)])
    for item in inputs:
        crop, photograph, reason = open_photograph(item, predictor.model.config.data)
        if crop is None or photograph is None:
            say(f"{item.name}: not read: {reason}")
            yield None
            continue
        (explanation,) = explain(predictor, [crop])
        stem = stems.free(item.name)
        png = png_of(figure(photograph, explanation, model, source))
        replace_file(out / f"{stem}.npz", npz_of(arrays_of(predictor, explanation)))
        replace_file(out / f"{stem}.png", png)
        yield out / f"{stem}.png"


def open_photograph(item: Input, data: DataConfig) -> tuple[Crop | None, Image.Image | None, str]:
    """Crop and upright photograph of an input, or why it has none."""
    try:
        decoded = decode(item.source, item.name, data)
        crop = crop_of(decoded, item.name, data)
    except BadImage as error:
        return None, None, error.reason
    except UserError as error:
        return None, None, str(error).removeprefix(f"{item.name}: ")
    except MemoryError:
        return None, None, NO_MEMORY
    assert crop.view
    return crop, crop.view.upright_image(decoded.image), ""


def describe_source(predictor: Predictor) -> str:
    """A line that names the trained model: its place, update, architecture and backend."""
    model = predictor.model
    place = f"{model.run.name}, {model.path.name}" if model.run else model.path.name
    update, kind = f"update {model.position.update}", model.config.model.name
    return f"{place}, {update}; {kind} in {predictor.backend.name}"


class Stems:
    """Names of files in a folder, each used once; no file of somebody else is replaced."""

    def __init__(self, folder: Path, inputs: Sequence[Path]) -> None:
        self._folder = folder
        self._used: set[str] = set()
        self._inputs = {path.resolve() for path in inputs}

    def free(self, name: str) -> str:
        """A name without ending for the image of this name; the next number if it is taken."""
        stem, number = stem_of(name), 1
        while self._taken(found := stem if number == 1 else f"{stem}-{number}"):
            number += 1
        self._used.add(found.casefold())
        return found

    def _taken(self, stem: str) -> bool:
        if stem.casefold() in self._used:
            return True
        path = self._folder / f"{stem}.png"
        return path.resolve() in self._inputs or (path.exists() and not made_here(path))


def made_here(path: Path) -> bool:
    """Whether a picture is a figure of this module, which may be replaced."""
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            return picture.info.get("Software") == MADE_BY
    except UNREADABLE:
        return False


def stem_of(name: str) -> str:
    """The name of an image without folder and ending, safe as a file's name: never empty."""
    base = name.replace("\\", "/").rpartition("/")[2]
    stem = base.rpartition(".")[0] or base
    return re.sub(r"[^\w\-.+]+", "_", stem)[:LONGEST_STEM].lstrip(".") or "image"


def png_of(picture: Image.Image) -> bytes:
    """The content of a PNG file that names this command."""
    facts, file = PngInfo(), io.BytesIO()
    facts.add_text("Software", MADE_BY)
    picture.save(file, format="PNG", pnginfo=facts)
    return file.getvalue()


def npz_of(arrays: Arrays) -> bytes:
    """The content of an .npz file; NumPy reads it without pickles."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def arrays_of(predictor: Predictor, explanation: Explanation) -> Arrays:
    """All numbers of a figure by name; docs/inference.md has the table.

    `map_NAME` (H, W) covers the crop, from 0 to 1; `value_NAME` is the same as computed.
    """
    prediction, view = explanation.prediction, explanation.prediction.view
    arrays: dict[str, Any] = {f"map_{name}": v for name, v in explanation.maps.items()}
    arrays |= {f"value_{name}": values for name, values in explanation.values.items()}
    if prediction.part_index is not None:
        labels = part_labels(predictor.model.config.model).labels
        arrays |= {"part_index": prediction.part_index, "part_labels": np.array(labels)}
        arrays |= {"boxes_crop": prediction.part_boxes, "boxes_stored": prediction.boxes}
        arrays |= {"boxes_upright": prediction.upright_boxes}
    if prediction.part_scores is not None:
        arrays["part_scores"] = prediction.part_scores
    arrays |= {"crop_pixels": explanation.crop.pixels, "logits": prediction.logits}
    arrays |= {"classes": np.array(prediction.classes), "name": np.array(prediction.name)}
    arrays |= {"view_seen": view.seen, "view_resized": view.resized, "view_crop": view.crop}
    arrays |= {"orientation": view.orientation, "turned": view.turned}
    return {name: np.asarray(value) for name, value in arrays.items()}
