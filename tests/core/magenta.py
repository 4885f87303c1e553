"""A backend in NumPy that selects the patch that is most magenta.

It works on pixels alone, with slices of its own, so the tests of geometry do not use the code that
they test.
"""

from pathlib import Path

import numpy as np
from fake import FakeBackend
from numpy.lib.stride_tricks import sliding_window_view

from transfg_core.checkpoints.training import SavedPosition
from transfg_core.config.loading import load_config
from transfg_core.inference.predictor import Predictor
from transfg_core.inference.source import TrainedModel
from transfg_core.params.initial import initial_params

SMALL = ["model.depth=2", "model.width=8", "model.heads=2", "model.mlp=8", "model.classes=3"]


def magenta(pixels):
    """How magenta each pixel is: (..., 3) -> (...), 0 for most colours of a photograph."""
    red, green, blue = np.moveaxis(pixels.astype(float), -1, 0)
    return np.clip(np.minimum(red, blue) - green - 100, 0, None)


class MagentaBackend(FakeBackend):
    """Each head selects the patch whose centre is nearest to the centre of what is magenta."""

    def patches(self, images):
        """Likeness of each patch to the place of the magenta: (B, rows, columns)."""
        model, found = self.config.model, []
        for image in images:
            weight = magenta(image)
            assert weight.sum() > 0, "nothing magenta in the crop"
            rows, columns = (np.arange(side) + 0.5 for side in weight.shape)
            centre = [(weight.sum(1) @ rows), (weight.sum(0) @ columns)] / weight.sum()
            grid = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1)
            windows = sliding_window_view(grid, (model.patch, model.patch), (0, 1))
            centres = windows[:: model.stride, :: model.stride].mean((-1, -2))
            found.append(1 / (1 + ((centres - centre) ** 2).sum(-1)))
        return np.array(found, np.float32)

    def eval_step(self, images):
        scores = self.patches(images).reshape(len(images), 1, -1)
        heads = np.repeat(scores, self.config.model.heads, axis=1)
        index = heads.argmax(-1) + 1
        return super().eval_step(images) | {"part_scores": heads, "part_index": index}

    def rollout(self, images):
        return {"rollout": self.patches(images).reshape(len(images), -1)}

    def saliency(self, images):
        return {"saliency": magenta(images).astype(np.float32)}


def make_predictor(*settings, backend=MagentaBackend):
    """A small trained model of three classes with this backend, without a run."""
    config = load_config(None, ["run.name=trial", *SMALL, *settings])
    params = initial_params(config.model, config.data.crop, 0)
    position = SavedPosition(update=4, evaluated=4, best_top1=0.5, best_update=4)
    model = TrainedModel(
        Path("best.safetensors"), config, ("a", "b", "c"), params, position, "fake"
    )
    started = backend(config)
    started.load_params(params)
    return Predictor(model, started)
