"""The cache of decoded images: the same batches with and without it, whatever happens to it."""

import os
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transfg_core.config.sections import DataConfig
from transfg_core.data.cache import build, files
from transfg_core.data.cache.build import fill_cache
from transfg_core.data.cache.files import CacheFiles, key_of, open_cache, stored_config
from transfg_core.data.datasets import Samples
from transfg_core.data.loader import TrainStream, eval_batches
from transfg_core.data.mapped_image import MappedImage
from transfg_core.errors import RunFailed, UserError

ROOT = Path(__file__).parents[3]
COUNT = 11

# Settings that decide the stored pixels, and those that do not. A new key of DataConfig must be
# put into one of the two: a forgotten one would serve wrong pixels.
OTHER = {
    "name", "root", "split", "level", "box_crop", "banner", "folds", "fold", "validation", "group",
    "balance", "crop", "random_resized_crop", "flip", "auto_augment", "rotation", "normalise",
    "on_bad_image", "threads", "workers", "cache", "unpacked", "toy",
    "label", "color_jitter", "grayscale", "random_erasing", "mixup", "cutmix", "mix_prob",
    "mix_switch_prob",
}  # fmt: skip

COLOURS = (0.4, 0.3, 0.2, 0.1)  # brightness, contrast, saturation, hue
ERASING = {"probability": 0.5}
PIPELINES = {
    "plain": {"crop": (20, 30), "flip": False},
    "flip": {"crop": (16, 24)},
    "resize": {"resize": (40, 50), "crop": (32, 24)},
    "side": {"resize": 37, "crop": (32, 24)},
    "resized crop": {"resize": 37, "crop": (32, 24), "random_resized_crop": (0.1, 1.0)},
    "augmented": {"resize": (40, 50), "crop": (32, 24), "auto_augment": True, "rotation": 15.0},
    "resized crop, augmented": {
        "resize": 37, "crop": 32, "random_resized_crop": (0.1, 1.0), "auto_augment": True,
    },
    "bicubic": {"resize": 37, "crop": 32, "interpolation": "bicubic"},
    "all": {
        "resize": (40, 50), "crop": (32, 24), "interpolation": "bicubic", "auto_augment": True,
        "color_jitter": COLOURS, "grayscale": 0.3, "rotation": 15.0, "random_erasing": ERASING,
        "mixup": 0.8, "cutmix": 1.0,
    },
    "colours alone": {"crop": (16, 24), "color_jitter": COLOURS},
    "grey alone": {"crop": (16, 24), "grayscale": 0.5},
    "erasing alone": {"crop": (16, 24), "random_erasing": ERASING},
    "exif": {"exif": "apply", "resize": 37, "crop": 32},
}  # fmt: skip


@pytest.fixture(autouse=True)
def written_long_ago(monkeypatch):
    """Images that a test has just written are stored; only one test needs the wait."""
    monkeypatch.setattr(build, "RECENT", 0)


