"""Parquet files of images: columns, classes, shards and splits, and what is refused.

The reader needs pyarrow, an optional extra. What does not need it is tested without.
"""

import hashlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import trees
from PIL import Image

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets import read_dataset, read_test
from transfg_core.data.decoding import read_image
from transfg_core.errors import UserError

try:
    import pyarrow
    import pyarrow.parquet
except ImportError:
    pyarrow = None
needs_pyarrow = pytest.mark.skipif(pyarrow is None, reason="pyarrow is not installed")

NAMES = ["auk", "wren, small", "Ram C/V"]


def encoded(value, form="PNG"):
    """An image whose red is `value`, in the bytes of this format."""
    file = io.BytesIO()
    Image.new("RGB", (6, 4), (value, 0, 0)).save(file, form)
    return file.getvalue()


def hub(**features):
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


CLASS_LABEL = {"_type": "ClassLabel", "names": NAMES}
IMAGE = {"_type": "Image"}


def write(path, images, labels, label="label", image="image", metadata=None, **more):
    """One file; an image is bytes or a struct. Two rows in a group."""
    structs = [
        i if isinstance(i, dict) or i is None else {"bytes": i, "path": None} for i in images
    ]
    table = pyarrow.table({image: structs, label: labels, **more})
    if metadata is None:
        metadata = hub(**{image: IMAGE, label: CLASS_LABEL})
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), path, row_group_size=2)


def small(root, train="train-00000-of-00001.parquet", test="test-00000-of-00001.parquet", **keys):
    write(root / train, [encoded(10 * k) for k in range(5)], [2, 0, 1, 1, 0], **keys)
    write(root / test, [encoded(200 + k) for k in range(3)], [1, 2, 0], **keys)


def read(root, name="parquet", **keys):
    return read_dataset(DataConfig(name=name, root=str(root), **keys), 0)


def complaint(root, name="parquet", **keys):
    with pytest.raises(UserError) as caught:
        read(root, name, **keys)
    return str(caught.value)


def reds(samples):
    return [int(np.array(read_image(path))[0, 0, 0]) for path in samples.paths]


@needs_pyarrow
def test_a_set_of_the_hub(tmp_path):
    """Bytes as they are, labels and names in the order of the metadata."""
    forms = ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"]
    images = [encoded(0, form) for form in forms]
    write(tmp_path / "data/train-00000-of-00002.parquet", images[:3], [2, 0, 1])
    write(tmp_path / "data/train-00001-of-00002.parquet", images[3:], [1, 0, 2])
    write(tmp_path / "data/test-00000-of-00001.parquet", images[:3], [1, 2, 0])
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache/test-00000-of-00009.parquet").write_text("half a download")
    data = read(tmp_path)
    assert data.classes == tuple(NAMES)
    assert data.train.labels.tolist() == [2, 0, 1, 1, 0, 2]
    assert data.test.labels.tolist() == [1, 2, 0]
    suffixes = [".jpg", ".png", ".gif", ".bmp", ".tif", ".webp"]
    assert [Path(name).suffix for name in data.train.ids] == suffixes
    names = [hashlib.sha256(image).hexdigest()[:16] for image in images]
    assert [Path(name).stem for name in data.train.ids] == names
    assert [Path(name).stem for name in data.test.ids] == [f"{name}-2" for name in names[:3]]
    assert [Path(path).read_bytes() for path in data.train.paths] == images
    assert read_test(DataConfig(name="parquet", root=str(tmp_path)), NAMES, None).test.ids == (
        data.test.ids
    )
    assert len(list(tmp_path.glob("unpacked-*"))) == 1


@needs_pyarrow
@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train.parquet", "test.parquet"),
        ("train/0000.parquet", "test/0000.parquet"),
        ("default/train/0000.parquet", "default/validation/0000.parquet"),
        ("data/train-00000-of-00001-a1b2.parquet", "data/validation-00000-of-00001-c3.parquet"),
        ("training_0.parquet", "val_0.parquet"),
    ],
)
def test_names_that_say_the_split(tmp_path, train, test):
    small(tmp_path, train, test)
    data = read(tmp_path)
    assert reds(data.train) == [0, 10, 20, 30, 40] and reds(data.test) == [200, 201, 202]


