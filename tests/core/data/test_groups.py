"""Which photographs belong together: by a pattern, or by content, time and likeness."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transfg_core.data.datasets.groups import (
    EXIF_IFD,
    _alike,
    _normalised,
    burst_groups,
    pattern_groups,
)
from transfg_core.data.walk import Tally, walk
from transfg_core.errors import UserError

CUB50 = Path(__file__).parents[3].parent / "shared" / "data" / "cub50" / "CUB_200_2011" / "images"


def pixels(seed, size=(40, 60)):
    """Smooth random pixels, as photographs have."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))


def write(root, name, seed, time=None, camera="A", noise=0):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if time:
        exif[0x0110] = camera
        exif[EXIF_IFD] = {0x9003: time}
    array = pixels(seed).astype(int) + np.random.default_rng(9).integers(
        -noise, noise + 1, (40, 60, 1)
    )
    Image.fromarray(array.clip(0, 255).astype(np.uint8)).save(path, exif=exif)


def groups_of(root):
    """Sets of names that belong together, without single images."""
    images = walk(root, Tally())
    found = {}
    for image, group in zip(images, burst_groups(images), strict=True):
        found.setdefault(group, []).append(image.name)
    assert all(group == names[0] for group, names in found.items())
    return [names for names in found.values() if len(names) > 1]


def test_different_photographs_are_alone(tmp_path):
    for number in range(9):
        write(tmp_path, f"a/IMG_{number}.jpg", number)
    assert groups_of(tmp_path) == []


def test_a_burst_is_one_camera_within_seconds(tmp_path):
    """Seconds 0, 9 and 18 are a chain; another camera, a gap and a later day are not."""
    for number, (time, camera) in enumerate(
        [
            ("2024:05:01 10:00:00", "A"),
            ("2024:05:01 10:00:09", "A"),
            ("2024:05:01 10:00:18", "A"),
            ("2024:05:01 10:00:10", "B"),
            ("2024:05:01 10:00:28", "A"),
            ("2024:05:02 10:00:09", "A"),
            ("0000:00:00 00:00:00", "A"),
            ("no time", "A"),
        ]
    ):
        write(tmp_path, f"{'ab'[number % 2]}/{number}.jpg", number, time, camera)
    assert groups_of(tmp_path) == [["a/0.jpg", "a/2.jpg", "b/1.jpg"]]


def test_equal_files_belong_together_wherever_they_are(tmp_path):
    write(tmp_path, "a/1.png", 1)
    write(tmp_path, "a/2.png", 2)
    (tmp_path / "b").mkdir()
    (tmp_path / "b/copy.png").write_bytes((tmp_path / "a/1.png").read_bytes())
    (tmp_path / "b/link.png").symlink_to("../a/2.png")
    assert groups_of(tmp_path) == [["a/1.png", "b/copy.png"], ["a/2.png", "b/link.png"]]


def test_frames_of_a_film_look_alike(tmp_path):
    """Frames 9 and 10 are neighbours by number, and 1 and 10 by their letters."""
    for number in (1, 2, 9, 10, 11):
        write(tmp_path, f"a/f{number}.png", seed=number // 9, noise=number)
    write(tmp_path, "b/f3.png", seed=1, noise=3)  # as a/f11.png, but in another folder
    assert groups_of(tmp_path) == [["a/f1.png", "a/f2.png"], ["a/f10.png", "a/f11.png", "a/f9.png"]]


@pytest.mark.skipif(not CUB50.is_dir(), reason=f"{CUB50} is absent")
def test_real_photographs_against_a_camera_that_moved():
    """Neighbours in CUB are different birds. A crop moved by 1 % of the width is the same shot."""
    images = walk(CUB50, Tally())[:600]
    assert len(set(burst_groups(images))) == len(images)
    alike = 0
    for image in images[::20]:
        with Image.open(image.path) as opened:
            step = round(opened.width / 100)
            left = opened.crop((0, 0, opened.width - step, opened.height))
            right = opened.crop((step, 0, opened.width, opened.height))
        alike += _alike(*(_normalised(view) for view in (left, right)))
    assert alike >= 27  # of 30


def test_plain_and_unreadable_images_are_not_alike(tmp_path):
    for number in range(3):
        (tmp_path / "a").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"a/{number}.png")
        (tmp_path / f"a/bad{number}.png").write_text(f"no image {number}")
    assert groups_of(tmp_path) == []


def test_a_pattern_decides_alone():
    ids = ["a/bird07_1.jpg", "b/bird07_2.jpg", "b/bird08_1.jpg"]
    assert pattern_groups(ids, r"bird(\d+)_") == ["07", "07", "08"]
    with pytest.raises(UserError, match=r"data\.group: .*no match in c/x\.jpg; .*\|\(\.\+\)'"):
        pattern_groups([*ids, "c/x.jpg"], r"bird(\d+)_")
    assert pattern_groups([*ids, "c/x.jpg"], r"bird(\d+)_|(.+)")[3] == "c/x.jpg"
    with pytest.raises(UserError, match="no match in a"):
        pattern_groups(["a"], "(b?)")


def test_undecodable_names(tmp_path):
    write(tmp_path, os.path.join("a", os.fsdecode(b"m\xfcwe.png")), 1)
    write(tmp_path, "a/x.png", 1)
    assert groups_of(tmp_path) == [["a/m\\xfcwe.png", "a/x.png"]]
