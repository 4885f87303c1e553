"""A trained model classifies any image as its run's evaluation did."""

import csv
import io
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transfg_core.errors import UserError
from transfg_core.inference.inputs import Input
from transfg_core.inference.output import Writer
from transfg_core.inference.predictor import load


@pytest.fixture
def run(train):
    return train()


@pytest.fixture
def tested(run):
    """Dict: path of a test image -> the class that the run predicted."""
    with open(run / "predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {f"photographs/{row['image']}": "ab"[int(row["predicted"])] for row in rows}


def test_predictions_are_those_of_the_run_without_its_data(run, tested):
    kept = {path: Path(path).read_bytes() for path in tested}
    shutil.rmtree("photographs")
    model = load(run / "checkpoints/last.safetensors", "torch")
    results = model([io.BytesIO(content) for content in kept.values()])
    assert [result.label for result in results] == list(tested.values())
    assert model.classes == ("a", "b")
    for result in results:
        assert result.probabilities.sum() == pytest.approx(1, abs=1e-12)
        assert result.top(9) == result.top(2) and result.top(1)[0][0] == result.label
        assert result.probabilities.argmax() == result.logits.argmax()
        assert result.boxes is None


def test_every_kind_of_image_gives_the_same_logits(run, tested):
    path = next(iter(tested))
    image = Image.open(io.BytesIO(Path(path).read_bytes()))
    content = Path(path).read_bytes()
    model = load(run, "torch")
    (expected,) = model(path)
    kinds = [content, io.BytesIO(content), image, np.array(image), image.copy()]
    for result in model(kinds):
        assert (result.logits == expected.logits).all()
    assert model(np.array(image))[0].name == "image 0"
    assert model([]) == [] and model.arrays([]).shape == (0, 3, 16, 16)
    grey = np.array(image)[..., 0]
    assert (model(grey)[0].logits == model(np.stack([grey] * 3, -1))[0].logits).all()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("absent.png", "absent.png: expected an image, found no such file"),
        (b"GIF", "image 0: expected an image, found no known image format"),
        (b"", "an empty file"),
        (np.zeros((3, 9, 9), np.uint8), r"expected pixels \(H, W, 3\) or \(H, W\) of type uint8"),
        (np.zeros((9, 9, 3)), "found .* of type float64; scale them to 0 to 255"),
        (np.zeros((0, 9, 3), np.uint8), "expected pixels, found none"),
        ([3], "expected a path, bytes, a file opened for bytes, a Pillow image .*, found int"),
        (None, "image 0: expected a path, .* found NoneType"),
        (io.StringIO("x"), "found StringIO"),
        (Image.new("RGB", (0, 10)), r"no pixels \(0 x 10 pixels\); replace the file$"),
        (Image.new("RGB", (2000, 2000)), "more than data.max_megapixels 1"),
        (Image.new("RGB", (30000, 1)), "expected at most data.max_megapixels 1 after data.resize"),
    ],
)
def test_what_is_no_image(run, image, message):
    with pytest.raises(UserError, match=message) as caught:
        load(run, "torch", "data.max_megapixels=1")(image)
    assert "on_bad_image" not in str(caught.value), "there is no data set"


def test_an_image_that_is_too_small(run):
    with pytest.raises(UserError, match=r"image 0: expected at least data.crop \[16, 16\]"):
        load(run, "torch", "data.resize=null")(np.zeros((9, 9, 3), np.uint8))


def test_streams_name_what_they_cannot_read(run, tested):
    good = list(tested)
    names = [good[0], "absent.png", *good[1:], *good, "photographs"]
    model = load(run / "checkpoints/last.safetensors", "torch")
    pairs = [pair for batch in model.stream([Input(n, n) for n in names]) for pair in batch]
    assert [crop.name for crop, _ in pairs] == names
    labels = [tested.get(name) for name in names]
    assert [result and result.label for _, result in pairs] == labels
    errors = {crop.name: crop.error for crop, result in pairs if result is None}
    assert errors == {
        "absent.png": "no such file",
        "photographs": "a directory, a pipe or a device",
    }


