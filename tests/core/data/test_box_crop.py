"""`data.box_crop` and `data.banner`: which pixels of each image are used, and what is refused."""

import numpy as np
import pytest
import scipy.io
from PIL import Image
from trees import (
    aircraft,
    cars_combined,
    cars_kit,
    cells,
    complaint,
    dogs,
    nabirds,
    read,
    structs,
    write,
)

from transfg_core.config.loading import load_config
from transfg_core.data.datasets.official import official
from transfg_core.data.decoding import read_image
from transfg_core.data.loader import eval_batches
from transfg_core.errors import UserError

WIDTH, HEIGHT = 30, 40


def enlarge(folder):
    """Make every image 30 x 40; red is the column and green the row."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.stack([columns, rows, rows * 0], -1).astype(np.uint8)
    for path in folder.rglob("*.jpg"):
        Image.fromarray(pixels).save(path, "PNG")


def used(samples, index):
    """First and last column and row of the pixels that a sample gives, as the loader reads it."""
    pixels = np.array(read_image(samples.paths[index], region=samples.region(index)))
    return [*pixels[0, 0, :2].tolist(), *pixels[-1, -1, :2].tolist()]


def boxed_nabirds(root, boxes="a-1 3 5 10 8\nb-2 0 0 30 40\nd-4 20.5 30 20 20\nc-3 1 2 3 4"):
    nabirds(root)
    write(root, {"bounding_boxes.txt": boxes})


def boxed_cars(root, kit):
    """The same four boxes, counted from 1: columns 4 to 13 and rows 6 to 13, and so on."""
    make = cars_kit if kit else cars_combined
    make(root)
    box = {"bbox_x1": 4, "bbox_y1": 6, "bbox_x2": 13, "bbox_y2": 13}
    wide = {"bbox_x1": 1, "bbox_y1": 1, "bbox_x2": WIDTH, "bbox_y2": HEIGHT + 3}
    if kit:
        for name in ("devkit/cars_train_annos.mat", "cars_test_annos_withlabels.mat"):
            rows = [b | {"class": k, "fname": f"0000{k}.jpg"} for k, b in ((1, box), (2, wide))]
            scipy.io.savemat(root / name, {"annotations": structs(rows)})
    else:
        rows = [
            {"relative_im_path": f"car_ims/00000{k}.jpg", "class": 1 + (k + 1) // 2 % 2,
             "test": k % 2} | (box if k < 3 else wide)
            for k in range(1, 5)
        ]  # fmt: skip
        content = {"annotations": structs(rows), "class_names": cells(["AM General", "Acura"])}
        scipy.io.savemat(root / "cars_annos.mat", content)


def spoil_box(root, value):
    """Put a value in place of the left border of each box."""
    rows = [
        {"relative_im_path": f"car_ims/00000{k}.jpg", "class": 1 + (k + 1) // 2 % 2, "test": k % 2,
         "bbox_x1": value, "bbox_y1": 1, "bbox_x2": 9, "bbox_y2": 9}
        for k in range(1, 5)
    ]  # fmt: skip
    content = {"annotations": structs(rows), "class_names": cells(["AM General", "Acura"])}
    scipy.io.savemat(root / "cars_annos.mat", content)


def objects(*boxes):
    body = "".join(
        "<object><name>x</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax>"
        "<ymax>{}</ymax></bndbox></object>".format(*box)
        for box in boxes
    )
    return f"<annotation><size><width>30</width></size>{body}</annotation>"


def boxed_dogs(root, folder="Annotation"):
    dogs(root)
    write(root / folder, {
        "n02085620-Chihuahua/a": objects((3, 5, 13, 13)),
        "n02108551-Tibetan_mastiff/b c": objects((0, 7, 12, 20), (2, 1, 9, 8)),
        "n02108551-Tibetan_mastiff/d": objects((25, 30, 99, 99)),
        "n02085620-Chihuahua/e": objects((3, 5, 13, 13)),
    })  # fmt: skip


@pytest.mark.parametrize(
    ("name", "make", "train", "test"),
    [
        ("nabirds", boxed_nabirds,
         [[3, 5, 12, 12], [20, 30, 29, 39]], [[0, 0, 29, 39], [1, 2, 3, 5]]),
        ("cars", lambda root: boxed_cars(root, kit=True),
         [[3, 5, 12, 12], [0, 0, 29, 39]], [[3, 5, 12, 12], [0, 0, 29, 39]]),
        ("cars", lambda root: boxed_cars(root, kit=False),
         [[3, 5, 12, 12], [0, 0, 29, 39]], [[3, 5, 12, 12], [0, 0, 29, 39]]),
        ("dogs", boxed_dogs, [[3, 5, 12, 12], [0, 1, 11, 19]], [[25, 30, 29, 39], [3, 5, 12, 12]]),
        ("dogs", lambda root: boxed_dogs(root, "annotations/Annotation"),
         [[3, 5, 12, 12], [0, 1, 11, 19]], [[25, 30, 29, 39], [3, 5, 12, 12]]),
    ],
)  # fmt: skip
def test_images_are_cut_to_their_boxes(tmp_path, name, make, train, test):
    """Pixels, clipped at the border; without the setting, whole images."""
    make(tmp_path)
    enlarge(tmp_path)
    data = read(tmp_path, name, box_crop=True)
    assert [used(data.train, k) for k in range(2)] == train
    assert [used(data.test, k) for k in range(2)] == test
    assert read(tmp_path, name).train.regions is None
    drawn = read(tmp_path, name, box_crop=True, split="random")
    wanted = dict(zip((*data.train.ids, *data.test.ids), train + test, strict=True))
    assert [used(drawn.train, k) for k in range(len(drawn.train.ids))] == [
        wanted[i] for i in drawn.train.ids
    ]


def test_the_banner_is_cut_unless_kept_or_boxes_say_otherwise(tmp_path):
    aircraft(tmp_path)
    enlarge(tmp_path)
    assert used(read(tmp_path, "aircraft").test, 0) == [0, 0, 29, 19]
    assert read(tmp_path, "aircraft", banner="keep").test.regions is None
    write(
        tmp_path,
        {"data/images_box.txt": "0001 1 1 9 9\n0002 4 6 13 13\n0003 2 3 30 20\n0004 1 1 2 2"},
    )
    data = read(tmp_path, "aircraft", box_crop=True)
    assert used(data.train, 1) == [3, 5, 12, 12] and used(data.test, 0) == [1, 2, 29, 19]


def test_a_batch_holds_the_box_resized(tmp_path):
    boxed_nabirds(tmp_path)
    enlarge(tmp_path)
    config = load_config(
        None, ["data.name=nabirds", f"data.root={tmp_path}", "data.box_crop=true",
               "data.resize=[8,10]", "data.crop=[8,10]"])  # fmt: skip
    data = read(tmp_path, "nabirds", box_crop=True)
    (batch,) = eval_batches(data.train, config.data, 2)
    red = batch.images[..., 0]
    assert red[0, 0].tolist() == list(range(3, 13))  # not resized: 10 x 8 pixels
    assert red[1].min() > 19 and red[1].max() < 30


@pytest.mark.parametrize(
    ("name", "make", "change", "said"),
    [
        ("nabirds", nabirds, None, ["bounding_boxes.txt", "cannot read"]),
        ("nabirds", lambda r: boxed_nabirds(r, "a-1 3 5 10 8\nb-2 0 0 1 1"), None,
         ["bounding_boxes.txt", "image id c-3", "2 of 4"]),
        ("nabirds", lambda r: boxed_nabirds(r, "a-1 3 5 10 8\na-1 0 0 1 1"), None,
         ["bounding_boxes.txt:2", "two of a-1"]),
        ("nabirds", lambda r: boxed_nabirds(r, "a-1 3 5 10 0"), None, ["boxes.txt:1", "height`"]),
        ("nabirds", lambda r: boxed_nabirds(r, "a-1 x 3 5 10 2"), None, ["boxes.txt:1", "`image_"]),
        ("nabirds", lambda r: boxed_nabirds(r, "z 3 5 10 2"), None, ["boxes.txt:1", "image id z"]),
        ("nabirds", lambda r: boxed_nabirds(r, "\n".join(f"{k} 0 0 60 80" for k in IDS)), None,
         ["a1.jpg", "30 x 40 pixels", "column 60, row 80 (4 of 4 images", "resized"]),
        ("cars", cars_kit, None, ["train_annos.mat, entry 1", "a box of at least one pixel"]),
        ("cars", lambda r: boxed_cars(r, kit=False), lambda r: spoil_box(r, np.zeros((0, 0))),
         ["cars_annos.mat, entry 1", "a box of at least one pixel", "left nan"]),
        ("cars", lambda r: boxed_cars(r, kit=False), lambda r: spoil_box(r, "wide"),
         ["cars_annos.mat, entry 1", "a box of at least one pixel", "left nan"]),
        ("nabirds", lambda r: boxed_nabirds(r, "\n".join(f"{k} 0 0 1e12 80" for k in IDS)), None,
         ["images.txt:1", "at most 1073741824 pixels, found 1e+12", "leave data.box_crop out"]),
        ("dogs", dogs, None, ["a folder Annotation", "leave data.box_crop out"]),
        ("dogs", boxed_dogs, lambda r: (r / "Annotation/n02085620-Chihuahua/e").unlink(),
         ["Chihuahua/e", "FileNotFoundError"]),
        ("dogs", boxed_dogs,
         lambda r: (r / "Annotation/n02085620-Chihuahua/e").write_text("<annotation><object>"),
         ["Chihuahua/e", "ParseError", "leave data.box_crop out"]),
        ("dogs", boxed_dogs,
         lambda r: (r / "Annotation/n02085620-Chihuahua/e").write_text(objects()),
         ["Chihuahua/e", "(bndbox), found none"]),
        ("dogs", boxed_dogs,
         lambda r: (r / "Annotation/n02085620-Chihuahua/e").write_text(objects((1, 2, "", 3))),
         ["Chihuahua/e", "ValueError"]),
        ("aircraft", aircraft, None, ["images_box.txt", "cannot read"]),
        ("aircraft", aircraft, lambda r: write(r, {"data/images_box.txt": "0001 1 1 9 9"}),
         ["images_box.txt", "of 0002.jpg", "no such row"]),
        ("aircraft", aircraft, lambda r: write(r, {"data/images_box.txt": "0001 1 1 9"}),
         ["images_box.txt", "'1 1 9' on line 1"]),
    ],
)  # fmt: skip
def test_boxes_that_are_wrong_are_named(tmp_path, name, make, change, said):
    make(tmp_path)
    enlarge(tmp_path)
    if change:
        change(tmp_path)
    message = complaint(tmp_path, name, box_crop=True)
    assert [part for part in said if part not in message] == [], message
    read(tmp_path, name)  # without the setting, boxes do not matter


IDS = ("a-1", "b-2", "c-3", "d-4")


def test_where_boxes_cannot_be_asked_for():
    for overrides, said in (
        (["data.name=food"], "a data set with boxes"),
        (["data.name=cub", "data.exif=apply"], "exif: ignore"),
    ):
        with pytest.raises(UserError, match=said):
            load_config(None, [*overrides, "data.box_crop=true"])


def test_facts_do_not_depend_on_the_crop(tmp_path):
    boxed_dogs(tmp_path)
    enlarge(tmp_path)
    config = load_config(None, ["data.name=dogs", "data.box_crop=true"]).data
    assert read(tmp_path, "dogs", box_crop=True).caution == official(config).caution