def write_samples(folder, count=COUNT, regions=None):
    """Images of many sizes, modes and formats; image 2 lies on its side."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    paths = []
    for i in range(count):
        pixels = rng.integers(0, 256, (33 + i, 47 - i % 20, 3)).astype(np.uint8)
        exif = Image.Exif()
        exif[0x0112] = 6 if i == 2 else 1
        paths.append(str(folder / f"{i:02}.{('png', 'jpg')[i % 2]}"))
        Image.fromarray(pixels).convert(("RGB", "L")[i == 4]).save(paths[-1], exif=exif)
    ids = tuple(Path(path).name for path in paths)
    return Samples(tuple(paths), np.arange(count, dtype=np.int64), ids, regions=regions)


@pytest.fixture
def samples(tmp_path):
    return write_samples(tmp_path / "images")


def settings(tmp_path, **changes):
    """Without a cache, and with one."""
    place = {"root": str(tmp_path / "images"), "cache": str(tmp_path / "cache")}
    cached = DataConfig(**({"crop": (16, 24)} | place | changes))
    return cached.model_copy(update={"cache": None}), cached


def batches(samples, data, count=5):
    """Batches of training and all of evaluation, and what was skipped."""
    stream = TrainStream(samples, data, 4, seed=1, classes=len(samples.labels))
    found = [next(stream) for _ in range(count)]
    stream.close()
    bad = {}
    found += [(b.images, b.labels, b.index) for b in eval_batches(samples, data, 4, bad)]
    return [[part.copy() for part in batch if part is not None] for batch in found], bad


def same(left, right):
    (left, left_bad), (right, right_bad) = left, right
    return left_bad == right_bad and all(
        a.tobytes() == b.tobytes() and a.shape == b.shape and a.dtype == b.dtype
        for one, other in zip(left, right, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def fill(data, samples):
    lines = []
    fill_cache(data, samples, [samples], lines.append)
    return lines


def read_files(monkeypatch):
    """Count reads of image files from here on."""
    from transfg_core.data import sample_reader

    seen, original = [], sample_reader.read_image

    def read(path, *rest):
        seen.append(path)
        return original(path, *rest)

    monkeypatch.setattr(sample_reader, "read_image", read)
    return seen


def test_every_key_is_known_to_decide_the_pixels_or_not():
    known = {*files.DECIDING, *OTHER}
    assert set(DataConfig.model_fields) == known, "put the new key into one of the two sets"
    assert not OTHER & set(files.DECIDING)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_batches_are_the_same_with_and_without(tmp_path, samples, pipeline, monkeypatch):
    without, cached = settings(tmp_path, **PIPELINES[pipeline])
    expected = batches(samples, without)
    assert any("11 images" in line for line in fill(cached, samples))
    seen = read_files(monkeypatch)
    assert same(batches(samples, cached), expected) and not seen
    assert fill(cached, samples) == []  # nothing is missing


@pytest.mark.parametrize(("workers", "threads"), [(0, 1), (0, 4), (1, 1), (2, 2)])
def test_threads_and_workers_read_the_same(tmp_path, samples, workers, threads):
    without, cached = settings(tmp_path, resize=37, crop=32, workers=workers, threads=threads)
    fill(cached, samples)
    assert same(batches(samples, cached), batches(samples, without))


def test_regions_have_entries_of_their_own(tmp_path):
    regions = np.tile(np.array([[3, 5, 30, -2]], np.int32), (COUNT, 1))
    whole = write_samples(tmp_path / "images")
    cut = Samples(whole.paths, whole.labels, whole.ids, regions=regions)
    without, cached = settings(tmp_path, resize=37, crop=32)
    fill(cached, whole)
    fill(cached, cut)
    for each in (whole, cut):
        assert same(batches(each, cached), batches(each, without))
    assert not same(batches(whole, cached), batches(cut, cached))


@pytest.mark.parametrize("when", ["before the run", "during the run", "after a fill"])
def test_a_changed_image_is_never_stale(tmp_path, samples, when):
    """Also if the new file has the size and the date of the old one."""
    without, cached = settings(tmp_path, resize=37, crop=32)
    fill(cached, samples)
    opened = open_cache(samples, cached, training=False)
    old = batches(samples, cached)
    before = os.stat(samples.paths[0])
    with Image.open(samples.paths[0]) as image:
        turned = image.transpose(Image.Transpose.ROTATE_180)
    turned.save(samples.paths[0], compress_level=0)
    changed = Path(samples.paths[0])
    changed.write_bytes(changed.read_bytes())
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    if when == "during the run":
        assert opened.image(0, samples.paths[0]) is None
        assert opened.image(1, samples.paths[1]) is not None
        return
    if when == "after a fill":
        assert any("1 of 1 images" in line for line in fill(cached, samples))
    expected = batches(samples, without)
    assert same(batches(samples, cached), expected) and not same(old, expected)


def test_time_of_change_alone_invalidates(tmp_path, samples):
    """A file of the same size that was given the old date again."""
    _, cached = settings(tmp_path)
    path = Path(samples.paths[0])
    fill(cached, samples)
    before, content = os.stat(path), bytearray(path.read_bytes())
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = os.stat(path)
    assert (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    assert open_cache(samples, cached, True).image(0, str(path)) is None


@pytest.mark.parametrize("policy", ["error", "skip"])
def test_broken_images_behave_as_without_the_cache(tmp_path, samples, policy):
    Path(samples.paths[3]).write_text("no image")
    Path(samples.paths[4]).unlink()
    Path(samples.paths[7]).write_bytes(Path(samples.paths[7]).read_bytes()[:300])
    without, cached = settings(tmp_path, resize=37, crop=32, on_bad_image=policy)
    fill(cached, samples)
    assert fill(cached, samples) == []  # broken ones are remembered, absent ones not read
    if policy == "skip":
        expected = batches(samples, without)
        assert len(expected[1]) == 3 and same(batches(samples, cached), expected)
        Image.new("RGB", (50, 50)).save(samples.paths[3], format="PNG")  # mended
        fill(cached, samples)
        assert len(batches(samples, cached)[1]) == 2
        return
    messages = []
    for data in (without, cached):
        with pytest.raises(RunFailed) as caught:
            list(eval_batches(samples, data, 2))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_a_crop_that_is_too_large_is_named_alike(tmp_path, samples):
    messages = []
    for data in settings(tmp_path, resize=37, crop=64):
        fill(data, samples)
        with pytest.raises(UserError) as caught:
            list(eval_batches(samples, data, 2))
        messages.append(str(caught.value))
    assert messages[0] == messages[1] and "expected at least data.crop" in messages[0]


@pytest.mark.parametrize(
    ("change", "shared"),
    [
        ({"exif": "apply"}, False),
        ({"max_megapixels": 1}, False),
        ({"resize": (41, 50)}, False),
        ({"resize": None}, False),
        ({"interpolation": "bicubic"}, False),
        ({"crop": (8, 8), "rotation": 3.0, "flip": False, "normalise": "half"}, True),
    ],
)
def test_settings_share_a_key_only_if_their_pixels_are_the_same(tmp_path, change, shared):
    _, data = settings(tmp_path, resize=(40, 50))
    other = DataConfig(**(data.model_dump() | change))
    assert (key_of(data) == key_of(other)) == shared


def test_another_decoder_has_another_key(tmp_path, monkeypatch):
    _, data = settings(tmp_path)
    before = key_of(data)
    monkeypatch.setattr(files.features, "version", lambda name: "99")
    assert key_of(data) != before


def test_training_and_test_share_what_they_can(tmp_path, samples):
    _, cached = settings(tmp_path, resize=37, crop=32)
    fill(cached, samples)
    assert len(list(Path(cached.cache).glob("*.pixels"))) == 1
    cropped = cached.model_copy(update={"random_resized_crop": (0.1, 1.0)})
    fill(cropped, samples)
    assert len(list(Path(cached.cache).glob("*.pixels"))) == 2
    assert stored_config(cropped, training=True).resize is None


def test_images_that_are_added_are_appended(tmp_path, samples):
    without, cached = settings(tmp_path, resize=37, crop=32)
    first = Samples(samples.paths[:6], samples.labels[:6], samples.ids[:6])
    fill(cached, first)
    assert any("5 of 5 images read" in line for line in fill(cached, samples))
    assert same(batches(samples, cached), batches(samples, without))


def test_an_image_that_was_just_written_is_not_stored(tmp_path, samples, monkeypatch):
    """It could change again within the resolution of its times."""
    monkeypatch.setattr(build, "RECENT", 10**12)
    without, cached = settings(tmp_path)
    fill(cached, samples)
    assert open_cache(samples, cached, True) is None
    assert same(batches(samples, cached), batches(samples, without))


KILLED = """
import os, signal, sys
import numpy as np
from transfg_core.config.sections import DataConfig
from transfg_core.data.cache import build
from transfg_core.data.datasets import Samples
folder, cache, after, *paths = sys.argv[1:]
build.RECENT, build.SECONDS = 0, 0.0
original = build.Builder.commit
def commit(self, file, index):
    result = original(self, file, index)
    file.write(b"half an image")
    file.flush()
    if len(result.names) >= int(after):
        os.kill(os.getpid(), signal.SIGKILL)
    return result
