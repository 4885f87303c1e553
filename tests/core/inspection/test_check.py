"""`transfg data check`: every planted fault is found, and nothing else."""

import json
import os
import re

import pytest
from PIL import Image
from trouble import broken, clean_tree, duplicates, jpeg, names, scene, trouble_tree, unusual

from transfg_core.errors import UserError
from transfg_core.inspection import check as command
from transfg_core.inspection.check import check_data

SMALL = ["data.resize=40", "data.crop=32"]


def check(root, tmp_path, *overrides, **options):
    """check.json, the text, and whether there are problems."""
    out = tmp_path / "out"
    text, bad = check_data(root, [*SMALL, *overrides], out, few=0, images=1, **options)
    return json.loads((out / "check.json").read_text()), text, bad


def kinds(record, *levels):
    return [n["kind"] for n in record["notices"] if not levels or n["level"] in levels]


def notice(record, kind):
    (found,) = [notice for notice in record["notices"] if notice["kind"] == kind]
    return found


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data"
    clean_tree(folder)
    return folder


def test_nothing_is_found_in_a_clean_set(root, tmp_path):
    record, text, bad = check(root, tmp_path, strict=True)
    assert not bad and record["notices"] == [] and record["problems"] is False
    assert record["counts"] == {"classes": 3, "train": 9, "test": 9}
    assert "No problem found: 0 problems, 0 warnings, 0 notes" in text
    assert record["sizes"]["shorter side"] == [120] * 9


def test_broken_files_have_their_reasons(root, tmp_path):
    broken(root)
    record, text, bad = check(root, tmp_path)
    assert bad and set(kinds(record)) == {"broken", "left out"}
    assert {each["image"]: each["reason"][:24] for each in record["broken"]} == {
        "train/robin/cut.jpg": "OSError: image file is t",
        "train/robin/head.png": "no known image format",
        "train/robin/text.jpg": "no known image format",
    }
    assert "1 empty or unreadable image files (such as train/robin/empty.jpg)" in text


def test_broken_files_are_warnings_if_training_skips_them(root, tmp_path):
    broken(root)
    record, _, bad = check(root, tmp_path, "data.on_bad_image=skip")
    assert not bad and set(kinds(record, "warning")) == {"broken", "left out"}
    assert check(root, tmp_path, "data.on_bad_image=skip", strict=True)[2]


