"""Readers of published data sets: small trees of their form, and the real lists where they are."""

import csv
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from trees import (
    aircraft,
    cars_combined,
    cars_kit,
    cells,
    complaint,
    dogs,
    flowers,
    food,
    images_at,
    inat,
    nabirds,
    pets,
    read,
    structs,
    text_lists,
    write,
)

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets import read_test
from transfg_core.data.datasets.official import official

SHARED = Path(__file__).parents[3].parent / "shared" / "data"
ANNOTATIONS, LISTS = SHARED / "annotations", SHARED / "lists"
real = pytest.mark.skipif(not LISTS.is_dir(), reason=f"{LISTS} is absent")


# name, how to write a tree, classes, training ids, training labels, test ids, test labels
CASES = [
    ("nabirds", nabirds, ("Oldsquaw", "Gull (Adult/White)"),
     ["0817/a1.jpg", "0860/d4.jpg"], [0, 1], ["0860/b2.jpg", "0817/c3.jpg"], [1, 0]),
    ("cars", cars_kit, ("Ram C/V", "Acura RL"),
     ["cars_train/00001.jpg", "cars_train/00002.jpg"], [0, 1],
     ["cars_test/00001.jpg", "cars_test/00002.jpg"], [1, 0]),
    ("cars", cars_combined, ("AM General", "Acura RL"),
     ["car_ims/000001.jpg", "car_ims/000003.jpg"], [1, 0],
     ["car_ims/000002.jpg", "car_ims/000004.jpg"], [0, 1]),
    ("dogs", dogs, ("Chihuahua", "Tibetan_mastiff"),
     ["n02085620-Chihuahua/a.jpg", "n02108551-Tibetan_mastiff/b c.jpg"], [0, 1],
     ["n02108551-Tibetan_mastiff/d.jpg", "n02085620-Chihuahua/e.jpg"], [1, 0]),
    ("pets", pets, ("Abys", "Maine Coon"), ["Maine_Coon_1.jpg", "Abys_3.jpg"], [1, 0],
     ["Abys_4.jpg", "Maine_Coon_20.jpg"], [0, 1]),
    ("aircraft", aircraft, ("Cessna 172", "F-16A/B"), ["0001.jpg", "0002.jpg"], [1, 0],
     ["0003.jpg", "0004.jpg"], [0, 1]),
    ("food", food, ("ham", "pie"), ["pie/1.jpg", "ham/2.jpg"], [1, 0],
     ["ham/3.jpg", "pie/4.jpg"], [0, 1]),
    ("inat2017", inat, ("Anas", "Larus"),
     ["train_val_images/Aves/x/1.jpg", "train_val_images/Aves/x/2.jpg"], [1, 0],
     ["train_val_images/Aves/x/3.jpg", "train_val_images/Aves/x/4.jpg"], [1, 0]),
    ("list", text_lists, ("auk", "wren"),
     ["a/1.png", "b 2.png"], [1, 0], ["c.png", "d.png"], [0, 1]),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[1].__name__)
def test_each_form(tmp_path, case):
    name, make, classes, train, train_labels, test, test_labels = case
    make(tmp_path / "set")
    data = read(tmp_path / "set", name)
    assert data.classes == classes
    assert (list(data.train.ids), data.train.labels.tolist()) == (train, train_labels)
    assert (list(data.test.ids), data.test.labels.tolist()) == (test, test_labels)
    assert all(Path(path).is_file() for path in (*data.train.paths, *data.test.paths))
    assert data.left_out == () and data.split is None
    again = read_test(DataConfig(name=name, root=str(tmp_path / "set")), classes, None)
    assert again.test.ids == data.test.ids
    drawn = read(tmp_path / "set", name, split="random")
    assert len(drawn.split.rows) == 4 and not set(drawn.train.ids) & set(drawn.test.ids)


