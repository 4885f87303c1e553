"""`transfg data stats`: channels against NumPy, sizes by their rule, a pasted configuration."""

import numpy as np
import pytest
from PIL import Image
from trouble import broken, clean_tree, jpeg, scene

from transfg_core.config.loading import build_config, load_config
from transfg_core.data.datasets.samples import Samples
from transfg_core.data.decoding import read_image
from transfg_core.errors import RunFailed
from transfg_core.inspection.balance import Balance
from transfg_core.inspection.channels import count_channels
from transfg_core.inspection.stats import data_stats
from transfg_core.inspection.suggest import suggest_sizes


def config(**data):
    return build_config({"data": {"crop": 32, **data}}, "test").data


def samples(*paths, regions=None):
    return Samples(
        tuple(map(str, paths)), np.zeros(len(paths), np.int64), tuple(map(str, paths)),
        regions=regions,
    )  # fmt: skip


@pytest.fixture
def paths(tmp_path):
    """Three images of different sizes, one of them grey."""
    jpeg(scene(1, (70, 50)), tmp_path / "a.jpg")
    jpeg(scene(2, (48, 64)).convert("L"), tmp_path / "b.jpg")
    scene(3, (200, 40)).save(tmp_path / "c.png")
    return [tmp_path / name for name in ("a.jpg", "b.jpg", "c.png")]


