"""The command knn on a backend in NumPy: its run folder, what it refuses, and its numbers."""

import csv
import json

import numpy as np
import pytest
from test_experiment import NAMES, Place, place  # noqa: F401  pytest finds the fixture by its name

from transfg_core import knn, neighbours
from transfg_core.config.loading import load_config
from transfg_core.errors import UserError
from transfg_core.knn import Features, Vote, classify, read_source, run_knn, usable_numbers
from transfg_core.neighbours import unit_length
from transfg_core.resume import is_finished
from transfg_core.run.metrics_log import read_records
from transfg_core.run.reading import load_run

VOTE = Vote((3, 1), 0.07)


@pytest.fixture
def ready(place, monkeypatch):  # noqa: F811  the imported fixture
    """A place with a configuration file, whose backend is also that of knn."""
    monkeypatch.setattr(knn, "load_backend", place.load)
    (place.folder / "bird.yaml").write_text(
        f"run: {{name: bird, dir: '{place.folder}/runs'}}\n"
        f"data: {{name: folder, root: '{place.data}', resize: 20, crop: 16}}\n"
        "model: {depth: 2, width: 8, heads: 2, mlp: 8}\ntrain: {eval_batch_size: 3}\n"
    )
    return place


def run(place, source="bird.yaml", *overrides, vote=VOTE, **flags):  # noqa: F811  the imported fixture
    return run_knn(place.folder / source, "torch", overrides, vote, **flags)