def test_flowers(tmp_path):
    flowers(tmp_path)
    data = read(tmp_path, "flowers")
    assert (len(data.classes), len(data.train.ids), len(data.test.ids)) == (102, 102, 102)
    assert data.classes[0] == "flower 001" and data.train.ids[101] == "image_00102.jpg"
    assert data.train.labels.tolist() == data.test.labels.tolist() == list(range(102))
    names = {str(k): f"name {k}" for k in range(1, 103)}
    (tmp_path / "cat_to_name.json").write_text(json.dumps(names))
    assert read(tmp_path, "flowers").classes[101] == "name 102"


def test_other_places(tmp_path):
    """Nested folders of mirrors, lists in other places, the folder above."""
    cars_kit(tmp_path / "a", where="devkit", nested="yes")
    assert read(tmp_path / "a", "cars").test.ids[0] == "cars_test/cars_test/00001.jpg"
    dogs(tmp_path / "b", form="txt", folder="images/Images")
    found = read(tmp_path / "b", "dogs")
    assert found.classes == ("Chihuahua", "Tibetan_mastiff") and found.test.labels.tolist() == [
        1,
        0,
    ]
    nabirds(tmp_path / "c/nabirds/nabirds")
    assert len(read(tmp_path / "c", "nabirds").classes) == 2
    food(tmp_path / "d/food-101", form="json")
    assert read(tmp_path / "d", "food").classes == ("ham", "pie")
    aircraft(tmp_path / "e/fgvc-aircraft-2013b")
    assert read(tmp_path / "e", "aircraft").classes == ("Cessna 172", "F-16A/B")
    assert read(tmp_path / "e", "aircraft", level="family").classes == ("A", "B")


def test_text_lists_of_other_forms(tmp_path):
    text_lists(tmp_path / "txt", form="txt")
    assert read(tmp_path / "txt", "list").train.ids == ("a/1.png", "b 2.png")
    root = tmp_path / "csv"
    images_at(root / "images", "1.png", "2.png", "3.png", "4.png")
    write(root, {
        "train.csv": '\ufeffclass_id,dir\r\n10,1.png\r\n9,"2.png"\r\n',
        "test.csv": "path,label\n3.png,9\n./4.png,10",
    })  # fmt: skip
    data = read(root, "list")
    assert data.classes == ("9", "10") and data.train.labels.tolist() == [1, 0]
    assert data.test.ids == ("3.png", "4.png")
    (root / "classes.txt").write_text("9 Blue jay\n10 Crow")
    assert read(root, "list").classes == ("Blue jay", "Crow")


def test_text_lists_with_more_columns(tmp_path):
    """A header says which columns count; a list without a header has two."""
    images_at(tmp_path, "1.png", "2.png", "3.png", "4.png")
    write(tmp_path, {
        "train.csv": "id,Class_Name,filename,licence\n7,auk,1.png,cc\n8,wren,2.png,\n",
        "test.csv": "3.png,wren\n4.png,auk",
    })  # fmt: skip
    data = read(tmp_path, "list")
    assert data.train.ids == ("1.png", "2.png") and data.train.labels.tolist() == [0, 1]
    (tmp_path / "train.csv").write_text("id,label,path\n7,auk,1.png\n8,wren")
    assert "train.csv:3: expected 3 fields, as the header has" in complaint(tmp_path, "list")


def test_a_training_list_alone_gets_a_drawn_split(tmp_path):
    names = [f"{k}.png" for k in range(20)]
    images_at(tmp_path, *names)
    write(tmp_path, {"train.csv": "\n".join(f"{n},{'ab'[k % 2]}" for k, n in enumerate(names))})
    assert "or set data.split=random" in complaint(tmp_path, "list")
    for split in ("random", "auto"):
        data = read(tmp_path, "list", split=split)
        assert (len(data.train.ids), len(data.test.ids), len(data.split.rows)) == (16, 2, 20)