@pytest.mark.parametrize("exif", ["apply", "ignore"])
@pytest.mark.parametrize("form", ["TIFF", "PNG", "JPEG"])
def test_a_turned_photograph_in_every_kind(run, form, exif):
    """A path, its bytes, a stream that cannot seek, and Pillow: the same answer and boxes."""
    pixels = np.random.default_rng(1).integers(0, 256, (24, 30, 3), np.uint8)
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.fromarray(pixels).save("a", format=form, exif=tags)
    content = Path("a").read_bytes()

    class Stream(io.BytesIO):
        def seek(self, *_):
            raise io.UnsupportedOperation

    model = load(run, "torch", f"data.exif={exif}")
    with Image.open("a") as opened:
        results = model(["a", content, Stream(content), opened])
    assert {result.view for result in results} == {results[0].view}
    assert (results[0].view.orientation, results[0].view.stored) == (6, (24, 30))
    assert all((result.logits == results[0].logits).all() for result in results)


def test_calls_from_threads_wait_for_one_another(run, tested):
    """A backend is used by one thread at a time: Jittor gives wrong numbers otherwise."""
    model = load(run, "torch")
    inside, most = [], []
    step = model.backend.eval_step

    def slow(images):
        inside.append(1)
        most.append(len(inside))
        threading.Event().wait(0.01)
        result = step(images)
        inside.pop()
        return result

    model.backend.eval_step = slow
    other = load(run, "torch")  # of the same framework
    other.backend.eval_step = slow
    image = next(iter(tested))
    calls = [threading.Thread(target=each, args=(image,)) for each in (model, other) * 4]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert most == [1] * 8


def test_logits_that_are_not_finite(run):
    model = load(run, "torch")
    model.backend.params["head.bias"][0] = np.nan
    with pytest.raises(UserError, match="best.safetensors: expected finite logits"):
        model(np.zeros((30, 30, 3), np.uint8))


def test_boxes_are_on_the_stored_photograph(run):
    """Patch 4 of 2 x 2 patches of 8 pixels; the crop's border is 2 pixels, the scale 3 to 2."""
    model = load(run, "torch", "data.resize=[20, 20]", "model.patch=8", "model.stride=8")
    step = model.backend.eval_step
    model.backend.eval_step = lambda images: step(images) | {"part_index": np.array([[4, 1]])}
    (result,) = model(np.zeros((30, 30, 3), np.uint8))
    assert result.boxes.tolist() == [[15, 15, 27, 27], [3, 3, 15, 15]]
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    file = io.BytesIO()
    Image.new("RGB", (30, 30)).save(file, format="PNG", exif=exif)
    (turned,) = model(file.getvalue())
    assert (turned.boxes == result.boxes).all()
    assert turned.upright_boxes.tolist() == [[3, 15, 15, 27], [15, 3, 27, 15]]


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_output(run, tested, form):
    model = load(run, "torch")
    good = next(iter(tested))
    ((read, unread),) = model.stream([Input(good, good), Input("a\x1b[1m,b.png", "absent.png")])
    writer = Writer(form, 2, 20)
    text = writer.header() + writer.line(*read) + writer.line(*unread)
    (name, share), (other, rest) = read[1].top(2)
    if form == "json":
        first, second = map(json.loads, text.splitlines())
        assert first["image"] == good and (
            first["width"],
            first["height"],
            first["orientation"],
        ) == (30, 24, 1)
        assert first["top"][1] == {"class": other, "probability": round(rest, 6)}
        assert second == {"image": "a\x1b[1m,b.png", "error": "no such file"}
    elif form == "csv":
        header, first, second = csv.reader(io.StringIO(text))
        assert header == ["image", "class_1", "probability_1", "class_2", "probability_2", "error"]
        assert first == [good, name, str(round(share, 6)), other, str(round(rest, 6)), ""]
        assert second == ["a\x1b[1m,b.png", "", "", "", "", "no such file"]
    else:
        assert f"{100 * share:.1f} % {name}, {100 * rest:.1f} % {other}" in " ".join(text.split())
        assert "not read: no such file" in text and "\x1b" not in text
