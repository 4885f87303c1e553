"""`transfg predict` and `transfg.load` on both twins: the answers are those of the evaluation."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running import CONFIG

from transfg import load
from transfg_core.config.loading import load_config
from transfg_core.experiment import start_training
from transfg_core.inference.inputs import Input

PAGE = Path(__file__).parents[2] / "docs" / "inference.md"


@pytest.fixture(scope="module")
def place(twin, tmp_path_factory):
    """A folder with a finished run, `runs/birds`, its data, and two photographs."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "config.yaml").write_text(CONFIG)
    own = [f"run.dir={folder}/runs", "run.name=birds", f"data.root={folder}/data"]
    assert start_training(load_config(folder / "config.yaml", own), twin.name) == 0
    rng = np.random.default_rng(0)
    for name, size in (("photo.jpg", (60, 90)), ("other.png", (90, 50))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / name)
    return folder


def test_answers_are_those_of_the_evaluation(twin, place):
    """The run's last evaluation wrote predictions.csv, in batches of the same size."""
    with open(place / "runs/birds/predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    model = load(place / "runs/birds/checkpoints/last.safetensors", twin.name)
    paths = [str(place / "data/images" / row["image"]) for row in rows]
    inputs = [Input(path, path) for path in paths]
    results = [result for batch in model.stream(inputs) for _, result in batch]
    assert len(results) == len(rows) > 8
    labels = [model.classes[int(row["predicted"])] for row in rows]
    assert [result.label for result in results] == labels
    found = np.array([result.top(1)[0][1] for result in results])
    assert np.abs(found - [float(row["probability"]) for row in rows]).max() < 1e-5
    assert len(set(labels)) > 1 and found.std() > 1e-4, "the answers do not differ"
    assert {result.boxes.shape for result in results} == {(2, 4)}


def test_an_answer_leaves_the_module_as_it_was(twin, place):
    """A loop of one's own may ask between its updates: dropout stays on."""
    model = load(place / "runs/birds", twin.name)
    model.module.train()
    layers = list(model.module.modules())
    mode = "training" if twin.name == "torch" else "is_train"
    setattr(layers[3], mode, False)
    before = [getattr(layer, mode) for layer in layers]
    model(place / "photo.jpg")
    assert [getattr(layer, mode) for layer in layers] == before
    assert True in before and False in before


def test_the_module_computes_what_the_model_says(twin, place):
    model = load(place / "runs/birds", twin.name)
    images = [place / "photo.jpg", place / "other.png"]
    output = twin.run(lambda x: model.module.eval()(x).logits, model.arrays(images))
    expected = np.stack([result.logits for result in model(images)])
    assert np.abs(output[0] - expected).max() <= 1e-5 * np.abs(expected).max()


def test_the_page_runs(twin, place, monkeypatch, capsys):
    """Every Python block of docs/inference.md that names this backend."""
    monkeypatch.chdir(place)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    own = [block for block in blocks if f'"{twin.name}"' in block]
    assert len(own) == 2
    for block in own:
        space: dict = {}
        exec(compile(block, str(PAGE), "exec"), space)
        if "loss" in space:
            assert np.isfinite(float(space["loss"].item()))
    assert "photo.jpg" in capsys.readouterr().out