build.Builder.commit = commit
samples = Samples(tuple(paths), np.arange(len(paths)), tuple(paths))
build.fill_cache(DataConfig(root=folder, cache=cache, threads=1), samples, [], print)
"""


def run_script(script, *arguments, wait=True):
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return (process, process.communicate(timeout=120)[0]) if wait else process


def test_a_killed_builder_is_resumed(tmp_path):
    """Killed after 8 and 16 images, with half an image behind them; the rest is read once."""
    samples = write_samples(tmp_path / "images", 20)
    without, cached = settings(tmp_path, threads=1)
    for after in (8, 16):
        process, _ = run_script(KILLED, cached.root, cached.cache, after, *samples.paths)
        assert process.returncode == -9
        assert len(CacheFiles.of(cached).load().names) == after
        assert same(batches(samples, cached), batches(samples, without))
    assert any("4 of 4 images read" in line for line in fill(cached, samples))
    index = CacheFiles.of(cached).load()
    assert len(index.names) == 20
    assert CacheFiles.of(cached).pixels(index.number).stat().st_size == index.end
    assert same(batches(samples, cached), batches(samples, without))


def test_killed_before_the_first_index(tmp_path, samples):
    without, cached = settings(tmp_path)
    where = CacheFiles.of(cached)
    where.folder.mkdir()
    where.pixels(5).write_bytes(b"left over")  # of a generation that no index names
    fill(cached, samples)
    assert not where.pixels(5).exists()
    assert same(batches(samples, cached), batches(samples, without))


TWO = """
import sys
import numpy as np
from transfg_core.config.sections import DataConfig
from transfg_core.data.cache import build
from transfg_core.data.datasets import Samples
folder, cache, *paths = sys.argv[1:]
build.RECENT = 0
samples = Samples(tuple(paths), np.arange(len(paths)), tuple(paths))
sys.stdin.readline()
build.fill_cache(DataConfig(root=folder, cache=cache, threads=2), samples, [], print)
"""


def test_two_builders_at_once(tmp_path):
    """Each image is stored once; both see a whole cache."""
    samples = write_samples(tmp_path / "images", 30)
    without, cached = settings(tmp_path)
    arguments = [sys.executable, "-c", TWO, cached.root, cached.cache, *samples.paths]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    both = [subprocess.Popen(arguments, env=environment, **pipes) for _ in range(3)]
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0, 0]
    assert sum("30 of 30 images read" in text for text in outputs) == 1
    assert len(CacheFiles.of(cached).load().names) == 30
    assert same(batches(samples, cached), batches(samples, without))


def test_a_builder_waits_for_another_one(tmp_path, samples):
    import fcntl
    import threading

    _, cached = settings(tmp_path)
    where = CacheFiles.of(cached)
    where.folder.mkdir()
    lines = []
    with open(where.lock, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        thread = threading.Thread(target=lambda: lines.extend(fill(cached, samples)))
        thread.start()
        time.sleep(0.3)
        assert where.load() is None and thread.is_alive()
    thread.join(timeout=60)
    assert any("another process fills this cache" in line for line in lines)
    assert len(where.load().names) == COUNT


LIMITED = """
import resource, sys
import numpy as np
from transfg_core.config.sections import DataConfig
from transfg_core.data.cache import build
from transfg_core.data.datasets import Samples
from transfg_core.errors import UserError
folder, cache, limit, *paths = sys.argv[1:]
build.RECENT, build.SECONDS = 0, 0.0
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
samples = Samples(tuple(paths), np.arange(len(paths)), tuple(paths))
try:
    build.fill_cache(DataConfig(root=folder, cache=cache, threads=1), samples, [], print)
