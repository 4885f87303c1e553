"""Classify images of any kind with a trained model, in either framework.

from transfg import load
model = load("runs/birds", "jittor")
for result in model(["a.jpg", "b.jpg"]):
    print(result.label, result.top(5))
"""

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transfg_core.backend import Arrays, Backend
from transfg_core.data.loader import read_ahead
from transfg_core.data.transforms import normalise
from transfg_core.data.view import View
from transfg_core.errors import Diverged
from transfg_core.inference.images import (
    Crop,
    CropReader,
    ImageLike,
    as_list,
    crop_of,
    decode,
    name_of,
)
from transfg_core.inference.inputs import Input
from transfg_core.inference.source import TrainedModel, read_model
from transfg_core.metrics import log_sum_exp, patch_boxes
from transfg_core.models.layout import part_grid

LOCKS: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)  # by framework


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says of one image.

    `logits` (C,) and `probabilities` (C,) are in the order of `classes`. `part_index` (S,) counts
    the selected patches from 1, and `part_boxes` (S, 4) are these patches in pixels of the crop;
    both are None without part selection. `part_scores` (J, N) are the scores of all patches, if
    scores choose the parts. `view` leads from the crop back to the photograph.
    """

    name: str
    classes: tuple[str, ...]
    logits: NDArray[np.floating[Any]]
    view: View
    part_index: NDArray[np.int64] | None = None
    part_boxes: NDArray[np.float64] | None = None
    part_scores: NDArray[np.floating[Any]] | None = None

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Softmax of the logits, in float64: (C,)."""
        wide = self.logits.astype(np.float64)
        shares: NDArray[np.float64] = np.exp(wide - log_sum_exp(wide[None])[0])
        return shares

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.classes[int(self.logits.argmax())]

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The most probable classes with their probabilities, the most probable first."""
        order, shares = np.argsort(-self.logits, kind="stable")[:count], self.probabilities
        return [(self.classes[k], float(shares[k])) for k in order]

    @property
    def boxes(self) -> NDArray[np.float64] | None:
        """The selected patches in pixels of the stored photograph: (S, 4) left, top, right, bottom.

        They are those of `upright_boxes` if the file's EXIF data asks for no turning.
        """
        return None if self.part_boxes is None else self.view.to_stored(self.part_boxes)

    @property
    def upright_boxes(self) -> NDArray[np.float64] | None:
        """The selected patches in pixels of the photograph as a browser shows it: (S, 4)."""
        return None if self.part_boxes is None else self.view.to_upright(self.part_boxes)


class Predictor:
    """A trained model in one framework. Calls from several threads wait for one another.

    All models of a framework wait together: Jittor is not thread-safe.
    """

    def __init__(self, model: TrainedModel, backend: Backend) -> None:
        self.model, self.backend = model, backend
        self._lock = LOCKS[backend.name]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return self.model.classes

    @property
    def module(self) -> Any:
        """The framework's own module, with the parameters: for a loop of one's own.

        It takes tensors of `arrays` and returns an `Output` with `logits` and `part_index`. With
        `model.selection` random or center it also takes the parts (`transfg_core.parts`).
        """
        return self.backend.model

    def arrays(self, images: ImageLike | Iterable[ImageLike]) -> NDArray[np.float32]:
        """Normalised evaluation crops, the input of `module`: (B, 3, H, W).

        Raises:
            UserError: see `__call__`.
        """
        crops = [self.crop(image, name_of(image, k)) for k, image in enumerate(as_list(images))]
        data = self.model.config.data
        pixels = np.zeros((len(crops), *data.crop, 3), np.uint8)
        for row, crop in enumerate(crops):
            pixels[row] = crop.pixels
        return normalise(pixels, data)

    def __call__(self, images: ImageLike | Iterable[ImageLike]) -> list[Prediction]:
        """Classify one image or several: paths, bytes, opened files, Pillow images or arrays.

        Arrays are uint8, (H, W, 3) or (H, W).

        Raises:
            UserError: an image is not readable, or smaller than the crop.
            RunFailed: the logits are not finite.
        """
        named = [(image, name_of(image, k)) for k, image in enumerate(as_list(images))]
        crops = [self.crop(image, name) for image, name in named]
        size = self.model.config.train.eval_batch_size
        batches = (crops[first : first + size] for first in range(0, len(crops), size))
        return [result for batch in batches for result in self.predict(batch)]

    def crop(self, image: ImageLike, name: str) -> Crop:
        """The evaluation crop of an image.

        Raises:
            UserError: see `__call__`.
        """
        data = self.model.config.data
        return crop_of(decode(image, name, data), name, data)

    def predict(self, crops: Sequence[Crop]) -> list[Prediction]:
        """Classify the readable crops among these, as one batch.

        Raises:
            RunFailed: the logits are not finite.
        """
        good = [crop for crop in crops if crop.view]
        if not good:
            return []
        output = self.run(np.stack([crop.pixels for crop in good]))
        results = []
        for row, crop in enumerate(good):
            index = output["part_index"][row] if "part_index" in output else None
            boxes = None if index is None else self._patches()[index - 1]
            assert crop.view
            scores = output["part_scores"][row] if "part_scores" in output else None
            logits = output["logits"][row]
            results.append(
                Prediction(crop.name, self.classes, logits, crop.view, index, boxes, scores)
            )
        return results

    def run(self, images: NDArray[np.uint8]) -> Arrays:
        """What `Backend.eval_step` computes of crops (B, H, W, 3).

        Raises:
            RunFailed: the logits are not finite.
        """
        output = self.locked("eval_step", images)
        if not np.isfinite(output["logits"]).all():
            raise Diverged(
                f"{self.model.path}: expected finite logits, found inf or nan; take another "
                "checkpoint"
            )
        return output

    def locked(self, method: str, images: NDArray[np.uint8]) -> Arrays:
        """What a method of the backend computes of crops (B, H, W, 3), one call at a time."""
        with self._lock:
            return self.backend.fetch(getattr(self.backend, method)(images))

    def stream(self, inputs: Sequence[Input]) -> Iterator[list[tuple[Crop, Prediction | None]]]:
        """Classify inputs, which other threads read meanwhile: batches of crops with results.

        The result of an unreadable image is None; its crop has the reason.

        Raises:
            RunFailed: the logits are not finite.
        """
        data, size = self.model.config.data, self.model.config.train.eval_batch_size
        batch: list[Crop] = []
        for crop in read_ahead(CropReader(inputs, data), range(len(inputs)), data, size):
            batch.append(crop)
            if len(batch) == size:
                yield self._with_results(batch)
                batch = []
        if batch:
            yield self._with_results(batch)

    def _with_results(self, crops: Sequence[Crop]) -> list[tuple[Crop, Prediction | None]]:
        results = iter(self.predict(crops))
        return [(crop, next(results) if crop.view else None) for crop in crops]

    def _patches(self) -> NDArray[np.float64]:
        config = self.model.config
        return patch_boxes(part_grid(config.model, config.data.crop, "selected patches"))


def load(place: str | PathLike[str], backend: str = "torch", *overrides: str) -> Predictor:
    """Load a trained model: a run's folder, a checkpoint, or a folder that `transfg export` wrote.

    `overrides` change its configuration, such as `data.exif=apply`.

    Raises:
        UserError: there is no such model, it is damaged, or the framework is missing.
    """
    model = read_model(Path(place), overrides)
    return Predictor(model, model.start(backend))
