"""`transfg explain` of images: files, names, arrays, and what happens to broken images."""

import numpy as np
import pytest
from PIL import Image

from transfg_core.explain.images import Stems, explain_images, made_here, stem_of
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
        ("\udcff.jpg", "_"), ("l" * 300 + ".png", "l" * 80), ("", "image"), ("..\\..\\x", "x"),
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
