"""The toy set: what the classes share, where they differ, and that a folder is whole or absent."""

import hashlib
import json
import re
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transfg_core.config.sections import ToyConfig
from transfg_core.data.toy import writing as toy_module
from transfg_core.data.toy.birds import PARTS, TABLE, draw_bird
from transfg_core.data.toy.writing import CLASSES, ensure_toy, render, write_toy
from transfg_core.errors import RunFailed, UserError

SMALL = ToyConfig(train_per_class=2, test_per_class=1, size=48, seed=3)


def quiet(message: str) -> None:
    """Swallow the report."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("toy") / "below" / "set"
    write_toy(root, SMALL, quiet)
    return root


def table(root: Path, name: str) -> list[list[str]]:
    return [line.split(" ") for line in (root / name).read_text(encoding="utf-8").splitlines()]


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def test_classes_differ_in_at_least_two_parts() -> None:
    assert len(CLASSES) == len(set(CLASSES)) == 20
    for first, second in combinations(TABLE.values(), 2):
        assert sum(a != b for a, b in zip(first, second, strict=True)) >= 2


def test_every_value_of_a_part_is_shared_by_five_classes() -> None:
    for column, part in enumerate(PARTS):
        counts = Counter(row[column] for row in TABLE.values())
        assert set(counts.values()) == {5}, (part, counts)


@pytest.mark.parametrize("seed", range(4))
def test_classes_differ_inside_the_part_boxes_alone(seed: int) -> None:
    first, boxes = render(0, 96, np.random.default_rng(seed))
    outside = np.ones((96, 96), bool)
    for x, y, width, height in boxes.values():
        outside[int(y) : int(y + height), int(x) : int(x + width)] = False
    for class_index in range(1, len(CLASSES)):
        other, other_boxes = render(class_index, 96, np.random.default_rng(seed))
        difference = (np.asarray(first) != np.asarray(other)).any(-1)
        assert other_boxes == boxes
        assert difference.any() and not (difference & outside).any()


def test_a_value_shows_inside_the_box_of_its_part() -> None:
    """Two classes that differ in a part differ plainly in its box, and not at all otherwise."""
    images = [np.asarray(render(k, 96, np.random.default_rng(5))[0], np.int16) for k in range(20)]
    boxes = render(0, 96, np.random.default_rng(5))[1]
    covered = {part: np.zeros((96, 96), bool) for part in PARTS}
    for part, (x, y, width, height) in boxes.items():
        covered[part][int(y) : int(y + height), int(x) : int(x + width)] = True
    rows = list(TABLE.values())
    for column, part in enumerate(PARTS):
        alone = covered[part] & (np.sum(list(covered.values()), axis=0) == 1)
        for a, b in combinations(range(20), 2):
            contrast = np.abs(images[a][alone] - images[b][alone]).max(-1)
            if rows[a][column] == rows[b][column]:
                assert contrast.max() == 0, (part, a, b)
            else:
                assert (contrast > 60).sum() >= 12, (part, a, b)


def test_parts_are_small_and_the_bird_stays_in_the_centre_crop() -> None:
    for seed in range(100):
        _, bird, boxes = draw_bird(seed % 20, 96, np.random.default_rng(seed))
        assert tuple(boxes) == PARTS
        for part, (x, y, width, height) in boxes.items():
            assert width * height < 0.04 * 96 * 96, part
            assert min(width, height) >= 8, part  # 6 pixels at 72
            assert bird[0] <= x and x + width <= bird[0] + bird[2]
            assert bird[1] <= y and y + height <= bird[1] + bird[3]
        assert min(bird[:2]) >= 5 and max(bird[0] + bird[2], bird[1] + bird[3]) <= 91
        assert max(bird[2:]) > 96 / 2


def test_colour_and_layout_of_the_whole_do_not_tell_the_class() -> None:
    """The nearest class mean of 8 x 8 thumbnails stays near chance, 5 %."""

    def thumbnails(split: int, each: int) -> np.ndarray:
        return np.array(
            [
                [
                    np.asarray(render(k, 48, np.random.default_rng([split, k, n]))[0].reduce(6))
                    for n in range(each)
                ]
                for k in range(20)
            ],
            np.float64,
        ).reshape(20, each, -1)

    means = thumbnails(0, 24).mean(1)
    test = thumbnails(1, 12)
    nearest = np.square(test[:, :, None] - means).sum(-1).argmin(-1)
    assert (nearest == np.arange(20)[:, None]).mean() < 0.2


def test_render_is_repeatable_at_any_size() -> None:
    for size in (48, 96, 130):
        first, boxes = render(7, size, np.random.default_rng([0, 1, 7, 2]))
        again, boxes_again = render(7, size, np.random.default_rng([0, 1, 7, 2]))
        assert first.size == (size, size) and first.mode == "RGB"
        assert first.tobytes() == again.tobytes() and boxes == boxes_again


def test_layout_is_that_of_cub(written: Path) -> None:
    images = table(written, "images.txt")
    labels = table(written, "image_class_labels.txt")
    split = table(written, "train_test_split.txt")
    ids = [str(number) for number in range(1, 61)]
    for rows in (images, labels, split, table(written, "bounding_boxes.txt")):
        assert [row[0] for row in rows] == ids
    assert table(written, "classes.txt")[0] == ["1", f"001.{CLASSES[0]}"]
    assert images[0][1] == f"001.{CLASSES[0]}/{CLASSES[0]}_0001.jpg"
    assert [row[1] for row in split[:6]] == ["1", "1", "0"] * 2
    for (_, path), (_, label) in zip(images, labels, strict=True):
        assert re.fullmatch(r"(\d{3})\.(\w+)/\2_\d{4}\.jpg", path)
        assert int(path[:3]) == int(label)
        with Image.open(written / "images" / path) as image:
            assert image.size == (48, 48) and image.mode == "RGB"
    parts = table(written, "part_boxes.txt")
    assert [row[:2] for row in parts] == [[image_id, part] for image_id in ids for part in PARTS]
    assert all(float(value) > 0 for row in parts for value in row[2:])


def test_the_same_bytes_on_every_run(written: Path, tmp_path: Path) -> None:
    write_toy(tmp_path, SMALL, quiet)  # an empty folder is taken
    assert digests(tmp_path) == digests(written)


def test_an_image_does_not_depend_on_how_many_there_are(written: Path, tmp_path: Path) -> None:
    write_toy(tmp_path / "set", SMALL.model_copy(update={"train_per_class": 1}), quiet)
    few, many = digests(tmp_path / "set"), digests(written)
    for number, name in enumerate(CLASSES, 1):
        stem = f"images/{number:03d}.{name}/{name}_"
        assert few[f"{stem}0001.jpg"] == many[f"{stem}0001.jpg"]  # the first for training
        assert few[f"{stem}0002.jpg"] == many[f"{stem}0003.jpg"]  # the first for testing
        assert len({many[f"{stem}{k:04d}.jpg"] for k in (1, 2, 3)}) == 3


def test_ensure_writes_once(tmp_path: Path) -> None:
    reports: list[str] = []
    ensure_toy(tmp_path / "set", SMALL, reports.append)
    (tmp_path / "set" / "classes.txt").write_text("touched", encoding="utf-8")
    ensure_toy(tmp_path / "set", SMALL, reports.append)
    assert (tmp_path / "set" / "classes.txt").read_text(encoding="utf-8") == "touched"
    assert len(reports) == 1 and "60 toy images" in reports[0]


def test_ensure_refuses_other_settings(written: Path) -> None:
    before = digests(written)
    with pytest.raises(UserError, match=r"seed expected 4, found 3") as caught:
        ensure_toy(written, SMALL.model_copy(update={"seed": 4}), quiet)
    assert str(written) in str(caught.value) and "data.root" in str(caught.value)
    assert "size" not in str(caught.value) and digests(written) == before


def test_ensure_refuses_another_format(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy_module, "FORMAT", toy_module.FORMAT + 1)
    with pytest.raises(UserError, match="format expected"):
        ensure_toy(written, SMALL, quiet)


@pytest.mark.parametrize("content", ["photograph.jpg", "toy.json"])
def test_ensure_refuses_something_else(tmp_path: Path, content: str) -> None:
    (tmp_path / content).write_text("not a toy set", encoding="utf-8")
    with pytest.raises(UserError, match="expected"):
        ensure_toy(tmp_path, SMALL, quiet)
    with pytest.raises(UserError, match="expected"):
        ensure_toy(tmp_path / content, SMALL, quiet)
    with pytest.raises(UserError, match="expected"):
        write_toy(tmp_path, SMALL, quiet)
    assert [path.name for path in tmp_path.iterdir()] == [content]


def test_a_killed_write_is_replaced(written: Path, tmp_path: Path) -> None:
    (tmp_path / "set.partial" / "images").mkdir(parents=True)
    (tmp_path / "set.partial" / "stray.txt").write_text("left behind", encoding="utf-8")
    ensure_toy(tmp_path / "set", SMALL, quiet)
    assert digests(tmp_path / "set") == digests(written)
    assert not (tmp_path / "set.partial").exists()


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(RunFailed, match="No space left on device") as caught:
        ensure_toy(tmp_path / "set", SMALL, quiet)
    assert str(tmp_path / "set") in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_settings_are_written_in_full(written: Path) -> None:
    found = json.loads((written / "toy.json").read_text(encoding="utf-8"))
    assert found == {"format": toy_module.FORMAT, **SMALL.model_dump()}


def test_two_processes_make_one_set(tmp_path):
    """They start together; one waits for the other."""
    code = (
        "import sys; from pathlib import Path; from transfg_core.config.sections import ToyConfig;"
        "from transfg_core.data.toy.writing import ensure_toy;"
        "ensure_toy(Path(sys.argv[1]), ToyConfig(train_per_class=4, test_per_class=1, size=48))"
    )
    root = tmp_path / "below" / "set"
    command = [sys.executable, "-c", code, str(root)]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [child.communicate()[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert sum("rendering" in text for text in said) == 1
    assert [path.name for path in root.parent.iterdir()] == ["set"]