def webfg(root, name):
    images_at(root / name / "train", "B/B_1.jpg", "B/B_2.jpg", "a 1/a 1_1.jpg")
    images_at(root / name / "val", "a 1/0001.jpg", "B/0002.jpg")


@pytest.mark.parametrize("name", ["web-bird", "web-aircraft", "web-car"])
@pytest.mark.parametrize("outer", ["", "{0}", "WebFG-496", "../{0}"])
def test_webfg(tmp_path, name, outer):
    """The three sets under one root, nested as archives unpack, or the set's own folder."""
    up = outer.startswith("..")
    for other in ("web-bird", "web-aircraft", "web-car"):
        webfg(tmp_path / ("" if up else outer.format(other)), other)
    root = tmp_path / name if up else tmp_path
    data = read(root, name)
    assert (data.name, data.classes) == (name, ("B", "a 1"))  # capitals first
    assert data.train.ids == ("train/B/B_1.jpg", "train/B/B_2.jpg", "train/a 1/a 1_1.jpg")
    assert data.test.labels.tolist() == [0, 1]
    assert ("CUB-200-2011" in data.caution) == (name == "web-bird")
    again = read_test(DataConfig(name=name, root=str(root)), data.classes, None)
    assert again.test.ids == data.test.ids == ("val/B/0002.jpg", "val/a 1/0001.jpg")
    assert again.caution == data.caution


@pytest.mark.parametrize("outer", ["", "car_data", "car_data/car_data", "stanford_cars"])
def test_cars_by_class(tmp_path, outer):
    """Mirrors number their classes by name: an evaluation goes by the names of the checkpoint."""
    root = tmp_path / outer
    images_at(root / "train", "Acura RL Sedan 2012/1.jpg", "AM General Hummer SUV 2000/2.jpg")
    images_at(root / "test", "AM General Hummer SUV 2000/3.jpg", "Acura RL Sedan 2012/4.jpg")
    data = read(tmp_path, "cars")
    assert data.classes == ("AM General Hummer SUV 2000", "Acura RL Sedan 2012")
    assert (data.name, data.test.labels.tolist()) == ("cars", [0, 1])
    kit = ("Acura RL Sedan 2012", "AM General Hummer SUV 2000")
    again = read_test(DataConfig(name="cars", root=str(tmp_path)), kit, None)
    assert again.classes == kit and again.test.labels.tolist() == [0, 1]
    assert again.test.ids[0] == "test/Acura RL Sedan 2012/4.jpg"
    assert "this form of cars has none" in complaint(tmp_path, "cars", box_crop=True)
    cars_kit(tmp_path)
    assert read(tmp_path, "cars").classes == ("Ram C/V", "Acura RL")


def test_ids_with_gaps_are_kept(tmp_path):
    nabirds(tmp_path / "a")
    inat(tmp_path / "b")
    assert read(tmp_path / "a", "nabirds").class_ids == ("817", "860")
    assert read(tmp_path / "b", "inat2017").class_ids == ("4", "9")


def test_broken_files_of_webfg(tmp_path):
    webfg(tmp_path, "web-car")
    (tmp_path / "web-car/train/B/B_3.jpg").write_text("")
    assert "B_3.jpg: expected an image, found an empty file" in complaint(tmp_path, "web-car")
    data = read(tmp_path, "web-car", on_bad_image="skip")
    assert [(e.count, e.example) for e in data.left_out] == [(1, "train/B/B_3.jpg")]


def spoil(name, text):
    return lambda root: (root / name).write_text(text)


def no_test_field(root):
    path = root / "cars_annos.mat"
    rows = [{"relative_im_path": "car_ims/000001.jpg", "class": 1}] * 2
    scipy.io.savemat(path, {"annotations": structs(rows), "class_names": cells(["A", "B"])})


def no_annotations(name):
    def change(root):
        empty = {"annotations": np.empty((1, 0), object), "class_names": cells(["A", "B"])}
        scipy.io.savemat(root / name, empty)

    return change


