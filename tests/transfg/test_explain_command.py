"""The command `transfg explain`: its files, its messages and its exit codes."""

from pathlib import Path

import numpy as np
import pytest
from magenta import make_predictor
from PIL import Image
from typer.testing import CliRunner

from transfg.app import app
from transfg_core.errors import UserError
from transfg_core.inference import predictor, source

SETTINGS = ["data.resize=36", "data.crop=32", "model.patch=8"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with two photographs and a broken one in `photographs`."""
    monkeypatch.chdir(tmp_path)

    def load(run, backend, *overrides):
        return make_predictor(*SETTINGS, *overrides)

    monkeypatch.setattr(predictor, "load", load)
    monkeypatch.setattr(source, "read_model", lambda run, overrides: load(run, "").model)
    Path("photographs").mkdir()
    pixels = np.full((60, 80, 3), 90, np.uint8)
    pixels[25:35, 35:45] = 255, 0, 255
    for name in ("a.png", "b.jpg"):
        Image.fromarray(pixels).save(tmp_path / "photographs" / name)
    Path("photographs/broken.png").write_text("no image")
    return tmp_path


def explain(*words, **options):
    return CliRunner().invoke(app, ["explain", "RUN", *words], **options)


def test_a_broken_image_is_named_and_the_exit_code_is_1(folder):
    done = explain("photographs", "--out", "figures")
    assert done.exit_code == 1
    assert done.stdout.split() == ["figures/a.png", "figures/b.png"]
    names = sorted(path.name for path in Path("figures").iterdir())
    assert names == ["a.npz", "a.png", "b.npz", "b.png"]
    assert "photographs/broken.png: not read: no known image format" in done.stderr
    assert "1 of 3 images could not be read" in done.stderr


def test_standard_input_and_overrides(folder):
    content = Path("photographs/a.png").read_bytes()
    done = explain("-", "data.resize=null", "--out", "figures", input=content)
    assert done.exit_code == 0 and done.stdout.split() == ["figures/standard_input.png"]
    with np.load("figures/standard_input.npz") as arrays:
        assert arrays["view_resized"].tolist() == [60, 80]


def test_images_and_the_model_in_one_call(folder):
    done = explain("photographs/b.jpg", "--model", "--out", "figures")
    assert done.exit_code == 0
    expected = [f"figures/{name}" for name in ("b.png", "filters.png", "positions.png")]
    assert done.stdout.split() == expected and "confusion.png: left out" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "IMAGE: expected files, folders or patterns, found none; name one, or add --model"),
        (["photographs/*.gif"], "expected a pattern of image files, found no match"),
        (["photographs/a.png", "--out", "photographs/a.png"], "is no folder"),
        (["photographs/a.png", "data.crop=900"], "is smaller than data.crop"),
    ],
)
def test_wrong_usage_is_a_message(folder, words, message):
    done = explain(*words)
    assert isinstance(done.exception, UserError) and done.exception.exit_code == 2
    assert message in str(done.exception) and not list(folder.glob("explain/*"))
