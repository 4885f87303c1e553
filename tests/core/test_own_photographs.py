"""A run on one's own photographs: a flat folder, a drawn split, a length in epochs."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from fake import FakeBackend
from PIL import Image

from transfg_core import experiment, trained
from transfg_core.checkpoints import file as checkpoint
from transfg_core.config.loading import load_config
from transfg_core.errors import UserError
from transfg_core.experiment import start_training
from transfg_core.trained import evaluate_checkpoint

SETTINGS = [
    "data.name=folder", "data.split=auto", "data.resize=20", "data.crop=16", "optim.warmup=1",
    "train.epochs=2", "train.batch_size=4", "train.eval_every=2", "train.eval_batch_size=4",
    "model.depth=2", "model.width=8", "model.heads=2", "model.mlp=8",
]  # fmt: skip


class Photographs:
    """Twelve photographs of class a and six of class b in one flat folder, and their runs."""

    def __init__(self, folder):
        self.root, self.runs = folder / "photographs", folder / "runs"
        rng = np.random.default_rng(0)
        for number in range(18):
            self.add(f"{'aab'[number % 3]}/{number:02}.png", rng)
        (self.root / "b/new.heic").write_bytes(b"?")

    def add(self, name, rng):
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 30, 3), np.uint8)).save(self.root / name)

    def train(self, *overrides, **flags):
        own = [f"data.root={self.root}", f"run.dir={self.runs}", "run.name=trial"]
        config = load_config(None, [*SETTINGS, *own, *overrides])
        return start_training(config, "torch", **flags)

    @property
    def last(self):
        return self.runs / "trial/checkpoints/last.safetensors"

    def rows(self, run="trial"):
        with open(self.runs / run / "split.csv", encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def predicted(self, path="trial/predictions.csv"):
        with open(self.runs / path, encoding="utf-8", newline="") as file:
            return [row["image"] for row in csv.DictReader(file)]


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    for module in (experiment, trained):
        monkeypatch.setattr(module, "load_backend", lambda name, config: FakeBackend(config))
    monkeypatch.chdir(tmp_path)
    return Photographs(tmp_path)


def test_the_split_is_written_and_used(photographs, capsys):
    assert photographs.train() == 0
    rows = photographs.rows()
    tests = [row["image"] for row in rows if row["split"] == "test"]
    assert (len(rows), len(tests)) == (18, 3) and photographs.predicted() == sorted(tests)
    said = capsys.readouterr().err
    assert "15 training and 3 test images" in said
    assert "split.csv: 18 images in 18 groups" in said
    assert "left out: 1 HEIC photographs" in said and "b/new.heic" in said
    result, dataset = evaluate_checkpoint(photographs.last, "torch", [])
    assert list(dataset.test.ids) == photographs.predicted() and result.images == 3
    (start,) = json.loads((photographs.runs / "trial/env.json").read_text())
    assert (start["data"]["training_images"], start["data"]["test_images"]) == (15, 3)
    assert start["data"]["left_out"][0]["count"] == 1


def test_resume_reads_the_list_and_not_the_folder(photographs):
    photographs.train()
    before = photographs.rows()
    photographs.add("a/new.png", np.random.default_rng(1))
    assert photographs.train(resume=True) == 0
    assert photographs.rows() == before
    (photographs.root / "a/00.png").unlink()
    with pytest.raises(UserError, match=r"17 of 18: a/00\.png is absent; restore"):
        photographs.train(resume=True)


def test_resume_refuses_other_photographs(photographs, tmp_path):
    photographs.train()
    shutil.rmtree(photographs.root)
    rng = np.random.default_rng(2)
    for number in range(18):
        photographs.add(f"{'aab'[number % 3]}/x{number:02}.png", rng)
    with pytest.raises(UserError, match=r"not those of the run's split\.csv"):
        photographs.train(resume=True)


def test_a_run_from_a_checkpoint_keeps_its_split(photographs):
    """Another seed would draw another split, and train with what the model was tested on."""
    photographs.train()
    photographs.train("run.name=more", "run.seed=7", "train.epochs=9", resume_from=photographs.last)
    assert photographs.rows("more") == photographs.rows()
    photographs.train("run.name=fresh", "run.seed=7")
    assert photographs.rows("fresh") != photographs.rows()


def test_a_moved_checkpoint_needs_its_list(photographs, tmp_path):
    photographs.train()
    (tmp_path / "moved").mkdir()
    moved = tmp_path / "moved/best.safetensors"
    shutil.copy(photographs.last, moved)
    more = ("run.name=more", "run.seed=7", "train.epochs=9")
    said = r"split\.csv .*copy it beside the checkpoint"
    with pytest.raises(UserError, match=said):
        evaluate_checkpoint(moved, "torch", [])
    with pytest.raises(UserError, match=rf"{said}.*model\.pretrained={moved}"):
        photographs.train(*more, resume_from=moved)
    assert not (photographs.runs / "more").exists()
    shutil.copy(photographs.runs / "trial/split.csv", tmp_path / "moved")
    assert evaluate_checkpoint(moved, "torch", [])[0].images == 3
    photographs.train(*more, resume_from=moved)
    assert photographs.rows("more") == photographs.rows()


def test_a_run_without_its_list_is_not_resumed(photographs):
    photographs.train()
    (photographs.runs / "trial/split.csv").unlink()
    with pytest.raises(UserError, match=r"expected the split\.csv"):
        photographs.train(resume=True)


def test_the_list_is_found_from_inside_the_folder(photographs, monkeypatch):
    photographs.train()
    monkeypatch.chdir(photographs.last.parent)
    named = [f"data.root={photographs.root}"]
    assert evaluate_checkpoint(Path(photographs.last.name), "torch", named)[0].images == 3


def test_a_list_one_folder_up_belongs_to_run_folders_alone(photographs, tmp_path):
    photographs.train()
    (tmp_path / "weights").mkdir()
    shutil.copy(photographs.last, tmp_path / "weights")
    shutil.copy(photographs.runs / "trial/split.csv", tmp_path / "weights")
    (tmp_path / "split.csv").write_text("my own table\n")
    moved = tmp_path / "weights/last.safetensors"
    assert evaluate_checkpoint(moved, "torch", [])[0].images == 3
    (tmp_path / "weights/split.csv").unlink()
    with pytest.raises(UserError, match="copy it beside the checkpoint"):
        evaluate_checkpoint(moved, "torch", [])


def test_the_list_beside_the_checkpoint_comes_first(photographs):
    """This is where the message asks for it."""
    photographs.train()
    shutil.copy(photographs.runs / "trial/split.csv", photographs.last.parent)
    (photographs.runs / "trial/split.csv").write_text("my own table\n")
    assert evaluate_checkpoint(photographs.last, "torch", [])[0].images == 3


def test_epochs_become_updates_once(photographs):
    """2 epochs of 15 images in batches of 4 are 7.5 updates."""
    photographs.train()
    assert load_config(photographs.runs / "trial/config.yaml").train.steps == 8
    _, metadata = checkpoint.load(photographs.last)
    train = metadata["config"]["train"]
    assert (train["steps"], train["epochs"]) == (8, None)
    assert metadata["position"]["update"] == 8
    assert photographs.train("train.epochs=null", "train.steps=8", resume=True) == 0
    with pytest.raises(UserError, match="steps: 8 -> 12"):
        photographs.train("train.epochs=3", resume=True)


def test_epochs_and_warmup(photographs):
    with pytest.raises(UserError, match=r"2 epochs of 15 images are 8 updates.*optim\.warmup 9"):
        photographs.train("optim.warmup=9")


def test_overwrite_draws_a_new_split(photographs):
    photographs.train()
    before = photographs.rows()
    assert photographs.train("run.seed=7", overwrite=True) == 0
    assert photographs.rows() != before


def test_a_foreign_split_csv_disturbs_no_other_run(photographs):
    """Only a drawn split reads the file, and then a foreign one is named."""
    photographs.train()
    (photographs.runs / "trial/split.csv").write_text("my own table\n")
    with pytest.raises(UserError, match=r"split\.csv, line 1"):
        evaluate_checkpoint(photographs.last, "torch", [])
    result, _ = evaluate_checkpoint(photographs.last, "torch", ["data.split=official"])
    assert result.images == 18