def changed_json(name, change):
    def spoiled(root):
        tree = json.loads((root / name).read_text())
        change(tree)
        (root / name).write_text(json.dumps(tree))

    return spoiled


def no_labels(root):
    path = root / "cars_test_annos_withlabels.mat"
    scipy.io.savemat(path, {"annotations": structs([{"bbox_x1": 5, "fname": "00001.jpg"}] * 2)})


@pytest.mark.parametrize(
    ("name", "make", "change", "said"),
    [
        ("cars", cars_kit, no_labels, ["withlabels.mat", "the field `class`", "bbox_x1, fname"]),
        ("cars", cars_kit, lambda root: (root / "cars_test_annos_withlabels.mat").unlink(),
         ["withlabels.mat", "expected the labels of the test images, found no such file"]),
        ("cars", cars_kit, spoil("devkit/cars_meta.mat", "no"), ["cars_meta.mat", "copy it again"]),
        ("cars", lambda root: cars_kit(root, labels=(3, 1)), None,
         ["class(1)", "from 1 to 2", "1 of 2 values"]),
        ("cars", lambda root: cars_kit(root, names=("A", "A")), None, ["'A' for classes 1 and 2"]),
        ("cars", cars_kit, lambda root: (root / "cars_test/00002.jpg").unlink(),
         ["withlabels.mat, entry 2", "00002.jpg is listed but absent", "1 of 4", "=skip"]),
        ("cars", cars_kit, no_annotations("devkit/cars_train_annos.mat"),
         ["cars_train_annos.mat", "expected annotations of images, found none"]),
        ("cars", cars_combined, no_annotations("cars_annos.mat"),
         ["cars_annos.mat", "expected annotations of images, found none"]),
        ("cars", cars_combined, no_test_field,
         ["cars_annos.mat, entry 1", "the field `test`", "relative_im_path, class"]),
        ("dogs", dogs, lambda root: (root / "test_list.mat").unlink(), ["test_list.mat or dog_"]),
        ("dogs", lambda root: dogs(root, "txt"),
         spoil("lists/dog_val.txt", "0 n1-Pug/x.jpg"), ["dog_val.txt:1", "Pug and Chihuahua"]),
        ("dogs", lambda root: dogs(root, "txt"),
         spoil("lists/dog_val.txt", "n1-Pug/x.jpg 0"), ["dog_val.txt:1", "`label path`"]),
        ("nabirds", nabirds, spoil("classes.txt", "0 Birds\n817 Oldsquaw"), ["found 860", "1 unk"]),
        ("pets", pets, spoil("annotations/test.txt", "Abys 1 1 1"), ["test.txt:1", "breed`"]),
        ("pets", pets, spoil("annotations/test.txt", "Abys_9 2 1 1"), ["Abys and Maine Coon"]),
        ("aircraft", aircraft, spoil("data/images_variant_test.txt", "0003"), ["_test.txt:1"]),
        ("food", food, spoil("meta/test.txt", "ham/../../x"), ["test.txt:1", "`class/number`"]),
        ("inat2017", inat, spoil("val2017.json", "{}"), ["val2017.json", "the list 'images'"]),
        ("inat2017", inat, spoil("val2017.json", "[" * 99999), ["val2017.json", "as JSON"]),
        ("inat2017", inat, spoil("val2017.json", json.dumps(
            {"images": [{"id": 3, "file_name": "x"}], "annotations": [], "categories": []})),
         ["val2017.json, image 3", "expected an annotation"]),
        ("inat2017", inat, changed_json("val2017.json", lambda tree: tree["images"][0].update(
            file_name="\ud800.jpg")), ["val2017.json, image 3", "name of a file", "ud800"]),
        ("inat2017", inat, lambda root: [changed_json(f"{part}2017.json", lambda tree: tree[
            "categories"][0].update(name="\ud800"))(root) for part in ("train", "val")],
         ["train2017.json", "expected a text as the name of class 2", "ud800"]),
        ("inat2017", inat, changed_json("val2017.json", lambda tree: tree["categories"][0].update(
            name="Gavia")), ["val2017.json, category 9", "'Gavia' and 'Larus'", "together?"]),
        ("inat2017", inat, changed_json("val2017.json", lambda tree: tree["annotations"].append(
            {"image_id": 3, "category_id": 4})),
         ["val2017.json, image 3", "categories 9 and 4", "remove one"]),
        ("list", text_lists, spoil("val.csv", "c.png,auk\nd.png," + "x" * 131_073),
         ["val.csv:2", "fields between commas", "correct the line"]),
        ("list", text_lists, spoil("val.csv", "a/9.png"), ["val.csv:1", "`path,label`"]),
        ("list", text_lists, spoil("val.csv", "path,label"), ["val.csv", "found none"]),
        ("list", text_lists, spoil("val.csv", "../x.png,auk\nd.png,wren"), ["val.csv:1", "inside"]),
        ("list", text_lists, spoil("classes.txt", "auk Auk"), ["classes.txt", "none for wren"]),
        ("list", text_lists, lambda root: (root / "val.csv").unlink(), ["add a list of test"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path, name, make, change, said):
    make(tmp_path)
    if change:
        change(tmp_path)
    message = complaint(tmp_path, name)
    assert [part for part in said if part not in message] == [], message


@pytest.mark.parametrize("name", ["nabirds", "cars", "dogs", "aircraft", "flowers", "pets", "food",
                                  "inat2017", "list"])  # fmt: skip
def test_an_empty_folder_is_named(tmp_path, name):
    assert "found a folder without them; is data.root right?" in complaint(tmp_path, name)


def test_cautions_go_with_the_data_set(tmp_path):
    dogs(tmp_path)
    data = read(tmp_path, "dogs")
    assert "made from ImageNet" in data.counts()["caution"]
    assert any(line.startswith("caution: Stanford Dogs") for line in data.notes())


def rows_of(name):
    with open(LISTS / name, newline="") as file:
        return [(int(row["class_id"]), row["dir"]) for row in csv.DictReader(file)]


def sizes(data):
    return len(data.classes), len(data.train.ids), len(data.test.ids)


def counts(name, **keys):
    return official(DataConfig(name=name, **keys))[:3]


def test_official_counts_by_level():
    assert counts("aircraft") == (100, 6667, 3333)
    assert counts("aircraft", level="family") == (70, 6667, 3333)
    assert counts("aircraft", level="manufacturer") == (30, 6667, 3333)
    assert counts("cub", level="family") == (200, 5994, 5794)
    assert official(DataConfig(name="list")) is None


def class_name(name):
    return Path(name).parts[1]


@real
@pytest.mark.parametrize("stem", ["bird", "aircraft", "car"])
def test_real_webfg(tmp_path, stem):
    """Folders with the names of the real lists, of which each file is a link to one image."""
    images_at(tmp_path, "one.jpg")
    listed = {}
    for part in ("train", "val"):
        for line in (LISTS / f"web_{stem}_{part}.txt").read_text().splitlines():
            label, name = re.split("[ ,]", line, maxsplit=1)
            listed[name] = int(label)
            path = tmp_path / f"web-{stem}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(tmp_path / "one.jpg", path)
    data = read(tmp_path, f"web-{stem}")
    assert sizes(data) == counts(f"web-{stem}")
    assert len(listed) == len(data.train.ids) + len(data.test.ids)
    for samples in (data.train, data.test):
        assert [listed[name] for name in samples.ids] == samples.labels.tolist()
    assert data.classes == tuple(sorted({class_name(name) for name in listed}))


@real
def test_real_nabirds():
    data = read(ANNOTATIONS / "nabirds", "nabirds", on_bad_image="skip")
    assert sizes(data) == counts("nabirds") == (555, 23929, 24633)


@real
def test_real_cars(tmp_path):
    """The kit's lists; the test labels are those of another list."""
    kit = ANNOTATIONS / "stanford_cars"
    (tmp_path / "devkit").mkdir()
    for name in ("cars_meta.mat", "cars_train_annos.mat", "cars_test_annos.mat"):
        (tmp_path / "devkit" / name).symlink_to(kit / name)
    said = complaint(tmp_path, "cars", on_bad_image="skip")
    assert "found only devkit/cars_test_annos.mat, which has none" in said
    assert "put it into a folder devkit/" in complaint(kit, "cars")
    rows = [line.split() for line in (kit / "mmal_test.txt").read_text().splitlines() if line]
    notes = structs([{"class": int(label), "fname": Path(name).name} for name, label in rows])
    scipy.io.savemat(tmp_path / "cars_test_annos_withlabels.mat", {"annotations": notes})
    data = read(tmp_path, "cars", on_bad_image="skip")
    assert sizes(data) == counts("cars") == (196, 8144, 8041)
    assert (
        data.classes[1] == "Acura RL Sedan 2012"
        and "Ram C/V Cargo Van Minivan 2012" in data.classes
    )


@real
def test_real_dogs(tmp_path):
    (tmp_path / "Images").mkdir()
    for name in ("dog_train.txt", "dog_val.txt"):
        (tmp_path / name).symlink_to(LISTS / name)
    data = read(tmp_path, "dogs", on_bad_image="skip")
    assert sizes(data) == counts("dogs") == (120, 12000, 8580)
    assert data.classes[0] == "Chihuahua"


@real
def test_real_flowers(tmp_path):
    for name in ("imagelabels.mat", "setid.mat"):
        (tmp_path / name).symlink_to(ANNOTATIONS / "oxford_flowers102" / name)
    data = read(tmp_path, "flowers", on_bad_image="skip")
    assert sizes(data) == counts("flowers") == (102, 2040, 6149)
    expected = {name: label for label, name in rows_of("flowers_test.csv")}
    assert dict(zip(data.test.ids, data.test.labels.tolist(), strict=True)) == expected


@real
@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("aircraft", (100, 6667, 3333)), ("cars", (196, 8144, 8041)), ("food", (101, 75750, 25250)),
        ("pets", (37, 3680, 3669)), ("flowers", (102, 2040, 6149)),
    ],
)  # fmt: skip
def test_real_csv_lists(tmp_path, stem, expected):
    """`class_id,dir`: read as they are, and equal to what the sets' own readers give."""
    (tmp_path / "train.csv").symlink_to(LISTS / f"{stem}_train_val.csv")
    (tmp_path / "test.csv").symlink_to(LISTS / f"{stem}_test.csv")
    data = read(tmp_path, "list", on_bad_image="skip")
    assert sizes(data) == counts(stem) == expected
    if stem == "pets":
        own = tmp_path / "own"
        for part, name in (("trainval", "train_val"), ("test", "test")):
            lines = [f"{Path(n).stem} {k + 1} 1 1" for k, n in rows_of(f"pets_{name}.csv")]
            write(own, {f"annotations/{part}.txt": "\n".join(lines)})
        again = read(own, "pets", on_bad_image="skip")
        assert again.test.ids == data.test.ids
        assert again.test.labels.tolist() == data.test.labels.tolist()
    if stem == "food":
        own = tmp_path / "own"
        for part, name in (("train", "train_val"), ("test", "test")):
            lines = [n.removesuffix(".jpg") for _, n in rows_of(f"food_{name}.csv")]
            write(own, {f"meta/{part}.txt": "\n".join(lines)})
        again = read(own, "food", on_bad_image="skip")
        assert again.test.ids == data.test.ids
        assert again.test.labels.tolist() == data.test.labels.tolist()
