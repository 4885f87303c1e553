"""`transfg explain` of images: files, names, arrays, and what happens to broken images."""

import numpy as np
import pytest
from PIL import Image

from transfg_core.data.view import View
from transfg_core.explain import images
from transfg_core.explain.figure import outlined
from transfg_core.explain.images import Stems, explain_images, stem_of
from transfg_core.explain.ours import OF_MODEL, made_here
from transfg_core.inference.inputs import Input


def write(path, size=(120, 90), spot=(60, 45)):
    """A photograph with a magenta spot, which the backend of these tests looks for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], 3), 90, np.uint8)
    reach = max(2, min(size) // 15)
    pixels[spot[1] - reach : spot[1] + reach, spot[0] - reach : spot[0] + reach] = (255, 0, 255)
    Image.fromarray(pixels).save(path)
    return Input(str(path), str(path))


@pytest.fixture
def run(tmp_path, predictor):
    """A call explains inputs into tmp_path/out: the paths, and the lines that were said."""
    model = predictor("data.resize=72", "data.crop=64", "model.patch=8")

    def explain(*inputs):
        said = []
        return list(explain_images(model, inputs, tmp_path / "out", said.append)), said

    return explain


def test_a_figure_and_arrays_for_each_image(tmp_path, run):
    inputs = [write(tmp_path / "a" / "one.jpg"), write(tmp_path / "b" / "one.jpg", spot=(80, 30))]
    paths, said = run(*inputs)
    assert [path.name for path in paths] == ["one.png", "one-2.png"] and not said
    for path in paths:
        with Image.open(path) as figure:
            assert figure.format == "PNG" and min(figure.size) > 600
    with np.load(paths[0].with_suffix(".npz")) as one, np.load(tmp_path / "out/one-2.npz") as two:
        assert not np.array_equal(one["part_index"], two["part_index"])
        assert one["name"] == inputs[0].name and one["classes"].tolist() == ["a", "b", "c"]
        assert {"map_scores", "map_rollout", "map_saliency"} <= set(one)
        assert one["map_scores"].shape == (64, 64) and one["value_scores"].shape == (8, 8)
        assert one["part_scores"].shape == (2, 64) and one["part_labels"].tolist() == ["1", "2"]
        assert one["crop_pixels"].shape == (64, 64, 3) and one["logits"].shape == (3,)
        assert one["view_seen"].tolist() == [90, 120] and one["orientation"] == 1
        left, top, right, bottom = one["boxes_stored"][0]
        assert left <= 60 <= right and top <= 45 <= bottom


def test_broken_images_are_named_and_the_others_go_on(tmp_path, run):
    (tmp_path / "text.jpg").write_text("no image")
    small = write(tmp_path / "good.png")
    broken = Input("text.jpg", str(tmp_path / "text.jpg"))
    paths, said = run(broken, Input("gone", str(tmp_path / "gone.png")), small)
    assert [path and path.name for path in paths] == [None, None, "good.png"]
    assert said == ["text.jpg: not read: no known image format", "gone: not read: no such file"]


def test_content_of_standard_input(run, tmp_path):
    content = (tmp_path / "x.png", write(tmp_path / "x.png"))[0].read_bytes()
    paths, _ = run(Input("standard input", content))
    assert [path.name for path in paths] == ["standard_input.png"]


def test_a_photograph_in_the_folder_is_never_replaced(tmp_path, run):
    """Neither one of the inputs, nor another; a figure of this command is."""
    mine, other = write(tmp_path / "out" / "mine.png"), tmp_path / "out" / "other.png"
    write(other)
    kept = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    outside = write(tmp_path / "other.jpg")
    for _ in range(2):  # the second time, the figures of the first are replaced
        paths, _ = run(mine, outside)
        assert [path.name for path in paths] == ["mine-2.png", "other-2.png"]
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert made_here(paths[0]) and not made_here(other)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a/b.c.jpg", "b.c"), ("../../etc/passwd", "passwd"), ("/x/.jpg", "jpg"), ("...", "image"),
        ("a b/ü ö.png", "ü_ö"), ("image 3", "image_3"), ("x\n\x1b[2J.png", "x_2J"),
        ("a\\b.jpg", "b"),
        ("\udcff.jpg", "_"), ("l" * 300 + ".png", "l" * 120), ("鸟" * 80 + ".jpg", "鸟" * 40),
        ("a" + "鸟" * 80, "a" + "鸟" * 39), ("filters.jpg", "filters"),
        ("", "image"), ("..\\..\\x", "x"),
    ],
)  # fmt: skip
def test_names_of_files_are_safe(name, stem):
    assert stem_of(name) == stem


def test_names_are_unique_whatever_their_case(tmp_path):
    stems = Stems(tmp_path, [])
    names = [stems.free(name) for name in ("a.png", "A.jpg", "a-2.png", "a")]
    assert names == ["a", "A-2", "a-2-2", "a-3"]


def test_shapes_of_photographs(tmp_path, run):
    """Very wide, very tall, large and tiny ones all get a readable figure."""
    for size in ((600, 80), (80, 600), (2600, 2000), (16, 16)):
        spot = (size[0] // 2, size[1] // 2)
        (path,), said = run(write(tmp_path / f"{size[0]}.png", size, spot))
        with Image.open(path) as figure:
            assert 900 < figure.width < 2000 and figure.height < 4000, size


THIN = [(1000, 1), (2300, 10), (230, 1), (1, 230), (1, 1000), (1, 1)]


@pytest.mark.parametrize("resize", ["72", "[72,72]"])
def test_thin_photographs(tmp_path, predictor, monkeypatch, resize):
    """Some are thinner than a frame; of a long one, the crop is less than a pixel of the picture.

    The one that comes after them is drawn, too.
    """
    monkeypatch.setattr("magenta.magenta", lambda pixels: pixels.mean(-1) + 1.0)
    model = predictor(f"data.resize={resize}", "data.crop=64", "model.patch=8")
    inputs = []
    for width, height in [*THIN, (120, 90)]:
        path = tmp_path / f"{width}x{height}.png"
        Image.new("RGB", (width, height), (90, 120, 60)).save(path)
        inputs.append(Input(path.name, str(path)))
    said = []
    paths = list(explain_images(model, inputs, tmp_path / "out", said.append))
    assert [path and path.stem for path in paths] == [
        *(f"{w}x{h}" for w, h in THIN), "120x90",
    ] and not said  # fmt: skip


@pytest.mark.parametrize(
    ("view", "box"),
    [
        (View((90, 120), (72, 96), (16, 4, 80, 68), 1, False), (20, 5, 99, 84)),
        (View((90, 120), (72, 96), (16, 4, 80, 68), 6, False), (5, 20, 84, 99)),
        (View((1, 4000), (72, 288000), (143968, 4, 144032, 68), 1, False), (280, 0, 280, 0)),
    ],
)
def test_the_frame_is_around_the_crop(view, box):
    """In pixels of the upright picture; a crop of less than a pixel has a frame of one pixel."""
    height, width = view.upright
    shown = Image.new("RGB", (560, 1) if width == 4000 else (width, height), (10, 20, 30))
    drawn = (np.asarray(outlined(shown, view)) != (10, 20, 30)).any(axis=2)
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    assert (columns[0], rows[0], columns[-1], rows[-1]) == box


def test_arrays_of_another_program_are_never_replaced(tmp_path, run):
    """A text, arrays of a user, and arrays of this command whose figure is not beside them."""
    photograph, out = write(tmp_path / "one.jpg"), tmp_path / "out"
    (first,), _ = run(photograph)
    ours = first.with_suffix(".npz").read_bytes()
    again, _ = run(photograph)
    assert again == [first]  # both files are this command's
    np.savez(tmp_path / "user.npz", scores=np.zeros(3))
    for content in (b"mine", (tmp_path / "user.npz").read_bytes()):
        (out / "one.npz").write_bytes(content)
        assert run(photograph)[0] == [out / "one-2.png"]
        assert (out / "one.npz").read_bytes() == content
    (out / "one.npz").write_bytes(ours)
    first.unlink()
    assert run(photograph)[0] == [out / "one-2.png"]
    assert (out / "one.npz").read_bytes() == ours and not first.exists()


def test_a_figure_of_an_image_never_has_a_name_of_the_models_figures(tmp_path):
    stems = Stems(tmp_path, [])
    assert {stems.free(name) for name in OF_MODEL} & {name[:-4] for name in OF_MODEL} == set()


def test_a_long_name_in_chinese(tmp_path, run):
    """A file's name has at most 255 bytes, also while it is written."""
    inputs = [write(tmp_path / str(k) / ("鸟" * 80 + ".png")) for k in range(2)]
    paths, _ = run(*inputs)
    assert [path.name for path in paths] == ["鸟" * 40 + ".png", "鸟" * 40 + "-2.png"]


@pytest.mark.parametrize(("error", "known"), [(MemoryError, True), (ZeroDivisionError, False)])
def test_a_figure_that_fails(tmp_path, run, monkeypatch, error, known):
    """Too little memory for one does not stop the others; a mistake of ours is not hidden."""
    drawn = images.figure

    def figure(photograph, explanation, *rest):
        if "one" in explanation.prediction.name:
            raise error
        return drawn(photograph, explanation, *rest)

    monkeypatch.setattr(images, "figure", figure)
    inputs = [write(tmp_path / "in" / "one.png"), write(tmp_path / "in" / "two.png")]
    if not known:
        with pytest.raises(error):
            run(*inputs)
        return
    paths, said = run(*inputs)
    assert [path and path.name for path in paths] == [None, "two.png"]
    assert said == [f"{inputs[0].name}: not drawn: too little memory; make the image smaller"]
