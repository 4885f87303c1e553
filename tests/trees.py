"""Small trees in the layouts of published data sets, two classes each (Flowers: all 102).

Names and labels are chosen so that a reader that takes the wrong list, order or base shows it.
"""

import json
import pickle

import numpy as np
import pytest
import scipy.io
from PIL import Image

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets import read_dataset
from transfg_core.errors import UserError


def images_at(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3)).save(path, "PNG")


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def structs(rows):
    """A MATLAB struct array of rows, as scipy writes it."""
    array = np.empty(len(rows), dtype=[(key, object) for key in rows[0]])
    for place, row in enumerate(rows):
        array[place] = tuple(row.values())
    return array


def cells(names):
    array = np.empty(len(names), object)
    array[:] = names
    return array


def cub(root):
    ids = ("001.Auk/a.jpg", "001.Auk/b.jpg", "002.Wren/c.jpg", "002.Wren/d.jpg")
    write(root, {
        "classes.txt": "1 001.Auk\n2 002.Wren",
        "images.txt": "\n".join(f"{row} {name}" for row, name in enumerate(ids, 1)),
        "image_class_labels.txt": "1 1\n2 1\n3 2\n4 2",
        "train_test_split.txt": "1 1\n2 0\n3 1\n4 0",
    })  # fmt: skip
    images_at(root / "images", *ids)


def folders(root):
    for part in ("train", "val"):
        images_at(root / part, "auk/a.jpg", "wren/b.jpg")


def cars_kit(root, where="", labels=(2, 1), names=("Ram C/V", "Acura RL"), nested=""):
    """Training images of classes 1 and 2, test images of these labels."""
    (root / "devkit").mkdir(parents=True)
    scipy.io.savemat(root / "devkit/cars_meta.mat", {"class_names": cells(names)})
    rows = [{"bbox_x1": 1, "class": k, "fname": f"0000{k}.jpg"} for k in (1, 2)]
    scipy.io.savemat(root / "devkit/cars_train_annos.mat", {"annotations": structs(rows)})
    rows = [{"bbox_x1": 1, "class": k, "fname": f"0000{n}.jpg"} for n, k in enumerate(labels, 1)]
    path = root / where / "cars_test_annos_withlabels.mat"
    scipy.io.savemat(path, {"annotations": structs(rows)})
    for part in ("train", "test"):
        inner = f"cars_{part}/cars_{part}" if nested else f"cars_{part}"
        images_at(root / inner, "00001.jpg", "00002.jpg")


def cars_combined(root):
    root.mkdir(parents=True, exist_ok=True)
    rows = [
        {"relative_im_path": f"car_ims/00000{k}.jpg", "bbox_x1": 1, "class": label, "test": test}
        for k, (label, test) in enumerate(((2, 0), (1, 1), (1, 0), (2, 1)), 1)
    ]
    content = {"annotations": structs(rows), "class_names": cells(["AM General", "Acura RL"])}
    scipy.io.savemat(root / "cars_annos.mat", content)
    images_at(root / "car_ims", *(f"00000{k}.jpg" for k in range(1, 5)))


def dogs(root, form="mat", folder="Images"):
    parts = {
        "train": [("n02085620-Chihuahua/a.jpg", 1), ("n02108551-Tibetan_mastiff/b c.jpg", 2)],
        "test": [("n02108551-Tibetan_mastiff/d.jpg", 2), ("n02085620-Chihuahua/e.jpg", 1)],
    }
    for part, rows in parts.items():
        images_at(root / folder, *(name for name, _ in rows))
        if form == "mat":
            labels = np.array([[label] for _, label in rows], np.uint8)
            content = {"file_list": cells([name for name, _ in rows]), "labels": labels}
            scipy.io.savemat(root / f"{part}_list.mat", content)
        else:
            text = "\n".join(f"{label - 1} {name}" for name, label in rows)
            write(root, {f"lists/dog_{'val' if part == 'test' else part}.txt": text})


