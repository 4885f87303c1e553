"""A finished run on a small folder of photographs, with the backend in NumPy."""

import numpy as np
import pytest
from fake import FakeBackend
from PIL import Image

from transfg_core import experiment
from transfg_core.config.loading import load_config
from transfg_core.experiment import start_training
from transfg_core.inference import source

SETTINGS = [
    "data.name=folder", "data.split=auto", "data.resize=20", "data.crop=16", "optim.warmup=1",
    "train.steps=4", "train.batch_size=4", "train.eval_every=2", "train.eval_batch_size=4",
    "model.depth=2", "model.width=8", "model.heads=2", "model.mlp=8", "run.name=trial",
]  # fmt: skip


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Photographs of two classes in tmp_path/photographs; a call trains and returns the run."""
    for module in (experiment, source):
        monkeypatch.setattr(module, "load_backend", lambda name, config: FakeBackend(config))
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for number in range(18):
        path = tmp_path / "photographs" / "aab"[number % 3] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        # of different brightness, by which the backend in NumPy classifies
        Image.fromarray(rng.integers(0, 12 * number + 40, (24, 30, 3), np.uint8)).save(path)

    def run(*overrides):
        own = [f"data.root={tmp_path / 'photographs'}", f"run.dir={tmp_path / 'runs'}"]
        assert start_training(load_config(None, [*SETTINGS, *own, *overrides]), "torch") == 0
        return tmp_path / "runs" / "trial"

    return run