@needs_pyarrow
def test_the_test_split_goes_before_the_validation_split(tmp_path):
    small(tmp_path)
    write(tmp_path / "validation-00000-of-00001.parquet", [encoded(99)], [0])
    data = read(tmp_path)
    assert reds(data.test) == [200, 201, 202] and len(data.train.ids) == 5
    (left,) = data.left_out
    assert left.count == 1 and left.example == "validation-00000-of-00001.parquet"
    assert "of a split that is not used" in left.reason


@needs_pyarrow
@pytest.mark.parametrize(
    ("name", "train", "test"),
    [
        ("aircraft", [0, 10, 20, 30, 40, 99], [200, 201, 202]),
        ("flowers", [0, 10, 20, 30, 40, 99], [200, 201, 202]),
        ("pets", [0, 10, 20, 30, 40, 99], [200, 201, 202]),
        ("cub", [0, 10, 20, 30, 40], [200, 201, 202]),
        ("inat2017", [0, 10, 20, 30, 40], [97, 98, 99]),
    ],
)
def test_a_mirror_follows_the_rules_of_its_set(tmp_path, name, train, test):
    """Papers train with both lists of some sets, and test iNat2017 on its validation split."""
    small(tmp_path)
    values, labels = ([97, 98, 99], [0, 1, 2]) if name == "inat2017" else ([99], [0])
    write(tmp_path / "validation-00000-of-00001.parquet", [encoded(v) for v in values], labels)
    data = read(tmp_path, name)
    assert (reds(data.train), reds(data.test)) == (train, test)
    assert len(data.left_out) == (0 if len(train) == 6 else 1)


@needs_pyarrow
def test_a_mirror_of_aircraft_has_its_banner_and_levels(tmp_path):
    family = {"_type": "ClassLabel", "names": ["A", "B"]}
    metadata = hub(image=IMAGE, variant=CLASS_LABEL, family=family)
    for part in ("train", "test"):
        write(tmp_path / f"{part}.parquet", [encoded(k) for k in range(3)], [0, 1, 2], "variant",
              metadata=metadata, family=[0, 0, 1])  # fmt: skip
    data = read(tmp_path, "aircraft")
    assert data.classes == tuple(NAMES) and data.train.region(0) == (0, 0, 0, -20)
    assert read(tmp_path, "aircraft", banner="keep").train.regions is None
    assert read(tmp_path, "parquet", label="variant").train.regions is None
    coarse = read(tmp_path, "aircraft", level="family")
    assert coarse.classes == ("A", "B") and coarse.test.labels.tolist() == [0, 0, 1]
    assert coarse.test.ids == data.test.ids  # the images are the same
    assert read(tmp_path, "aircraft", level="family", label="variant").classes == tuple(NAMES)
    assert "data.label: manufacturer" in complaint(tmp_path, "aircraft", level="manufacturer")
    small(tmp_path / "plain")
    assert read(tmp_path / "plain", "aircraft").classes == tuple(NAMES)
    assert "data.label: family" in complaint(tmp_path / "plain", "aircraft", level="family")


@needs_pyarrow
def test_own_lists_go_before_parquet_files(tmp_path):
    trees.cub(tmp_path)
    (tmp_path / "features.parquet").write_bytes(b"of something else")
    assert trees.read(tmp_path, "cub").classes == ("001.Auk", "002.Wren")
    small(tmp_path)
    assert trees.read(tmp_path, "cub").classes == ("001.Auk", "002.Wren")
    (tmp_path / "images.txt").unlink()
    (tmp_path / "features.parquet").unlink()
    assert read(tmp_path, "cub").classes == tuple(NAMES)


def test_another_parquet_file_is_no_mirror(tmp_path):
    (tmp_path / "features.parquet").write_bytes(b"of something else")
    assert "expected images.txt" in complaint(tmp_path, "cub")


@needs_pyarrow
def test_another_source_of_the_same_size_has_other_ids(tmp_path):
    """A run's split.csv says which images it trained with: of another source it says nothing."""
    for name, first in (("one", 0), ("other", 100)):
        images = [encoded(first + k) for k in range(9)]
        write(tmp_path / name / "train.parquet", images, [0, 1, 2] * 3)
    one, other = (read(tmp_path / name, split="auto") for name in ("one", "other"))
    assert one.split.rows.keys().isdisjoint(other.split.rows)
    images = [encoded(k) for k in range(9)]
    write(tmp_path / "copy/data/train-00000-of-00001.parquet", images, [0, 1, 2] * 3)
    copy = read(tmp_path / "copy", split="auto")  # the same images elsewhere
    assert copy.split == one.split and copy.test.ids == one.test.ids


