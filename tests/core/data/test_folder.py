"""Folders of one's own photographs: flat or split, for training and for evaluation."""

import os
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets import read_dataset, read_test, with_equal_files
from transfg_core.errors import UserError


def image_at(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


@pytest.fixture
def flat(tmp_path):
    """Classes a and b with ten images each, one of them in a deeper folder."""
    root = tmp_path / "flat"
    for number in range(20):
        deeper = "deep/" if number == 7 else ""
        image_at(root / f"{'ab'[number % 2]}/{deeper}{number:02}.png", number)
    return root


@pytest.fixture
def split(tmp_path):
    """train/ and val/ with classes a and b of two images each."""
    root = tmp_path / "split"
    for number, name in enumerate(("train/a", "train/b", "val/a", "val/b")):
        for k in range(2):
            image_at(root / f"{name}/{k}.png", 10 * number + k)
    return root


def read(root, seed=0, saved=None, **keys):
    return read_dataset(DataConfig(name="folder", root=str(root), **keys), seed, saved)


def read_for_test(root, classes=("a", "b"), saved=None, **keys):
    return read_test(DataConfig(name="folder", root=str(root), **keys), classes, saved)


def complaint(call, *args, **keys):
    with pytest.raises(UserError) as caught:
        call(*args, **keys)
    assert caught.value.exit_code == 2
    return str(caught.value)


def left_out(data):
    return {entry.example: entry.count for entry in data.left_out}


@pytest.mark.parametrize("how", ["auto", "random"])
def test_a_flat_folder_is_split_by_class(flat, how):
    data = read(flat, split=how)
    assert data.classes == ("a", "b")
    assert np.bincount(data.train.labels).tolist() == [8, 8]
    assert np.bincount(data.test.labels).tolist() == [2, 2]
    assert sorted((*data.train.ids, *data.test.ids)) == sorted(data.split.rows)
    assert "b/deep/07.png" in data.split.rows
    assert data.train.labels.tolist() == [int(name[0] == "b") for name in data.train.ids]
    assert read(flat, split=how).split == data.split != read(flat, 1, split=how).split


def test_a_flat_folder_holds_out_images_for_validation(flat):
    plain, data = read(flat, split="auto"), read(flat, split="auto", validation=0.2)
    assert data.test.ids == plain.test.ids and plain.validation is None
    assert np.bincount(data.validation.labels).tolist() == [2, 2]
    assert sorted((*data.train.ids, *data.validation.ids)) == sorted(plain.train.ids)
    again = read(flat, 5, data.split, split="auto", validation=0.2)
    assert again.validation.ids == data.validation.ids
    assert read_for_test(flat, saved=data.split, split="auto").test.ids == data.test.ids
    assert read(flat, saved=data.split, split="auto").validation is None


def test_folds_of_a_flat_folder(flat):
    folds = [read(flat, split="auto", folds=5, fold=fold) for fold in range(5)]
    assert sorted(name for data in folds for name in data.test.ids) == sorted(folds[0].split.rows)
    assert all(np.bincount(data.test.labels).tolist() == [2, 2] for data in folds)
    assert "at least 11 groups" in complaint(read, flat, split="auto", folds=11, fold=0)


def test_splits_on_disk_hold_out_training_images(split):
    plain, data = read(split), read(split, validation=0.3)
    assert data.test.ids == plain.test.ids
    assert {*data.train.ids, *data.validation.ids} == set(plain.train.ids)
    assert [len(part.ids) for part in (data.train, data.validation, data.test)] == [2, 2, 4]
    assert all(row.size for row in data.split.rows.values())
    assert read(split, 7, data.split, validation=0.3).validation.ids == data.validation.ids
    image_at(split / "val/a/new.png", 77), image_at(split / "train/b/new.png", 78)
    later = read(split, 7, data.split, validation=0.3)
    assert (later.train.ids, later.test.ids) == (data.train.ids, data.test.ids)
    assert sum(entry.count for entry in later.left_out if "split.csv" in entry.reason) == 2
    grouped = complaint(read, split, validation=0.3, group="(train|val)")
    assert "class a: expected at least two groups" in grouped and "found 2 images in one" in grouped
    assert "data.folds" in complaint(read, split, split="auto", folds=2, fold=0)


def test_equal_files_in_training_and_validation(split):
    shutil.copy(split / "train/a/0.png", split / "train/a/copy.png")
    data = with_equal_files(read(split, validation=0.4, group="([^/]+$)"))
    sides = [{"train/a/0.png", "train/a/copy.png"} & set(s.ids) for s in (data.train, data.test)]
    assert not sides[1]
    notes = [note for note in data.notes() if "validation images that are also" in note]
    assert len(notes) == (len(sides[0]) == 1)


def test_official_asks_for_a_split_and_the_remedy_works(flat):
    message = complaint(read, flat)
    assert "train/<class>/*" in message and "data.split=auto" in message
    assert read(flat, split="auto").classes == ("a", "b")


def test_auto_takes_the_split_on_disk(split):
    data = read(split, split="auto")
    assert data.split is None and data.test.ids == read(split).test.ids
    assert "data.split=official" in complaint(read, split, split="random")
    assert "data.group" in complaint(read, split, split="auto", group="(.)")


def test_a_class_named_train_is_a_class(flat):
    (flat / "a").rename(flat / "train")
    assert read(flat, split="auto").classes == ("b", "train")


def test_train_without_val_names_the_folder_to_use(flat, tmp_path):
    (tmp_path / "root").mkdir()
    flat.rename(tmp_path / "root/train")
    message = complaint(read, tmp_path / "root", split="auto")
    assert f"data.root={tmp_path / 'root/train'}" in message
    assert read(tmp_path / "root/train", split="auto").classes == ("a", "b")


def test_splits_under_other_names_are_not_classes(split):
    (split / "train").rename(split / "Train")
    (split / "val").rename(split / "Validation")
    message = complaint(read, split, split="auto")
    assert "Train, Validation" in message and "rename" in message


def test_a_pattern_keeps_groups_whole(flat):
    """Groups of images 4k to 4k + 3 span both classes."""
    data = read(flat, split="auto", group="(?:0|1)([0-9])[.]")
    tens = {name[-5] for name in data.test.ids}
    assert tens.isdisjoint(name[-5] for name in data.train.ids)


def test_one_group_has_a_remedy_that_works(flat):
    assert "data.group='(.+)'" in complaint(read, flat, split="auto", group="^([ab])/")
    assert len(read(flat, split="auto", group="(.+)").test.ids) == 4


def test_the_saved_list_decides(flat):
    saved = read(flat, split="auto").split
    image_at(flat / "a/new.png", 99)
    data = read(flat, seed=5, saved=saved, split="auto")
    assert data.split == saved and left_out(data) == {"a/new.png": 1}
    os.remove(flat / "a/00.png")
    message = complaint(read, flat, saved=saved, split="auto")
    assert "19 of 20" in message and "a/00.png" in message


def test_the_list_of_other_images_is_not_used(flat, tmp_path):
    saved = read(flat, split="auto").split
    for number in range(8):
        image_at(tmp_path / f"other/{'ab'[number % 2]}/x{number}.png", 50 + number)
    assert read(tmp_path / "other", saved=saved, split="auto").split != saved


def test_evaluation_of_the_same_photographs_takes_the_test_images(flat, tmp_path):
    data = read(flat, split="auto")
    flat.rename(tmp_path / "moved")
    again = read_for_test(tmp_path / "moved", saved=data.split, split="auto")
    assert again.test.ids == data.test.ids and not again.train.paths
    assert sum(left_out(again).values()) == 16


def test_evaluation_of_other_photographs_takes_every_image(flat, tmp_path):
    saved = read(flat, split="auto").split
    other = tmp_path / "other"
    for number in range(10):
        image_at(other / f"a/x{number:02}.png", 70 + number)
    data = read_for_test(other, saved=saved, split="auto")
    assert len(data.test.ids) == 10 and data.classes == ("a", "b")


def test_photographs_that_were_resized_in_place_are_not_others(flat):
    """Every size differs, but training images among them must not become test images."""
    data = read(flat, split="auto")
    for name in data.split.rows:
        with Image.open(flat / name) as image:
            image.resize((24, 18)).save(flat / name)
    for call in (read_for_test, read):
        message = complaint(call, flat, saved=data.split, split="auto")
        was, size = data.split.rows["a/00.png"].size, (flat / "a/00.png").stat().st_size
        assert f"found 0 of 20: a/00.png has {size} bytes instead of {was}" in message
        assert f"if it shows the same picture, write {size} into split.csv" in message
        assert ("data.split=official" in message) == (call is read_for_test)
    assert len(read_for_test(flat, split="official").test.ids) == 20


@pytest.mark.parametrize(
    ("train", "test", "remedy"),
    [
        ("train", "valid", "rename valid to val"),
        ("Training", "testing", "rename Training to train and rename testing to val"),
    ],
)
def test_splits_under_other_names_are_told_their_names(split, train, test, remedy):
    (split / "val").rename(split / test)
    (split / "train").rename(split / train)
    for mode in ("auto", "official"):
        assert remedy in complaint(read, split, split=mode)
    assert remedy in complaint(read_for_test, split)


def test_two_folders_of_test_images_need_training_images(split):
    (split / "train").rename(split / "test")
    assert "put the training images into train/" in complaint(read, split, split="auto")


def test_a_relative_root_is_looked_for_in_a_named_folder(split, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    message = complaint(read, "photos")
    assert f"found no such folder in {tmp_path}; is data.root right?" in message


def test_images_without_a_listed_name_count_as_new_and_that_is_said(flat, tmp_path):
    saved = read(flat, split="auto").split
    other = tmp_path / "other"
    for number in range(4):
        image_at(other / f"{'ab'[number % 2]}/x{number}.png", 90 + number)
    (note,) = read_for_test(other, saved=saved, split="auto").notes()
    assert note.startswith("all 4 images count as new to the model") and "a/x0.png" in note
    assert read_for_test(flat, saved=saved, split="auto").findings == ()


@pytest.mark.parametrize("suffix", [".bmp", ".PNG"])
def test_the_listed_images_in_another_form_are_not_new(flat, suffix):
    """Most of them were trained with."""
    saved = read(flat, split="auto").split
    for name in saved.rows:
        with Image.open(flat / name) as image:
            image.save((flat / name).with_suffix(suffix))
        os.remove(flat / name)
    message = complaint(read_for_test, flat, saved=saved, split="auto")
    assert f"a/00{suffix} for a/00.png: the same images in another form?" in message
    assert "data.split=official" in message  # other photographs may have such names, too


def test_a_mixture_is_refused(flat):
    saved = read(flat, split="auto").split
    for name in list(saved.rows)[3:]:
        os.remove(flat / name)
    assert "3 of 20" in complaint(read_for_test, flat, saved=saved, split="auto")


def test_evaluation_needs_the_list(flat):
    message = complaint(read_for_test, flat, split="auto")
    assert "split.csv" in message and "data.split=official" in message
    assert len(read_for_test(flat, split="official").test.ids) == 20


def test_a_class_may_be_called_test(flat):
    (flat / "a").rename(flat / "test")
    data = read(flat, split="auto")
    assert read_for_test(flat, data.classes, data.split, split="auto").test.ids == data.test.ids


def test_evaluation_needs_no_training_images(split):
    shutil.rmtree(split / "train")
    assert read_for_test(split).test.ids == (
        "val/a/0.png",
        "val/a/1.png",
        "val/b/0.png",
        "val/b/1.png",
    )
    (split / "val").rename(split / "test")
    shutil.rmtree(split / "test/a")
    data = read_for_test(split)
    assert data.test.ids == ("test/b/0.png", "test/b/1.png")
    assert data.classes == ("a", "b") and data.test.labels.tolist() == [1, 1]


def test_a_run_with_a_split_evaluates_a_flat_folder(flat):
    assert len(read_for_test(flat).test.ids) == 20


def test_unknown_classes_are_named(flat):
    message = complaint(read_for_test, flat, classes=("b", "c"))
    assert "found a (1 unknown)" in message


def test_the_two_forms_of_an_accent_are_one_class(split):
    for side, form in (("train", "NFC"), ("val", "NFD")):
        (split / side / "a").rename(split / side / unicodedata.normalize(form, "Bruant é"))
    data = read(split)
    assert data.classes == ("Bruant é", "b")
    assert data.test.ids[0] == unicodedata.normalize("NFC", "val/Bruant é/0.png")
    assert all(os.path.isfile(path) for path in data.test.paths)


def test_both_forms_in_one_split_are_merged_or_refused(split):
    (split / "train/a").rename(split / "train" / unicodedata.normalize("NFC", "é"))
    (split / "val/a").rename(split / "val/é")
    other = split / "train" / unicodedata.normalize("NFD", "é")
    image_at(other / "2.png", 77)
    assert read(split).train.labels.tolist() == [0, 0, 1, 1, 1]
    image_at(other / "0.png", 78)
    assert "Unicode form" in complaint(read, split)


def test_latin1_names_become_utf8(split):
    for side in ("train", "val"):
        os.rename(split / side / "a", os.path.join(os.fsencode(split / side), b"M\xf6we"))
    data = read(split)
    assert data.classes == ("M\\xf6we", "b")
    assert data.test.ids[0] == "val/M\\xf6we/0.png"
    assert all(os.path.isfile(path) for path in data.train.paths)


def test_what_is_left_out_is_counted(split):
    (split / "train/a/x.heic").write_bytes(b"?")
    (split / "models").mkdir()
    image_at(split / "train/stray.png", 80)
    data = read(split)
    assert left_out(data) == {"train/a/x.heic": 1, "train/stray.png": 1, "models": 1}
    assert [entry["count"] for entry in data.counts()["left_out"]] == [1, 1, 1]
    assert all(note.startswith("left out: 1 ") for note in data.notes())


def test_turned_photographs_are_named_unless_they_are_turned(split):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (9, 6)).save(split / "val/a/phone.JPG", exif=exif)
    (split / "val/a/bad.jpg").write_text("no image")
    data = read(split)
    assert data.left_out == ()  # they are used
    (note,) = data.notes()
    assert note.startswith("not turned: 1 of 2 photographs have an EXIF orientation")
    assert "val/a/phone.JPG" in note and "data.exif=apply" in note
    assert data.counts()["findings"]["turned"]["count"] == 1
    assert read(split, exif="apply").notes() == []


def test_a_sample_of_turned_photographs_is_called_one(flat, monkeypatch):
    monkeypatch.setattr("transfg_core.data.datasets.findings.MOST_HEADERS", 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    for number in range(7):
        Image.new("RGB", (9, 6), (number, 0, 0)).save(flat / f"a/phone{number}.jpg", exif=exif)
    data = read(flat, split="auto", group="(.+)")
    assert "not turned: 3 of 3 photographs, a sample of 7, have" in "\n".join(data.notes())
    turned = data.counts()["findings"]["turned"]
    assert (turned["count"], turned["sample"], turned["images"]) == (3, 3, 7)
    again = read_for_test(flat, saved=data.split, split="auto")
    (found,) = again.findings
    assert 0 < found.images == sum("phone" in name for name in again.test.ids)


def test_only_the_first_frame_is_used_and_that_is_said(split):
    frames = [Image.new("RGB", (9, 6), (value, 0, 0)) for value in (10, 200)]
    for name in ("a/film.gif", "b/pages.tif", "b/film.webp"):
        frames[0].save(split / "train" / name, save_all=True, append_images=frames[1:])
    frames[0].save(split / "train/b/still.gif")
    data = read(split)
    (note,) = data.notes()
    assert note.startswith("only the first picture is used: 3 of ") and "film.gif" in note
    assert data.counts()["findings"]["frames"]["count"] == 3


def test_test_images_that_are_training_images_are_named(split):
    for side in ("train/a", "val/b"):  # also across classes
        Image.new("RGB", (9, 6), (1, 2, 3)).save(split / side / "same.png")
    data = with_equal_files(read(split))
    (note,) = data.notes()
    assert note.startswith("equal files: test images that are also training images: 1 (such as ")
    assert "val/b/same.png and train/a/same.png" in note
    found = data.counts()["findings"]["equal"]
    assert (found["count"], found["original"]) == (1, "train/a/same.png")
    # the same size and the same ends are not enough
    for side, middle in (("train/a", b"x"), ("val/b", b"y")):
        (split / side / "same.png").write_bytes(b"0" * 5000 + middle + b"0" * 5000)
    assert with_equal_files(read(split)).findings == ()
    shutil.copy(split / "val/b/same.png", split / "train/a/same.png")
    data = read(split)
    os.remove(split / "val/b/same.png")  # since the folder was read
    assert with_equal_files(data).findings == ()


def test_a_class_of_left_out_files_says_so(split):
    for path in (split / "val/a").iterdir():
        path.rename(path.with_suffix(".heic"))
    message = complaint(read, split)
    assert "val/a: expected images" in message and "HEIC" in message and "convert" in message


def test_a_class_of_one_split_alone_has_remedies(split):
    image_at(split / "train/c/0.png", 81)
    message = complaint(read, split)
    assert "train/c" in message and "data.split=auto" in message


@pytest.mark.parametrize("how", ["official", "auto"])
def test_one_class_is_refused(split, flat, how):
    for side in ("train", "val"):
        shutil.rmtree(split / side / "b")
    shutil.rmtree(flat / "b")
    root = split if how == "official" else flat
    assert "at least two classes" in complaint(read, root, split=how)


def test_many_classes(tmp_path):
    for number in range(300):
        for k in range(2):
            image_at(tmp_path / f"{number}/{k}.png", 2 * number + k)
    data = read(tmp_path, split="auto")
    assert (len(data.classes), len(data.train.ids), len(data.test.ids)) == (300, 300, 300)