def test_reasons_that_differ_in_numbers_are_one(root, tmp_path):
    for number in range(3):
        jpeg(scene(number + 50), root / f"train/wren/cut{number}.jpg")
        data = (root / f"train/wren/cut{number}.jpg").read_bytes()
        (root / f"train/wren/cut{number}.jpg").write_bytes(data[: len(data) // (number + 2)])
    record, text, _ = check(root, tmp_path)
    assert len({each["reason"] for each in record["broken"]}) > 1
    assert notice(record, "broken")["count"] == 3 and "truncated (N bytes" in text


EXPECTED = {
    "grey": ["deep.png", "grey.png"],
    "colourless": ["colourless.png", "long.png"],
    "transparent": ["palette.png", "transparent.png"],
    "palette": ["animated.gif", "palette.png"],
    "frames": ["animated.gif"],
    "one colour": ["flat.png", "long.png", "one_pixel.png"],
    "cmyk": ["cmyk.jpg"],
    "16 bits": ["deep.png"],
    "suffix": ["suffix.jpg"],
    "turned": ["turned.jpg"],
}


def test_unusual_images_are_named(root, tmp_path):
    unusual(root)
    record, _, bad = check(root, tmp_path)
    found = {
        each["kind"]: [name.removeprefix("train/wren/") for name in each["images"]]
        for each in record["notices"]
    }
    assert found.pop("smaller than the crop") == ["one_pixel.png"]
    assert found == EXPECTED and not bad
    assert notice(record, "turned")["level"] == "warning"
    turned = check(root, tmp_path, "data.exif=apply")[0]
    assert notice(turned, "turned")["level"] == "note"


def test_duplicates_between_splits_and_classes_are_problems(root, tmp_path):
    duplicates(root)
    record, text, bad = check(root, tmp_path)
    assert bad and kinds(record, "problem") == ["equal across splits", "equal with other labels"]
    assert kinds(record, "warning") == ["equal within a split"]
    across = [(each["split"], each["image"]) for each in record["duplicates"]["equal"][1]]
    assert across == [("train", "train/robin/twin.png"), ("test", "val/robin/twin copy.bmp")]
    assert record["duplicates"]["bits"] is None and record["duplicates"]["near"] == []
    assert "with 1 image of test" in text


def test_near_duplicates_are_warnings(root, tmp_path):
    pytest.importorskip("imagehash", reason="ImageHash (extra `near`) is not installed")
    duplicates(root)
    record, _, _ = check(root, tmp_path, near=4)
    assert notice(record, "near across splits")["level"] == "warning"
    assert record["duplicates"]["bits"] == 4 and len(record["duplicates"]["near"]) == 2


def test_near_is_refused_before_anything_is_read(root, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "read_subject", lambda _: pytest.fail("read the data set"))
    with pytest.raises(UserError, match=r"--near 11: expected 0 to 10 bits"):
        check(root, tmp_path, near=11)


def test_files_that_are_left_out(root, tmp_path):
    names(root)
    record, _, bad = check(root, tmp_path)
    assert not bad
    reasons = {each["reason"].split(",")[0]: each["example"] for each in record["left_out"]}
    assert set(reasons) == {
        "links that lead nowhere",
        "HEIC photographs",
        "hidden or system files and folders",
        "files without the suffix of an image",
        "links to a folder that is read already or lies above",
    }
    assert kinds(record, "warning") == ["left out", "left out"]


def test_names_are_escaped(root, tmp_path):
    (root / "train/wren/x <b>|\n.jpg").write_text("no image")
    check(root, tmp_path)
    body = (tmp_path / "out/check.html").read_text().split("<body>")[1]
    assert "<b>" not in body and "x &lt;b&gt;|" in body
    assert "x &lt;b>\\|" in (tmp_path / "out/check.md").read_text()


def test_no_resize_and_a_small_image(root, tmp_path):
    scene(7, (31, 60)).save(root / "val/wren/small.png")
    record, text, bad = check(root, tmp_path, "data.resize=null")
    assert bad and kinds(record, "problem") == ["smaller than the crop"]
    assert "1 image (5.26 %) smaller than data.crop [32, 32]" in text
    assert not check(root, tmp_path)[2]


def test_random_resized_crop_enlarges_training_images(root, tmp_path):
    scene(7, (31, 60)).save(root / "train/wren/small.png")
    options = ("data.resize=null", "data.random_resized_crop=[0.5, 1]")
    assert not check(root, tmp_path, *options)[2]
    scene(8, (31, 60)).save(root / "val/wren/small.png")
    assert check(root, tmp_path, *options)[2]


def test_small_classes(root, tmp_path):
    jpeg(scene(60), root / "train/wren/more.jpg")
    text, bad = check_data(root, SMALL, few=4, strict=True)
    assert bad and "2 classes have fewer than 4 training images: robin (3), 鹪鹩 (3)" in text
    assert not check_data(root, SMALL, few=3, strict=True)[1]


def cub(root, images=4):
    rows = [f"{k // 2 + 1:03}.bird/{k}.jpg" for k in range(images)]
    for k, name in enumerate(rows):
        jpeg(scene(k), root / "images" / name)
    lists = {
        "images.txt": rows,
        "image_class_labels.txt": [str(k // 2 + 1) for k in range(images)],
        "train_test_split.txt": [str(k % 2) for k in range(images)],
        "classes.txt": [f"{k + 1:03}.bird" for k in range(images // 2)],
    }
    for name, values in lists.items():
        lines = [f"{k} {value}" for k, value in enumerate(values, 1)]
        (root / name).write_text("\n".join(lines))


def test_counts_against_the_official_ones(tmp_path):
    cub(tmp_path / "cub")
    record, text, bad = check(tmp_path / "cub", tmp_path)
    assert bad and kinds(record, "problem") == ["counts"]
    assert record["official"] == {"classes": 200, "train": 5994, "test": 5794}
    assert "official: 200 classes, 5994 training and 5794 test images" in text
    record, _, _ = check(tmp_path / "cub", tmp_path, "data.split=random")
    assert record["official"] is None and "counts" not in kinds(record)


def test_images_held_out_for_validation_are_training_images(tmp_path):
    cub(tmp_path / "cub", images=24)
    labels = "\n".join(f"{k + 1} {k // 12 + 1}" for k in range(24))
    (tmp_path / "cub/image_class_labels.txt").write_text(labels)
    (tmp_path / "cub/classes.txt").write_text("1 001.a\n2 002.b")
    record, _, _ = check(tmp_path / "cub", tmp_path, "data.validation=0.3")
    assert record["counts"] == {"classes": 2, "train": 12, "test": 12}
    assert record["official"] is not None and sum(c["validation"] for c in record["classes"]) == 4
    page = (tmp_path / "out/check.html").read_text()
    cells = ("that can be read", "–", "12", "12")
    assert re.search("".join(rf"<td[^>]*>{cell}</td>\s*" for cell in cells), page)


def test_absent_images_are_counted(tmp_path):
    cub(tmp_path / "cub")
    (tmp_path / "cub/images/001.bird/0.jpg").unlink()
    record, text, _ = check(tmp_path / "cub", tmp_path)
    assert notice(record, "absent")["images"] == ["001.bird/0.jpg"]
    assert "1 image in the lists and absent from the disk (of 2 train, 2 test images)" in text


def test_everything_at_once_is_written_and_drawn(tmp_path):
    """All pages exist, are pictures, and lie in the page; a second check replaces the files."""
    trouble_tree(tmp_path / "data")
    record, text, bad = check(tmp_path / "data", tmp_path)
    out = tmp_path / "out"
    sheets = sorted(path.name for path in out.glob("*.jpg"))
    assert sheets == [
        f"{name}-01.jpg" for name in ("broken", "classes", "duplicates", "smallest", "unusual")
    ]
    for name in sheets:
        with Image.open(out / name) as page:
            page.load()
            assert page.width == 1400 and page.height <= 3100
    html = (out / "check.html").read_text()
    assert html.count("data:image/jpeg;base64,") == len(sheets) and "鹪鹩" in html
    assert (
        bad
        and record["problems"]
        and text.endswith(re.search(r"<p class=\"verdict bad\">(.*)</p>", html)[1])
    )
    markdown = (out / "check.md").read_text()
    assert all(f"]({name})" in markdown for name in sheets)
    clean_tree(tmp_path / "clean")
    check(tmp_path / "clean", tmp_path)
    assert sorted(path.name for path in out.glob("*.jpg")) == [
        "classes-01.jpg", "smallest-01.jpg",
    ]  # fmt: skip


def test_the_same_data_give_the_same_files(root, tmp_path):
    unusual(root)
    check(root, tmp_path)
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    check(root, tmp_path, "data.threads=3")
    second = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    first.pop("check.json"), second.pop("check.json")  # holds data.threads
    assert first == second


def test_mixing_is_not_on_the_sheet(root, tmp_path):
    """Images are mixed in batches; the page says that it shows them before that."""
    for alpha in (0.0, 0.2):
        check(root, tmp_path, f"data.mixup={alpha}")
        page = (tmp_path / "out/check.html").read_text()
        assert ("before mixup and CutMix" in page) == (alpha > 0)


def test_the_report_may_not_lie_in_the_data(root):
    before = sorted(root.rglob("*"))
    with pytest.raises(UserError, match="expected a folder outside the data set"):
        check_data(root, SMALL, root / "train/report")
    assert sorted(root.rglob("*")) == before


def test_a_report_needs_jinja(root, tmp_path, monkeypatch):
    import builtins

    real = builtins.__import__

    def blocked(name, *rest, **options):
        if name == "jinja2":
            raise ImportError("blocked")
        return real(name, *rest, **options)

    import importlib

    monkeypatch.setattr(
        importlib, "import_module", lambda name: blocked(name) if name == "jinja2" else real(name)
    )
    monkeypatch.setattr(command, "read_subject", lambda _: pytest.fail("read the data set"))
    with pytest.raises(UserError, match="a report needs jinja2"):
        check_data(root, SMALL, tmp_path / "out")


def test_names_that_are_no_text_are_written(root, tmp_path):
    folder = os.fsencode(root / "train/wren")
    jpeg(scene(1), root / "odd.jpg")
    os.rename(root / "odd.jpg", folder + b"/m\xfcller.jpg")
    record, text, _ = check(root, tmp_path)
    assert record["duplicates"]["equal"][0][0]["image"].isprintable()
    assert "\\xfc" in (tmp_path / "out/check.html").read_text()
