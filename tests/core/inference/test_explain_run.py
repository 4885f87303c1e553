"""The figures of a finished run: from its predictions, and from its data set."""

from pathlib import Path

import numpy as np
import pytest
from fake import FakeBackend

from transfg_core.explain.model_figures import Subject, model_figures
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


def draw(run, named=False):
    """The names of the figures of a run, and the lines about those that are left out."""
    said = []
    subject = Subject(read_model(run), "torch", named)
    return [path.name for path in model_figures(subject, Path("figures"), said.append)], said


def test_every_figure_of_a_run(run):
    made, said = draw(run)
    assert made == ["filters.png", "positions.png", "confusion.png", "hardest.csv", "hardest.jpg",
                    "batch_train.jpg", "batch_test.jpg"]  # fmt: skip
    (line,) = said
    assert line.startswith(
        "part_hits.png: left out: part hits: expected part selection, found none"
    )


def test_data_elsewhere_is_read_only_if_the_user_says_so(run, tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    made, said = draw(run)
    assert "confusion.png" in made and not {"hardest.jpg", "batch_train.jpg"} & set(made)
    assert sum("images outside the current folder" in line for line in said) >= 3
    made, said = draw(run, named=True)
    assert {"hardest.jpg", "batch_train.jpg", "batch_test.jpg"} <= set(made)


def test_batches_are_those_of_the_run(run):
    """The batch of the first update, and test images; both with the labels of the data set."""
    subject = Subject(read_model(run), "torch", named=True)
    train, test = subject.train_batch(), subject.test_batch()
    assert train.images.shape == (4, 16, 16, 3) and len(test.labels) == len(
        subject.dataset.test.ids
    )
    for row, path in enumerate(subject.dataset.test.paths):
        assert subject.dataset.classes[test.labels[row]] == Path(path).parent.name


def test_a_hard_image_that_is_gone_is_crossed(run):
    subject = Subject(read_model(run), "torch", named=True)
    wrong = hardest(subject.predictions)
    assert wrong and subject.dataset
    before = subject.hard_images()
    assert len(before) == len(wrong) and None not in before
    Path("photographs", wrong[0].image).write_text("broken")
    assert subject.hard_images()[0] is None and None not in subject.hard_images()[1:]
