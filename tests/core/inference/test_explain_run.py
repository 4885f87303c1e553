"""`transfg explain` of a finished run: the command, its exit codes, and the run's own figures."""

from pathlib import Path

import numpy as np
import pytest
from fake import FakeBackend
from typer.testing import CliRunner

from transfg.app import app
from transfg_core.errors import UserError
from transfg_core.explain.model_figures import Subject
from transfg_core.explain.run_figures import hardest
from transfg_core.inference.source import read_model


@pytest.fixture
def run(train, monkeypatch):
    def saliency(self, images):
        return {"saliency": images.max(-1).astype(np.float32)}

    def rollout(self, images):
        return {"rollout": np.ones((len(images), 4), np.float32)}  # of 2 x 2 patches

    monkeypatch.setattr(FakeBackend, "saliency", saliency, raising=False)
    monkeypatch.setattr(FakeBackend, "rollout", rollout, raising=False)
    return train("model.placement=none")


def explain(*words, **options):
    return CliRunner().invoke(app, ["explain", *map(str, words)], **options)


def test_images_of_a_folder(run):
    Path("photographs/a/broken.png").write_text("no image")
    done = explain(run, "photographs/a", "--out", "figures")
    assert done.exit_code == 1
    names = sorted(path.name for path in Path("figures").iterdir())
    good = sorted(path.stem for path in Path("photographs/a").glob("[0-9]*.png"))
    assert names == sorted(f"{stem}.{ending}" for stem in good for ending in ("png", "npz"))
    assert done.stdout.split() == [f"figures/{stem}.png" for stem in good]
    assert "broken.png: not read: no known image format" in done.stderr
    assert f"1 of {len(good) + 1} images could not be read" in done.stderr


def test_standard_input_and_overrides(run):
    content = Path("photographs/a/00.png").read_bytes()
    done = explain(run, "-", "data.resize=null", "--out", "figures", input=content)
    assert done.exit_code == 0
    with np.load("figures/standard_input.npz") as arrays:
        assert arrays["view_resized"].tolist() == [24, 30]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "IMAGE: expected files, folders or patterns, found none; name one, or add --model"),
        (["photographs/*.gif"], "expected a pattern of image files, found no match"),
        (["photographs/a", "--out", "photographs/a/00.png"], "is no folder"),
        (["photographs/a", "data.crop=900"], "smaller than data.crop"),
    ],
)
def test_wrong_usage(run, words, message):
    done = explain(run, *words)
    error = done.exception
    found = str(error) if isinstance(error, UserError) else done.output
    assert done.exit_code != 0 and message in found


def test_every_figure_of_a_run(run):
    done = explain(run, "--model", "--out", "figures")
    assert done.exit_code == 0, done.output
    made = [Path(line).name for line in done.stdout.split()]
    assert made == ["filters.png", "positions.png", "confusion.png", "hardest.csv", "hardest.jpg",
                    "batch_train.jpg", "batch_test.jpg"]  # fmt: skip
    assert "part_hits.png: left out: part hits: expected part selection" in done.stderr
    assert not done.exception


def test_batches_are_those_of_the_run(run):
    """The batch of the first update, and test images; both with the labels of the data set."""
    subject = Subject(read_model(run), "torch", named=True)
    train, test = subject.train_batch(), subject.test_batch()
    assert train.images.shape == (4, 16, 16, 3) and len(test.labels) == len(
        subject.dataset.test.ids
    )
    for row, path in enumerate(subject.dataset.test.paths):
        assert subject.dataset.classes[test.labels[row]] == Path(path).parent.name


def test_data_elsewhere_is_read_only_if_the_user_says_so(run, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    done = explain(run, "--model", "--out", "figures")
    assert done.exit_code == 0 and "hardest.jpg: left out" in done.stderr
    assert "images outside the current folder" in done.stderr
    done = explain(run, "--model", "--out", "figures", f"data.root={tmp_path / 'photographs'}")
    assert "figures/hardest.jpg" in done.stdout.split()


def test_a_hard_image_that_is_gone_is_crossed(run):
    subject = Subject(read_model(run), "torch", named=True)
    wrong = hardest(subject.predictions)
    assert wrong and subject.dataset
    before = subject.hard_images()
    assert len(before) == len(wrong) and None not in before
    Path("photographs", wrong[0].image).write_text("broken")
    assert subject.hard_images()[0] is None and None not in subject.hard_images()[1:]