@pytest.mark.parametrize("resize", [None, (36, 44), 36])
def test_means_and_deviations_are_exact(paths, resize):
    """Over all pixels after the resize, without batches or running means."""
    channels = count_channels(samples(*paths), config(resize=resize))
    pixels = []
    for path in paths:
        image = read_image(path)
        if isinstance(resize, tuple):
            image = image.resize(resize[::-1], Image.Resampling.BILINEAR)
        elif resize:
            short = min(image.size)
            size = tuple(resize * side // short for side in image.size)
            image = image.resize(size, Image.Resampling.BILINEAR)
        pixels.append(np.asarray(image, np.float64).reshape(-1, 3) / 255)
    everything = np.concatenate(pixels)
    assert channels.pixels == len(everything)
    np.testing.assert_allclose(channels.means(), everything.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(channels.deviations(), everything.std(axis=0), rtol=1e-12)
    assert channels.sizes.tolist() == [[50, 70], [64, 48], [40, 200]]


def test_random_resized_crop_takes_the_image_as_read(paths):
    data = config(resize=36, random_resized_crop=(0.5, 1))
    assert count_channels(samples(*paths), data).pixels == 70 * 50 + 48 * 64 + 200 * 40


def test_deviation_of_almost_equal_values(tmp_path):
    """254 and 255 on a million pixels: a difference of squares would lose digits."""
    values = np.full((1000, 1000, 3), 255, np.uint8)
    values[0, :10] = 254
    Image.fromarray(values).save(tmp_path / "white.png")
    share = 10 / 1e6
    expected = np.sqrt(share * (1 - share)) / 255
    channels = count_channels(samples(tmp_path / "white.png"), config())
    np.testing.assert_allclose(channels.deviations(), [expected] * 3, rtol=1e-12)


def test_regions_are_cut_first(paths):
    regions = np.array([[10, 5, 50, 45], [0, 0, 0, 0], [0, 0, 0, 0]], np.int32)
    channels = count_channels(samples(*paths, regions=regions), config())
    assert channels.sizes[0].tolist() == [40, 40]


def test_normalised_channels(paths):
    channels = count_channels(samples(*paths), config())
    means, deviations = channels.after("half")
    np.testing.assert_allclose(means, (np.array(channels.means()) - 0.5) / 0.5)
    np.testing.assert_allclose(deviations, np.array(channels.deviations()) / 0.5)


@pytest.mark.parametrize(
    ("side", "resize", "crop"), [(700, 600, 448), (600, 600, 448), (512, 512, 384), (400, 400, 304)]
)
def test_suggestions_are_those_of_the_papers(side, resize, crop):
    """TransFG, SwinFC and iNat2017; larger images get the papers' largest."""
    sizes = np.tile(np.array([[side, side + 100]], np.int32), (5, 1))
    found = suggest_sizes(sizes, build_config({}, "test"), assumed=True)
    assert (found.resize, found.crop) == ((resize, resize), (crop, crop))


def test_the_crop_is_a_multiple_of_the_configured_patch():
    sizes = np.full((3, 2), 150, np.int32)
    patched = build_config({"model": {"patch": 12, "stride": 12}, "data": {"crop": 96}}, "test")
    assert suggest_sizes(sizes, patched, assumed=False).crop == (108, 108)
    tiny = np.full((3, 2), 5, np.int32)
    found = suggest_sizes(tiny, patched, assumed=False)
    assert found.crop[0] >= patched.model.smallest_image[0] and found.resize >= found.crop


def test_elongated_images_keep_their_aspect_ratio():
    """More than a twentieth longer than two to one."""
    sizes = np.array([[100, 100]] * 90 + [[100, 201]] * 10, np.int32)
    base = build_config({}, "test")
    assert suggest_sizes(sizes, base, assumed=True).resize == 96
    few = np.array([[100, 100]] * 99 + [[100, 201]], np.int32)
    assert suggest_sizes(few, base, assumed=True).resize == (96, 96)


def test_class_weights():
    """Each class then counts the same, and their mean over images is 1."""
    balance = Balance(("a", "b", "c"), np.array([1, 4, 5]))
    weights = balance.weights()
    np.testing.assert_allclose(weights * balance.counts, [10 / 3] * 3)
    assert (balance.fewest, balance.most, balance.median, balance.ratio) == (0, 2, 4.0, 5.0)
    assert balance.below(5).tolist() == [0, 1]


@pytest.fixture
def root(tmp_path):
    clean_tree(tmp_path / "data")
    for number in range(9):
        jpeg(scene(90 + number), tmp_path / f"data/train/wren/more{number}.jpg")
    return tmp_path / "data"


def yaml_of(text):
    return text.split("configuration (replace these keys in yours):\n\n")[1] + "\n"


@pytest.mark.parametrize("overrides", [(), ("data.split=official", "train.batch_size=7")])
def test_the_printed_configuration_can_be_loaded(root, tmp_path, overrides):
    text, record = data_stats(root, overrides)
    (tmp_path / "pasted.yaml").write_text(yaml_of(text))
    loaded = load_config(tmp_path / "pasted.yaml")
    assert loaded.data.root == str(root) and loaded.data.name == "folder"
    assert loaded.data.balance and loaded.train.epochs == 100
    assert loaded.data.resize == (120, 120) and loaded.data.crop == (96, 96)
    updates = -(-18 * 100 // loaded.train.batch_size)
    assert loaded.optim.warmup == round(0.05 * updates)
    assert f"100: {updates}" in text
    assert record["classes"][1] == {"name": "wren", "images": 12, "weight": 0.5}
    assert "0.5 (wren) to 2 (" in text


def test_the_length_of_a_configuration_stays(root, tmp_path):
    (tmp_path / "mine.yaml").write_text(
        f"data: {{name: folder, root: {root}, crop: 64, resize: 80}}\n"
        "model: {patch: 8, stride: 8}\noptim: {warmup: 10}\ntrain: {steps: 50}\n"
    )
    text, _ = data_stats(tmp_path / "mine.yaml")
    assert "train: {steps: 50, batch_size: 32}" in text and "without a configuration" not in text
    assert "now:       data.resize 80, data.crop [64, 64]" in text


def test_roots_with_odd_names_are_quoted(tmp_path):
    folder = tmp_path / "data: 'a' #1 鹪"
    clean_tree(folder, images=1)
    text, _ = data_stats(folder)
    (tmp_path / "pasted.yaml").write_text(yaml_of(text))
    assert load_config(tmp_path / "pasted.yaml").data.root == str(folder)


def test_broken_images_are_not_counted(root):
    broken(root)
    text, record = data_stats(root)
    assert sum(record["not_counted"].values()) == 3 and "not counted: 2 images: no known" in text
    assert record["images"]["train"] == 21 and record["pixels"] == 18 * 600 * 600


def test_nothing_readable(tmp_path):
    for name in ("train/a", "train/b", "val/a", "val/b"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "x.jpg").write_text("no image")
    with pytest.raises(RunFailed, match=r"found none among 2: no known image format \(2\)"):
        data_stats(tmp_path)


def test_the_closest_normalisation():
    from transfg_core.inspection.channels import Channels

    counts = np.zeros((3, 256), np.int64)
    counts[:, [0, 255]] = 1  # mean and deviation of one half
    assert Channels(counts, np.ones((2, 2), np.int32)).closest() == "half"