def test_a_run_folder_like_that_of_a_training(ready):
    result = run(ready)
    folder = ready.folder / "runs/bird-knn"
    assert result["run"] == str(folder)
    names = {path.name for path in folder.iterdir()} - {".lock", "tensorboard", "checkpoints"}
    assert names == {
        "config.yaml", "env.json", "metrics.jsonl", "summary.csv", "predictions.csv",
    }  # fmt: skip
    assert is_finished(folder)
    start, record, end = read_records(folder / "metrics.jsonl")
    assert (start["event"], end["event"], end["backend"]) == ("start", "finish", "fake")
    assert record["kind"] == "eval" and record["method"] == "knn" and record["k"] == 3
    assert {"top1_1", "top1_3", "top1_majority_1", "top1_majority_3"} <= record.keys()
    assert record["top1"] == record["top1_3"] and record["images"] == 4
    loaded = load_run(folder)
    assert loaded.state == "finished" and loaded.final["top1"] == record["top1"]
    assert loaded.update == 0 and loaded.config.model.classes == 2
    text = (folder / "predictions.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["image"] for row in rows] == [f"val/{name}" for name in NAMES]
    assert np.mean([row["correct"] == "1" for row in rows]) == record["top1"]
    assert json.loads((folder / "env.json").read_text())[0]["data"]


def test_images_of_their_own_brightness_find_their_class(ready):
    """The fake backend's features are channel means; each test image is as bright as one twin."""
    result = run(ready, "bird.yaml", vote=Vote((1,)))
    train, test = ([place_mean(ready, split, name) for name in NAMES] for split in ("train", "val"))
    similarity = unit_length(np.array(test)) @ unit_length(np.array(train)).T
    labels = np.array([0, 0, 1, 1])
    assert result["top1"] == np.mean(labels[similarity.argmax(axis=1)] == labels)


def place_mean(place: Place, split, name):  # noqa: F811  the imported fixture
    from transfg_core.data.decoding import read_image
    from transfg_core.data.transforms import eval_transform, normalise

    data = load_config(place.folder / "bird.yaml").data
    path = str(place.data / split / name)
    pixels = eval_transform(read_image(path, data), data)
    return normalise(pixels[None], data)[0].mean(axis=(1, 2))


def test_a_checkpoint_of_a_run(ready):
    ready.train("optim.ema=0.5")
    result = run(ready, "runs/trial/checkpoints/last.safetensors", "data.root=my data")
    assert result["run"] == "runs/trial-knn" and result["averaged"] is True
    record = read_records(ready.folder / "runs/trial-knn/metrics.jsonl")[1]
    assert record["update"] == 4 and record["averaged"] is True
    weights = load_run(ready.folder / "runs/trial-knn").weights
    assert weights["file"].endswith("last.safetensors") and weights["form"] == "this project"


def test_a_checkpoint_does_not_choose_places(ready, monkeypatch, tmp_path_factory):
    ready.train()
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    with pytest.raises(UserError, match="images outside the current folder"):
        run(ready, "runs/trial/checkpoints/last.safetensors")
    assert not list(elsewhere.iterdir())
    run(ready, "runs/trial/checkpoints/last.safetensors", f"data.root={ready.data}")
    assert (elsewhere / "runs/trial-knn/predictions.csv").is_file()


def test_a_checkpoint_chooses_no_processes_and_no_folders(ready):
    """Neither here nor in an evaluation, where images are kept is for the user to say."""
    path = ready.folder / "runs/trial/checkpoints/last.safetensors"
    ready.train("data.workers=3", "data.threads=7", "data.unpacked=elsewhere", "data.cache=away")
    own = [f"data.root={ready.data}"]
    for overrides in (own, [*own, "data.unpacked=mine"]):
        config, _ = read_source(path, overrides)
        data = config.data
        wanted = "mine" if len(overrides) == 2 else None
        assert (data.workers, data.threads, data.cache, data.unpacked) == (0, 2, None, wanted)


def test_a_used_folder_is_kept(ready):
    run(ready)
    before = ready.files()
    with pytest.raises(UserError, match="not empty.*--overwrite"):
        run(ready)
    with pytest.raises(UserError, match="--k 5: expected at most .* 4"):
        run(ready, "bird.yaml", vote=Vote((5,)), overwrite=True)
    assert ready.files() == before
    run(ready, "bird.yaml", overwrite=True)
    assert is_finished(ready.folder / "runs/bird-knn")


def test_overwriting_never_deletes_the_checkpoint(ready):
    ready.train()
    with pytest.raises(UserError, match="would delete this checkpoint"):
        run(
            ready, "runs/trial/checkpoints/last.safetensors", "data.root=my data",
            "run.name=trial", overwrite=True,
        )  # fmt: skip
    assert ready.checkpoint().exists()


def test_untrained_features_are_named(ready, capsys):
    run(ready)
    said = " ".join(capsys.readouterr().err.split())
    assert "model.pretrained is not set, so the features are those of initial values" in said


def test_a_part_layer_without_training_is_named(ready, capsys):
    ready.train("model.placement=none", "model.depth=3")
    checkpoint = f"model.pretrained={ready.checkpoint()}"
    run(ready, "bird.yaml", checkpoint, "model.depth=3")
    said = " ".join(capsys.readouterr().err.split())
    assert "part_layer.norm1.weight and 15 other parameters below the head" in said
    run(ready, "bird.yaml", checkpoint, "model.depth=3", "model.placement=none", "run.name=plain")
    assert "below the head" not in capsys.readouterr().err
    assert load_run(ready.folder / "runs/plain").weights["file"] == str(ready.checkpoint())


def test_numbers_that_the_training_split_does_not_have():
    assert usable_numbers((3, 1, 3, 200), 10) == (3, 1)
    with pytest.raises(UserError, match="--k 20"):
        usable_numbers((20, 1), 10)


def test_unreadable_training_images_are_no_neighbours(ready):
    """The numbers of neighbours are those of the readable images."""
    (ready.data / "train" / NAMES[0]).write_bytes(b"no image")
    result = run(ready, "bird.yaml", "data.on_bad_image=skip", vote=Vote((3, 1, 4)))
    assert result["train_images"] == 3 and "top1_4" not in result


def test_blocks_of_queries_give_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    bank = Features(
        unit_length(rng.normal(size=(40, 5))), rng.integers(0, 4, 40), np.arange(40), {}
    )
    test = Features(
        unit_length(rng.normal(size=(23, 5))), rng.integers(0, 4, 23), np.arange(23), {}
    )
    whole = classify(bank, test, 4, Vote((7, 1, 20)))
    sizes = []
    monkeypatch.setattr(neighbours, "QUERIES", 5)
    monkeypatch.setattr(
        knn, "nearest", lambda q, bank, k: sizes.append(len(q)) or neighbours.nearest(q, bank, k)
    )
    parts = classify(bank, test, 4, Vote((7, 1, 20)))
    assert sizes == [5, 5, 5, 5, 3]
    assert np.array_equal(parts.pop("votes"), whole.pop("votes")) and parts == whole


def test_classify_by_hand():
    bank = Features(np.eye(3, dtype=np.float32), np.array([0, 1, 1]), np.arange(3), {})
    queries = unit_length(np.array([[1, 0.9, 0.8], [0, 1, 0.1]]))
    test = Features(queries, np.array([1, 1]), np.arange(2), {"x.png": "broken"})
    record = classify(bank, test, 2, Vote((1, 3), 0.5))
    assert record["top1"] == record["top1_1"] == record["top1_majority_1"] == 0.5
    assert record["top1_3"] == record["top1_majority_3"] == 1.0
    assert record["bad_images"] == 1 and record["votes"].shape == (2, 2)