@needs_pyarrow
def test_labels_in_the_middle_of_a_file_count(tmp_path):
    """A file of some size, whose label pages lie between those of images."""
    noise = np.random.default_rng(0).integers(0, 256, (4, 300, 300, 3)).astype(np.uint8)
    images = []
    for pixels in noise:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        images.append(file.getvalue())
    small(tmp_path)
    found = []
    for labels in ([0, 1, 2, 0], [0, 2, 1, 0]):
        write(tmp_path / "train-00000-of-00001.parquet", images, labels)
        found.append(read(tmp_path).train.labels.tolist())
    assert found == [[0, 1, 2, 0], [0, 2, 1, 0]]


@needs_pyarrow
@pytest.mark.parametrize("column", ["label", "image.bytes"])
def test_a_damaged_page_is_the_fault_of_the_file(tmp_path, column):
    small(tmp_path)
    path = tmp_path / "test-00000-of-00001.parquet"
    group = pyarrow.parquet.ParquetFile(path).metadata.row_group(1)
    chunks = {group.column(k).path_in_schema: group.column(k) for k in range(group.num_columns)}
    chunk = chunks[column]
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(content)
    message = complaint(tmp_path)
    assert f"{path}: expected a Parquet file, but reading it failed" in message, message
    assert "copy it again" in message and not list(tmp_path.glob("unpacked-*"))


@needs_pyarrow
def test_columns_of_other_names_and_types(tmp_path):
    small(tmp_path / "cifar", image="img", label="fine_label")
    assert read(tmp_path / "cifar").classes == tuple(NAMES)
    two = hub(image=IMAGE, genus={"_type": "ClassLabel", "names": ["A", "B", "C"]},
              species=CLASS_LABEL)  # fmt: skip
    write(tmp_path / "two/train.parquet", [encoded(1)] * 3, [0, 1, 2], "species", metadata=two,
          genus=[2, 1, 0])  # fmt: skip
    write(tmp_path / "two/test.parquet", [encoded(1)] * 3, [0, 1, 2], "species", metadata=two,
          genus=[0, 2, 1])  # fmt: skip
    assert "a column of class labels, found image, species, genus; set data.label" in complaint(
        tmp_path / "two"
    )
    species = read(tmp_path / "two", label="species")
    assert species.classes == tuple(NAMES) and species.test.labels.tolist() == [0, 1, 2]
    genus = read(tmp_path / "two", label="genus")
    assert genus.classes == ("A", "B", "C") and genus.test.labels.tolist() == [0, 2, 1]
    assert "the column data.label: family" in complaint(tmp_path / "two", label="family")
    for kind, labels, classes in (
        ("numbers", [7, 3, 11, 3, 7], ("3", "7", "11")),
        ("names", ["b", "a", "C", "b", "a"], ("C", "a", "b")),
    ):
        root = tmp_path / kind
        write(root / "train.parquet", [encoded(k) for k in range(5)], labels, metadata={})
        write(root / "test.parquet", [encoded(9)] * 3, labels[:3], metadata={})
        data = read(root)
        assert data.classes == classes
        assert [data.classes[k] for k in data.train.labels] == [str(label) for label in labels]
    plain = pyarrow.table({"image": pyarrow.array([encoded(5)] * 3, pyarrow.binary()),
                           "label": [0, 1, 2]})  # fmt: skip
    for part in ("train", "test"):
        (tmp_path / "bytes").mkdir(exist_ok=True)
        pyarrow.parquet.write_table(plain, tmp_path / "bytes" / f"{part}.parquet")
    assert reds(read(tmp_path / "bytes").test) == [5, 5, 5]


@needs_pyarrow
def test_a_training_file_alone_gets_a_drawn_split(tmp_path):
    write(tmp_path / "train.parquet", [encoded(k) for k in range(9)], [0, 1, 2] * 3)
    assert "set data.split=random" in complaint(tmp_path)
    data = read(tmp_path, split="auto")
    assert len(data.split.rows) == 9 and sorted(data.test.labels.tolist()) == [0, 1, 2]


