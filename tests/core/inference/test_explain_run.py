"""The figures of a finished run: from its predictions, and from its data set."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake import FakeBackend

from transfg_core.data.datasets import read_dataset
from transfg_core.errors import Diverged, RunFailed
from transfg_core.explain import run_figures, weights
from transfg_core.explain.model_figures import FIGURES, Subject, model_figures
from transfg_core.explain.ours import made_here
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


def test_titles_say_the_update(run, monkeypatch):
    """Predictions are of the last update, parameters of the best one; the titles name both."""
    titles = []
    draw_panel = weights.one_panel
    monkeypatch.setattr(
        weights, "one_panel", lambda title, *rest: titles.append(title) or draw_panel(title, *rest)
    )
    monkeypatch.setattr(
        run_figures, "sheet", lambda tiles, title, note: titles.append(title) or b"sheet"
    )
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(
        run_figures,
        "saved",
        lambda figure: titles.append(figure.axes[0].get_title("left")) or b"plot",
    )
    checkpoint = run / "checkpoints" / "last.safetensors"
    saved = read_model(checkpoint)
    earlier = replace(saved, position=saved.position.model_copy(update={"update": 3}))
    subject = Subject(earlier, "torch", named=True)
    for name in ("filters.png", "positions.png", "hardest.jpg", "confusion.png"):
        FIGURES[name](subject)
    last = saved.position.update
    assert last != 3 and subject.update == last
    assert titles.pop().endswith(f"correct\nupdate {last}, the run's last evaluation")
    assert titles == [
        "Filters of the first layer: update 3, last",
        "Similarity of position embeddings: update 3, last",
        f"Hardest images: update {last}, the run's last evaluation",
    ]
    monkeypatch.undo()


def test_every_figure_is_known_again(run):
    for _ in range(2):
        made, _ = draw(run)
        assert len(made) == 7 and all(made_here(Path("figures", name)) for name in made)
    rows = Path("figures/hardest.csv").read_text().splitlines()
    last = read_model(run / "checkpoints" / "last.safetensors").position.update
    assert len(rows) > 1 and all(row.endswith(f",{last}") for row in rows[1:])


def test_predictions_of_a_run_that_goes_on_are_left_out(run):
    """A resumed run has predictions.csv of its earlier end."""
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"kind": "event", "event": "resume", "backend": "torch", "update": 2}\n')
    made, said = draw(run)
    assert not {"confusion.png", "hardest.csv", "hardest.jpg"} & set(made)
    assert "expected predictions.csv of a finished run, found the run unfinished" in said[0]


@pytest.mark.parametrize("kind", ["train", "test"])
def test_a_broken_image_of_the_data_set_ends_the_command(run, kind):
    """It is no figure that the run does not have; the exit code says so."""
    dataset = Subject(read_model(run), "torch", named=True).dataset
    samples = dataset.test
    if kind == "train":
        samples = read_dataset(read_model(run).config.data, 0, None).train
    for path in map(Path, samples.paths):  # of the same length, which split.csv records
        path.write_bytes(bytes(path.stat().st_size))
    subject = Subject(read_model(run), "torch", named=True)
    with pytest.raises(RunFailed, match="expected an image") as caught:
        list(model_figures(subject, Path("figures"), print))
    assert caught.value.exit_code == 1


def test_a_model_that_has_diverged_ends_the_command(run):
    def diverge(subject):
        raise Diverged("expected finite logits")

    subject = Subject(read_model(run), "torch", named=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FIGURES, "part_hits.png", diverge)
        with pytest.raises(Diverged):
            list(model_figures(subject, Path("figures"), print))


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