except UserError as error:
    print("error:", error)
    sys.exit(error.exit_code)
"""


def test_a_full_disk_keeps_what_is_stored(tmp_path):
    samples = write_samples(tmp_path / "images", 20)
    without, cached = settings(tmp_path, threads=1)
    process, text = run_script(LIMITED, cached.root, cached.cache, 50_000, *samples.paths)
    assert process.returncode == 1, text
    assert "error: " in text and "the disk is full" in text and "data.cache=null" in text
    assert len(CacheFiles.of(cached).load().names) == 8
    assert same(batches(samples, cached), batches(samples, without))
    assert any("12 of 12 images read" in line for line in fill(cached, samples))
    assert same(batches(samples, cached), batches(samples, without))


def test_too_little_space_is_told_before(tmp_path, samples, monkeypatch):
    _, cached = settings(tmp_path, resize=(500, 600))
    usage = build.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(build.shutil, "disk_usage", lambda path: usage._replace(free=3_000_000))
    expected = r"about 0\.01 GB for 11 images in .*cache, found 0\.00 GB free; free some space"
    with pytest.raises(UserError, match=expected):
        fill(cached, samples)


@pytest.mark.parametrize("folder", ["/proc/cache", "a file/cache"])
def test_a_folder_that_cannot_be_written(tmp_path, samples, folder):
    (tmp_path / "a file").write_text("")
    _, cached = settings(tmp_path, cache=str(tmp_path / folder))
    with pytest.raises(UserError, match="data.cache: expected a folder that can be written"):
        fill(cached, samples)


def test_a_whole_cache_needs_no_right_to_write(tmp_path, samples, monkeypatch):
    without, cached = settings(tmp_path)
    fill(cached, samples)
    monkeypatch.setattr(build, "_locked", lambda *_: pytest.fail("locked"))
    assert fill(cached, samples) == []
    assert same(batches(samples, cached), batches(samples, without))


def test_a_cache_inside_the_data_set_is_refused(tmp_path, samples):
    _, cached = settings(tmp_path, cache=str(tmp_path / "images" / "cache"))
    with pytest.raises(UserError, match="expected a folder outside of the data set"):
        fill(cached, samples)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("damage", [cut, Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("which", ["*.pixels", "*.index"])
def test_a_damaged_cache_is_built_anew(tmp_path, samples, which, damage):
    without, cached = settings(tmp_path)
    fill(cached, samples)
    (path,) = Path(cached.cache).glob(which)
    damage(path)
    assert same(batches(samples, cached), batches(samples, without))
    assert any("11 of 11 images read" in line for line in fill(cached, samples))
    assert len(list(Path(cached.cache).glob("*.pixels"))) == 1
    assert same(batches(samples, cached), batches(samples, without))


def test_a_cache_that_is_deleted_during_a_run(tmp_path, samples):
    without, cached = settings(tmp_path)
    fill(cached, samples)
    opened = open_cache(samples, cached, training=True)
    files._mapped.cache_clear()
    for path in Path(cached.cache).iterdir():
        path.unlink()
    assert opened.image(0, samples.paths[0]) is None
    assert same(batches(samples, cached), batches(samples, without))


@pytest.mark.parametrize(
    ("flipped", "box"), list(product([False, True], [(0, 0, 7, 5), (2, 1, 6, 4)]))
)
def test_a_mapped_image_equals_one_of_pillow(flipped, box):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    ours, theirs = MappedImage(pixels).crop(box), Image.fromarray(pixels).crop(box)
    if flipped:
        ours = ours.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        theirs = theirs.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    result = ours.array()
    assert np.array_equal(result, np.array(theirs)) and result.flags.c_contiguous
    assert (ours.width, ours.height) == theirs.size
    result[:] = 0
    assert pixels.any()