@needs_pyarrow
def test_a_mirror_of_a_published_set(tmp_path):
    """CUB in Parquet: its own name keeps what is known of the set."""
    small(tmp_path, "data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet")
    data = read(tmp_path, "cub")
    assert data.name == "cub" and "CUB-200-2011" in data.caution
    assert data.classes == tuple(NAMES) and reds(data.test) == [200, 201, 202]
    assert read(tmp_path).caution == ""


def more_labels(root):
    write(root / "test-00000-of-00001.parquet", [encoded(1)] * 3, [0, 1, 3])


@needs_pyarrow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: (r / "train-00000-of-00001.parquet").rename(r / "train-00000-of-00003.parquet"),
         ["train-00000-of-00003", "expected 3 shards", "found 1"]),
        (lambda r: write(r / "train-00000-of-00002.parquet", [encoded(1)], [0]),
         ["expected 1 or 2 shards", "an older version"]),
        (lambda r: (r / "train-00000-of-00001.parquet").rename(r / "all.parquet"),
         ["all.parquet", "rename the file"]),
        (lambda r: (r / "train-00000-of-00001.parquet").unlink(), ["no training file"]),
        (lambda r: write(r / "b/train-00000-of-00001.parquet", [encoded(1)], [0]),
         ["in one folder", "one configuration"]),
        (lambda r: (r / "test-00000-of-00001.parquet").write_text("no"),
         ["test-00000", "expected a Parquet file"]),
        (lambda r: write(r / "test-00000-of-00001.parquet", [encoded(1)], [-1]),
         ["test-00000", "found -1 in row 0 of group 0", "without labels"]),
        (lambda r: write(r / "test-00000-of-00001.parquet", [encoded(1)], [None]),
         ["test-00000", "found None"]),
        (more_labels, ["labels from 0 to 2", "names 3 classes, found 3"]),
        (lambda r: write(r / "test-00000-of-00001.parquet", [encoded(1)], ["auk"], metadata={}),
         ["numbers or as names, found both"]),
        (lambda r: write(r / "test-00000-of-00001.parquet", [encoded(1)], [1], image="img"),
         ["test-00000", "no 'image'", "belong together"]),
        (lambda r: write(r / "test-00000-of-00001.parquet",
                         [{"bytes": None, "path": "a.jpg"}], [1]),
         ["test-00000", "row 0", "a copy that holds the images"]),
        (lambda r: write(r / "train-00000-of-00001.parquet", [encoded(1)] * 2, [0, 0]),
         ["expected training images of each of 3 classes, found none of"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path, change, said):
    small(tmp_path)
    change(tmp_path)
    message = complaint(tmp_path)
    assert [part for part in said if part not in message] == [], message
    assert not list(tmp_path.glob("*.partial"))


@needs_pyarrow
def test_a_file_without_images_is_named(tmp_path):
    table = pyarrow.table({"text": ["a"], "label": [0]})
    pyarrow.parquet.write_table(table, tmp_path / "train.parquet")
    assert "a column of images, structs of bytes and path, found text" in complaint(tmp_path)


@needs_pyarrow
def test_damaged_metadata_is_no_metadata(tmp_path):
    small(tmp_path, metadata={b"huggingface": b"{"})
    assert read(tmp_path).classes == ("0", "1", "2")


@needs_pyarrow
def test_a_broken_image_is_left_to_the_reader_of_images(tmp_path):
    """As in any data set: `data.on_bad_image` decides."""
    small(tmp_path)
    write(tmp_path / "test-00000-of-00001.parquet", [b"no image", b"", encoded(3)], [0, 1, 2])
    data = read(tmp_path)
    assert [Path(path).read_bytes()[:8] for path in data.test.paths][:2] == [b"no image", b""]


def test_without_pyarrow_the_command_is_told(tmp_path, monkeypatch):
    (tmp_path / "train.parquet").write_text("")
    (tmp_path / "test.parquet").write_text("")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert "pip install -e '.[parquet]'" in complaint(tmp_path)


def test_no_parquet_files(tmp_path):
    assert "found no Parquet files; is data.root right?" in complaint(tmp_path)
    assert "found no such folder" in complaint(tmp_path / "none")