def nabirds(root):
    write(root, {
        "classes.txt": "0 Birds\n817 Oldsquaw\n860 Gull (Adult/White)\n900 Unused",
        "images.txt": "a-1 0817/a1.jpg\nb-2 0860/b2.jpg\nc-3 0817/c3.jpg\nd-4 0860/d4.jpg",
        "image_class_labels.txt": "a-1 817\nb-2 860\nc-3 817\nd-4 860",
        "train_test_split.txt": "a-1 1\nb-2 0\nc-3 0\nd-4 1",
    })  # fmt: skip
    images_at(root / "images", "0817/a1.jpg", "0860/b2.jpg", "0817/c3.jpg", "0860/d4.jpg")


def flowers(root, labels=None):
    root.mkdir(parents=True, exist_ok=True)
    labels = np.tile(np.arange(1, 103), 2) if labels is None else labels
    half = len(labels) // 2
    scipy.io.savemat(root / "imagelabels.mat", {"labels": labels})
    sets = {
        "trnid": np.arange(1, half), "valid": np.array([half]),
        "tstid": np.arange(half + 1, len(labels) + 1),
    }  # fmt: skip
    scipy.io.savemat(root / "setid.mat", sets)
    images_at(root / "jpg", *(f"image_{k:05}.jpg" for k in range(1, len(labels) + 1)))


def pets(root):
    write(root, {
        "annotations/trainval.txt": "#Image CLASS SPECIES BREED\nMaine_Coon_1 2 1 2\nAbys_3 1 1 1",
        "annotations/test.txt": "Abys_4 1 1 1\r\nMaine_Coon_20 2 1 2\r\n",
    })  # fmt: skip
    images_at(root / "images", "Maine_Coon_1.jpg", "Abys_3.jpg", "Abys_4.jpg", "Maine_Coon_20.jpg")


def aircraft(root):
    text = {"trainval": "0001 F-16A/B\n0002 Cessna 172", "test": "0003 Cessna 172\n0004 F-16A/B"}
    coarse = {"trainval": "0001 A\n0002 B", "test": "0003 B\n0004 A"}
    for part in text:
        write(root, {f"data/images_variant_{part}.txt": text[part],
                     f"data/images_family_{part}.txt": coarse[part]})  # fmt: skip
    images_at(root / "data/images", *(f"000{k}.jpg" for k in range(1, 5)))


def food(root, form="txt"):
    parts = {
        "train": {"pie": ["pie/1"], "ham": ["ham/2"]},
        "test": {"ham": ["ham/3"], "pie": ["pie/4"]},
    }
    for part, rows in parts.items():
        names = [name for own in rows.values() for name in own]
        text = json.dumps(rows) if form == "json" else "\n".join(names)
        write(root, {f"meta/{part}.{form}": text})
        images_at(root / "images", *(f"{name}.jpg" for name in names))


def inat(root):
    categories = [{"id": 9, "name": "Larus"}, {"id": 4, "name": "Anas"}]
    for part, ids in (("train", (1, 2)), ("val", (3, 4))):
        images = [{"id": k, "file_name": f"train_val_images/Aves/x/{k}.jpg"} for k in ids]
        # in another order than the images
        notes = [{"image_id": k, "category_id": 9 if k % 2 else 4} for k in reversed(ids)]
        tree = {"images": images, "annotations": notes, "categories": categories}
        write(root, {f"{part}2017.json": json.dumps(tree)})
        images_at(root, *(image["file_name"] for image in images))


def cifar100(root):
    root.mkdir(parents=True, exist_ok=True)
    content = {"meta": {"fine_label_names": ["apple", "baby"]}}
    for part, labels in (("train", [1, 0]), ("test", [0, 1])):
        data = np.arange(2 * 3072).reshape(2, 3072).astype(np.uint8)
        content[part] = {"data": data, "fine_labels": labels}
    for name, own in content.items():
        (root / name).write_bytes(pickle.dumps(own, 2))


def text_lists(root, form="csv"):
    rows = {
        "train": [("a/1.png", "wren"), ("b 2.png", "auk")],
        "val": [("c.png", "auk"), ("d.png", "wren")],
    }
    for part, own in rows.items():
        between = "," if form == "csv" else " "
        write(root, {f"{part}.{form}": "\n".join(between.join(row) for row in own)})
        images_at(root, *(name for name, _ in own))


def read(root, name, seed=0, **keys):
    return read_dataset(DataConfig(name=name, root=str(root), **keys), seed)


def complaint(root, name, **keys):
    with pytest.raises(UserError) as caught:
        read(root, name, **keys)
    return str(caught.value)
