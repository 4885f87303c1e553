"""A trained model without a framework, with the backend of `magenta.py`."""

from pathlib import Path

import pytest
from magenta import MagentaBackend

from transfg_core.checkpoints.training import SavedPosition
from transfg_core.config.loading import load_config
from transfg_core.inference.predictor import Predictor
from transfg_core.inference.source import TrainedModel
from transfg_core.params.initial import initial_params

SMALL = ["model.depth=2", "model.width=8", "model.heads=2", "model.mlp=8", "model.classes=3"]


@pytest.fixture
def predictor():
    """A call makes a predictor from settings."""

    def make(*settings, backend=MagentaBackend):
        config = load_config(None, ["run.name=trial", *SMALL, *settings])
        params = initial_params(config.model, config.data.crop, 0)
        position = SavedPosition(update=4, evaluated=4, best_top1=0.5, best_update=4)
        classes = tuple("abcdefgh"[: config.model.classes])
        model = TrainedModel(Path("best.safetensors"), config, classes, params, position, "fake")
        started = backend(config)
        started.load_params(params)
        return Predictor(model, started)

    return make
