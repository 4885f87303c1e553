"""Figures of a run from its predictions and its data set."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from transfg_core.backend import Batch
from transfg_core.config.loading import load_config
from transfg_core.errors import UserError
from transfg_core.explain import model_figures, run_figures
from transfg_core.explain.model_figures import FIGURES, Subject, evenly_spread, refuse_other_files
from transfg_core.explain.ours import MADE_BY, OF_MODEL, made_here
from transfg_core.explain.run_figures import (
    PredictionRow,
    confusion_matrix,
    denormalised,
    hardest,
    hardest_csv,
    label_lines,
    shares_by_label,
)

CLASSES = ("finch", "tit", "wren")
ROWS = [
    PredictionRow("a", 0, 0, 0.9), PredictionRow("b", 0, 2, 0.5), PredictionRow("c", 0, 2, 0.7),
    PredictionRow("d", 1, 1, 0.4), PredictionRow("e", 2, 0, 0.6), PredictionRow("f", 2, 0, 0.7),
]  # fmt: skip


def test_rows_of_the_confusion_matrix_are_true_classes():
    assert confusion_matrix(ROWS, 3).tolist() == [[1, 0, 2], [0, 1, 0], [2, 0, 0]]


def test_the_hardest_images_are_the_surest_mistakes():
    assert [row.image for row in hardest(ROWS)] == ["c", "f", "e", "b"]
    rows = list(csv.reader(io.StringIO(hardest_csv(ROWS, CLASSES, 7).decode())))
    assert rows[0] == ["image", "class", "taken_for", "probability", "update"]
    assert rows[1] == ["c", "finch", "wren", "0.7", "7"] and len(rows) == 5


@pytest.mark.parametrize("normalise", ["imagenet", "half"])
def test_a_batch_is_turned_back_into_its_pixels(normalise):
    data = load_config(None, ["run.name=a", f"data.normalise={normalise}"]).data
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, 4, 5, 3), np.uint8)
    assert np.array_equal(denormalised(Batch(pixels, np.zeros(2, np.int64)), data), pixels)


def test_a_mixed_image_has_both_classes():
    batch = Batch(np.zeros((2, 4, 4, 3), np.uint8), np.array([0, 2]))
    assert label_lines(batch, 1, CLASSES) == ["wren"]
    mixed = batch._replace(targets=np.float32([[0.7, 0.3, 0], [0, 0, 1]]))
    assert label_lines(mixed, 0, CLASSES) == ["70 % finch", "30 % tit"]
    assert label_lines(mixed, 1, CLASSES) == ["100 % wren"]


def test_hits_of_equal_labels_are_averaged():
    hits = np.array([[1, 0, 1], [1, np.nan, 0]])
    names, shares = shares_by_label(["1", "2", "1"], hits)
    assert names == ["1", "2"] and shares.tolist() == [0.75, 0]


def test_places_are_spread_over_the_split():
    assert evenly_spread(10, 3) == [0, 4, 9]
    assert evenly_spread(2, 24) == [0, 1] and evenly_spread(1, 5) == [0]


@pytest.mark.parametrize("draw", ["confusion", "hits"])
def test_plots_are_png_files(draw):
    pytest.importorskip("matplotlib")
    if draw == "confusion":
        names = [f"{number:03}.Long_Name_of_a_Bird" for number in range(20)]
        content = run_figures.draw_confusion(ROWS, names, 7)
    else:
        hits = np.array([[1.0, 0.0], [0.0, 0.0]])
        content = run_figures.draw_part_hits(["1", "2"], hits, 0.25, 2, "update 4, best")
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format == "PNG" and picture.width > 400
        grey = np.asarray(picture.convert("L"))
        for edge in (grey[0], grey[-1], grey[:, 0], grey[:, -1]):
            assert (edge == 255).all(), "something is cut at the border"


def test_the_title_of_part_hits_names_the_model(monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(run_figures, "saved", lambda figure: figure.axes[0].get_title("left"))
    title = run_figures.draw_part_hits(["1"], np.array([[1.0], [0]]), 0.25, 2, "update 4, best")
    assert title == "Part hits: 50.0 %, by chance 25.0 % (2 images)\nupdate 4, best"


def test_what_is_missing_is_named_and_the_rest_is_drawn(tmp_path, predictor):
    """A checkpoint outside of a run has no predictions and no data set, but has parameters."""
    model = predictor("data.root=elsewhere/none").model
    said = []
    subject = Subject(replace(model, path=tmp_path / "best.safetensors"), "fake", True)
    paths = list(model_figures.model_figures(subject, tmp_path / "out", said.append))
    assert [path.name for path in paths] == ["filters.png", "positions.png"]
    assert [line.partition(":")[0] for line in said] == [
        "confusion.png", "hardest.csv", "hardest.jpg", "batch_train.jpg", "batch_test.jpg",
        "part_hits.png",
    ]  # fmt: skip
    assert "expected a run's folder with predictions.csv" in said[0]
    assert all("left out" in line for line in said)


def test_the_figures_have_the_names_that_are_reserved():
    assert tuple(FIGURES) == OF_MODEL


def jpeg(comment=None):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, format="JPEG", comment=comment)
    return file.getvalue()


@pytest.mark.parametrize("name", OF_MODEL)
def test_a_file_of_another_program_stops_before_any_work(tmp_path, predictor, name):
    """Whatever it holds: text, a picture without the mark, the table of an older version."""
    contents = [b"mine", b"image,class,taken_for,probability\n", jpeg(), jpeg("another")]
    subject = Subject(predictor().model, "fake", True)
    for content in contents:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: expected no file or one of transfg explain"):
            list(model_figures.model_figures(subject, tmp_path, print))
        assert [path.name for path in tmp_path.iterdir()] == [name]
        assert (tmp_path / name).read_bytes() == content
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("gone")
    with pytest.raises(UserError, match="expected no file"):
        refuse_other_files(tmp_path)


def test_only_figures_of_the_command_are_known_again(tmp_path):
    contents = {
        "hardest.jpg": jpeg(MADE_BY),
        "hardest.csv": hardest_csv(ROWS, CLASSES, 7),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert made_here(tmp_path / name)
