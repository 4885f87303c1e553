"""Readers of data set layouts: what they read, and what they say about a broken one."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets import SplitList, read_dataset, read_test
from transfg_core.data.datasets.split import SplitRow
from transfg_core.errors import UserError

SHARED = Path(__file__).parents[3].parent / "shared" / "data"
FULL_LISTS = SHARED / "annotations" / "CUB_200_2011"
CUB50 = SHARED / "cub50"

# Two classes, sparse ids out of order, three images of the first class in training.
FILES = {
    "classes.txt": "1 001.Auk\n2 002.Wren",
    "images.txt": "7 001.Auk/a.png\n3 001.Auk/b c.png\n9 001.Auk/d.png\n4 002.Wren/e.png\n"
    "5 002.Wren/f.png\n6 001.Auk/g.png",
    "image_class_labels.txt": "3 1\n7 1\n9 1\n4 2\n5 2\n6 1",
    "train_test_split.txt": "7 1\n3 1\n9 0\n4 0\n5 1\n6 1",
}


@pytest.fixture
def cub(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    for row in FILES["images.txt"].splitlines():
        path = tmp_path / "images" / row.split(maxsplit=1)[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3)).save(path)
    return tmp_path


@pytest.fixture
def folder(tmp_path):
    for name in (
        "train/b/2.PNG",
        "train/b/deep/1.png",
        "train/a/x.jpg",
        "val/a/y.jpg",
        "val/b/z.jpg",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3)).save(path)
    (tmp_path / "train/a/notes.txt").write_text("not an image")
    (tmp_path / "train/a/._x.jpg").write_text("not one either")
    return tmp_path


def read(root, name="cub", seed=0, **keys):
    return read_dataset(DataConfig(name=name, root=str(root), **keys), seed)


def complaint(root, name="cub", **keys):
    with pytest.raises(UserError) as caught:
        read(root, name, **keys)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_cub_layout(cub):
    data = read(cub)
    assert data.classes == ("001.Auk", "002.Wren")
    assert data.train.ids == ("001.Auk/a.png", "001.Auk/b c.png", "002.Wren/f.png", "001.Auk/g.png")
    assert data.train.labels.tolist() == [0, 0, 1, 0] and data.train.labels.dtype == np.int64
    assert data.test.ids == ("001.Auk/d.png", "002.Wren/e.png")
    assert data.test.labels.tolist() == [0, 1]
    assert all(Path(path).is_file() for path in (*data.train.paths, *data.test.paths))
    assert data.train.part_boxes is None


def test_cub_root_may_be_one_level_up(cub, tmp_path_factory):
    outer = tmp_path_factory.mktemp("outer")
    (outer / "CUB_200_2011").symlink_to(cub)
    assert read(outer).train.ids == read(cub).train.ids


@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "\n\n"])
def test_final_newline_costs_no_digit(cub, ending):
    labels = "".join(f"{i} {1 + (i in (4, 5))}\n" for i in (3, 7, 9, 4, 5))
    (cub / "image_class_labels.txt").write_text(labels + "6 1" + ending, newline="")
    assert read(cub).train.labels.tolist() == [0, 0, 1, 0]


def test_part_boxes_become_corners(cub):
    (cub / "part_boxes.txt").write_text("5 left wing 1 2 3 4.5\n7 beak 0 0 1 1\n5 tail 9 8 7 6\n")
    data = read(cub)
    beak, none, wing_tail, _ = data.train.part_boxes
    assert beak.tolist() == [[0, 0, 1, 1]] and beak.dtype == np.float32
    assert none.shape == (0, 4)
    assert wing_tail.tolist() == [[1, 2, 4, 6.5], [9, 8, 16, 14]]


def images_with(second):
    """images.txt with another path on line 2."""
    return FILES["images.txt"].replace("001.Auk/b c.png", second)


BROKEN = [  # file, its new text (None: absent), what the message must say
    ("images.txt", None, ["images.txt", "is data.root right?"]),
    ("classes.txt", None, ["classes.txt", "cannot read"]),
    ("train_test_split.txt", "", ["train_test_split.txt", "empty"]),
    ("images.txt", "7 001.Auk/a.png\n3", ["images.txt:2", "`id value`", "'3'"]),
    ("images.txt", "7 001.Auk/a.png\n7 001.Auk/d.png", ["images.txt:2", "id 7", "line 1"]),
    ("images.txt", images_with("001.Auk/a.png"), ["images.txt:2", "line 1", "1 of 6 lines"]),
    ("images.txt", images_with("no.png"), ["images.txt:2", "no.png", "1 of 6", "=skip"]),
    (
        "images.txt",
        images_with("../a.png"),
        ["images.txt:2", "a path inside", "'../a.png'", "1 of 6"],
    ),
    ("images.txt", images_with("/etc/passwd"), ["images.txt:2", "a path inside"]),
    ("classes.txt", "1 001.Auk\n2 001.Auk", ["classes.txt", "'001.Auk' for classes 1 and 2"]),
    ("classes.txt", "1 a\n3 b", ["classes.txt:2", "class id 2", "'3'"]),
    ("classes.txt", "1 a\n2 b\n3 c", ["classes.txt", "class 3 c", "no images"]),
    ("image_class_labels.txt", "3 1\n7 1\n9 1\n4 3\n5 9\n6 1", ["labels.txt:4", "'3' (2 of 6"]),
    ("image_class_labels.txt", "3 1\n7 0\n9 1\n4 2\n5 2\n6 1", ["labels.txt:2", "'0'"]),
    ("image_class_labels.txt", "3 1\n7 x\n9 1\n4 2\n5 2\n6 1", ["labels.txt:2", "'x'"]),
    ("image_class_labels.txt", "3 1\n7 1\n9 1\n4 2\n5 2", ["images.txt:6", "id 6"]),
    ("train_test_split.txt", FILES["train_test_split.txt"] + "\n8 1", ["split.txt:7", "id 8"]),
    ("train_test_split.txt", "7 1\n3 1\n9 2\n4 0\n5 1\n6 1", ["split.txt:3", "0 to 1", "'2'"]),
    ("train_test_split.txt", "7 1\n3 1\n9 1\n4 1\n5 1\n6 1", ["split.txt", "test images"]),
    ("train_test_split.txt", "7 0\n3 0\n9 0\n4 0\n5 0\n6 0", ["split.txt", "training images"]),
    ("train_test_split.txt", "7 1\n3 1\n9 0\n4 1\n5 1\n6 1", ["split.txt", "test", "002.Wren"]),
    ("train_test_split.txt", "7 1\n3 1\n9 1\n4 0\n5 0\n6 0", ["split.txt", "train", "002.Wren"]),
    ("part_boxes.txt", "7 beak 1 2 3", ["part_boxes.txt:1", "x y width height"]),
    ("part_boxes.txt", "7 beak 1 2 3 4\n7 beak 1 2 0 4", ["part_boxes.txt:2"]),
    ("part_boxes.txt", "8 beak 1 2 3 4", ["part_boxes.txt:1", "id 8"]),
]


@pytest.mark.parametrize(("name", "text", "said"), BROKEN)
def test_broken_cub_is_named(cub, name, text, said):
    if text is None:
        (cub / name).unlink()
    else:
        (cub / name).write_text(text)
    message = complaint(cub)
    assert [part for part in said if part not in message] == [], message


def test_absent_root(tmp_path):
    assert "no such folder" in complaint(tmp_path / "none")
    assert "no such folder" in complaint(tmp_path / "none", "folder")


def test_absent_image_stays_listed_when_skipping(cub):
    (cub / "images/001.Auk/a.png").unlink()
    assert "images.txt:1" in complaint(cub)
    assert read(cub, on_bad_image="skip").train.ids[0] == "001.Auk/a.png"


def test_folder_layout(folder):
    data = read(folder, "folder")
    assert data.classes == ("a", "b")
    assert data.train.ids == ("train/a/x.jpg", "train/b/2.PNG", "train/b/deep/1.png")
    assert data.train.labels.tolist() == [0, 1, 1]
    assert data.test.ids == ("val/a/y.jpg", "val/b/z.jpg")
    (folder / "val").rename(folder / "test")
    assert read(folder, "folder").test.ids == ("test/a/y.jpg", "test/b/z.jpg")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda root: (root / "val/b/z.jpg").unlink(), ["val/b", "expected images"]),
        (lambda root: (root / "train/c").mkdir(), ["train/c", "no match", "val"]),
        (lambda root: (root / "val/c").mkdir(), ["val/c", "no match", "train"]),
        (lambda root: (root / "val").rename(root / "other"), ["val/<class>", "test/<class>"]),
        (lambda root: (root / "train").rename(root / "other"), ["train/<class>"]),
        (lambda root: [p.rename(root / p.name) for p in (root / "val").iterdir()], ["val", "none"]),
    ],
)
def test_broken_folder_is_named(folder, change, said):
    change(folder)
    message = complaint(folder, "folder")
    assert [part for part in said if part not in message] == [], message


@pytest.mark.skipif(not FULL_LISTS.is_dir(), reason=f"{FULL_LISTS} is absent")
def test_official_lists():
    data = read(FULL_LISTS, on_bad_image="skip")  # lists without images
    assert (len(data.classes), len(data.train.ids), len(data.test.ids)) == (200, 5994, 5794)
    assert data.classes[199] == "200.Common_Yellowthroat"
    assert data.test.ids[0].endswith("Black_Footed_Albatross_0046_18.jpg")
    assert np.bincount(data.train.labels).min() == 29
    assert "11788 of 11788" in complaint(FULL_LISTS)


@pytest.mark.skipif(not FULL_LISTS.is_dir(), reason=f"{FULL_LISTS} is absent")
def test_random_split_is_stratified_and_seeded():
    keys = dict(split="random", on_bad_image="skip")
    data, again, other = (read(FULL_LISTS, seed=seed, **keys) for seed in (1, 1, 2))
    assert data.train.ids == again.train.ids and data.test.ids == again.test.ids
    assert data.test.ids != other.test.ids
    assert not set(data.train.ids) & set(data.test.ids)
    official = read(FULL_LISTS, on_bad_image="skip")
    sizes = np.bincount(np.concatenate([official.train.labels, official.test.labels]))
    tenth = (sizes + 5) // 10
    assert np.bincount(data.test.labels).tolist() == tenth.tolist()
    assert np.bincount(data.train.labels).tolist() == (sizes - 2 * tenth).tolist()


def test_random_split_of_few(cub):
    data = read(cub, split="random")
    assert np.bincount(data.test.labels).tolist() == [1, 1]
    assert np.bincount(data.train.labels).tolist() == [3, 1]
    (cub / "train_test_split.txt").unlink()
    assert read(cub, split="random").test.ids == data.test.ids
    assert read(cub, split="auto").test.ids == data.test.ids


def test_validation_of_an_official_split(cub):
    grow(cub, [(20, "002.Wren/new.png", 2)])
    with open(cub / "train_test_split.txt", "a") as file:
        file.write("\n20 1")
    plain, data = read(cub), read(cub, validation=0.2)
    assert data.test.ids == plain.test.ids
    assert len(data.validation.ids) == 2 and len(data.train.ids) == len(plain.train.ids) - 2
    assert {*data.train.ids, *data.validation.ids} == set(plain.train.ids)
    assert sorted(data.validation.labels) == [0, 1] and not data.left_out
    config = DataConfig(name="cub", root=str(cub), validation=0.2)
    again = read_dataset(config, 99, data.split)  # the list of the run decides
    assert again.validation.ids == data.validation.ids
    assert read_test(config, data.classes, data.split).test.ids == plain.test.ids


@pytest.mark.skipif(not FULL_LISTS.is_dir(), reason=f"{FULL_LISTS} is absent")
def test_random_80_10_10():
    data = read(FULL_LISTS, split="random", validation=0.1, on_bad_image="skip")
    plain = read(FULL_LISTS, split="random", on_bad_image="skip")
    assert data.test.ids == plain.test.ids
    labels = np.concatenate([each.labels for each in (data.train, data.test, data.validation)])
    tenths = [round(0.1 * count) for count in np.bincount(labels).tolist()]
    assert len(labels) == 11788 and np.bincount(data.validation.labels).tolist() == tenths
    assert not {*data.validation.ids} & {*data.train.ids, *data.test.ids}


@pytest.mark.skipif(not FULL_LISTS.is_dir(), reason=f"{FULL_LISTS} is absent")
def test_folds_test_each_image_once():
    keys = dict(split="random", on_bad_image="skip", folds=3)
    folds = [read(FULL_LISTS, fold=fold, **keys) for fold in range(3)]
    tested = [name for data in folds for name in data.test.ids]
    assert len(tested) == len(set(tested)) == 11788
    assert all({*data.train.ids, *data.test.ids} == set(tested) for data in folds)
    with_held_out = read(FULL_LISTS, fold=1, validation=0.1, **keys)
    assert with_held_out.test.ids == folds[1].test.ids
    assert {*with_held_out.train.ids, *with_held_out.validation.ids} == set(folds[1].train.ids)


def test_folds_of_an_official_split_are_refused(cub):
    assert "data.split=random" in complaint(cub, split="auto", folds=2, fold=0)


def test_auto_prefers_the_official_list(cub):
    assert read(cub, split="auto").test.ids == read(cub).test.ids


def test_a_saved_random_split_is_kept(cub):
    data = read(cub, split="random", seed=1)
    again = read_dataset(DataConfig(name="cub", root=str(cub), split="random"), 2, data.split)
    assert again.split == data.split and again.train.ids == data.train.ids


def grow(root, rows):
    """List more images, of (id, name, class)."""
    for key, name, label in rows:
        with open(root / "images.txt", "a") as file:
            file.write(f"\n{key} {name}")
        with open(root / "image_class_labels.txt", "a") as file:
            file.write(f"\n{key} {label}")
        Image.new("RGB", (4, 3)).save(root / "images" / name)


def test_a_saved_random_split_is_kept_when_images_are_added(cub):
    """Another drawing would test with images that the run trained with."""
    config = DataConfig(name="cub", root=str(cub), split="random")
    data = read_dataset(config, 1)
    grow(cub, [(20, "001.Auk/new.png", 1), (21, "002.Wren/new.png", 2)])
    for again in (read_dataset(config, 2, data.split), read_test(config, data.classes, data.split)):
        assert again.split == data.split and again.train.ids == data.train.ids
        assert again.test.ids == data.test.ids
        (entry,) = [entry for entry in again.left_out if "new" in entry.example]
        assert (entry.count, entry.example) == (2, "001.Auk/new.png")
        assert "not in the run's split.csv" in entry.reason


def test_the_split_of_a_run_outlasts_a_new_official_list(cub):
    """The run drew its split, since there was no list; the list then came back."""
    config = DataConfig(name="cub", root=str(cub), split="auto")
    (cub / "train_test_split.txt").rename(cub / "away.txt")
    data = read_dataset(config, 1)
    (cub / "away.txt").rename(cub / "train_test_split.txt")
    again = read_test(config, data.classes, data.split)
    assert again.test.ids == data.test.ids != read(cub).test.ids
    other = SplitList({"003.Owl/x.png": SplitRow("train", "x")})
    assert read_test(config, data.classes, other).test.ids == read(cub).test.ids


def test_a_saved_random_split_with_absent_images_is_refused(cub):
    config = DataConfig(name="cub", root=str(cub), split="random")
    saved = read_dataset(config, 1).split
    rows = (cub / "images.txt").read_text().replace("a.png", "renamed.png")
    (cub / "images.txt").write_text(rows)
    (cub / "images/001.Auk/a.png").rename(cub / "images/001.Auk/renamed.png")
    for call in (lambda: read_dataset(config, 2, saved), lambda: read_test(config, (), saved)):
        with pytest.raises(UserError, match=r"5 of 6: 001\.Auk/a\.png is absent; restore"):
            call()


def test_an_evaluation_draws_no_random_split(cub, monkeypatch):
    """A pattern from somebody's checkpoint may take for ever on a name."""
    monkeypatch.setattr("transfg_core.data.datasets.listed.pattern_groups", pytest.fail)
    keys = {"name": "cub", "root": str(cub)}
    config = DataConfig(**keys, split="random", group="^([A-Za-z_./0-9]+)*!")
    with pytest.raises(UserError, match=r"split\.csv of the checkpoint's run.*beside the check"):
        read_test(config, (), None)
    (cub / "train_test_split.txt").unlink()
    with pytest.raises(UserError, match=r"or restore train_test_split\.txt"):
        read_test(DataConfig(**keys, split="auto"), (), None)
    other = SplitList({"003.Owl/x.png": SplitRow("train", "x")})
    data = read_test(config, (), other)
    assert (len(data.test.ids), len(data.train.ids), data.split) == (6, 0, None)


def test_files_that_no_list_names_are_counted(cub):
    Image.new("RGB", (4, 3)).save(cub / "images/001.Auk/new.png")
    assert [(e.count, e.example) for e in read(cub).left_out] == [(1, "001.Auk/new.png")]


def test_one_class_is_refused(cub):
    for name in ("image_class_labels.txt", "classes.txt"):
        (cub / name).write_text("1 1" if name == "classes.txt" else "3 1\n7 1\n9 1\n4 1\n5 1\n6 1")
    assert "at least two classes" in complaint(cub)


@pytest.mark.skipif(not CUB50.is_dir(), reason=f"{CUB50} is absent")
def test_real_subset():
    data = read(CUB50)
    assert (len(data.classes), len(data.train.ids), len(data.test.ids)) == (50, 1500, 1389)


def test_toy_is_rendered_and_read_as_cub(cub, monkeypatch):
    rendered = []
    monkeypatch.setattr(
        "transfg_core.data.toy.writing.ensure_toy",
        lambda root, toy, report: rendered.append((root, toy)),
    )
    data = read(cub, "toy")
    assert rendered == [(cub, DataConfig().toy)]
    assert (data.name, len(data.train.ids)) == ("toy", 4)


def test_listed_files_in_odd_places_exist(cub):
    """A link, a hidden file, an accent in another Unicode form than the list's."""
    images = cub / "images/001.Auk"
    image = (images / "a.png").read_bytes()
    for name in ("x.png", ".hidden.png", "e\u0301.png"):
        (images / name).write_bytes(image)
    (images / "link.png").symlink_to(images / "x.png")
    grow(cub, [(20, "001.Auk/link.png", 1), (21, "001.Auk/.hidden.png", 1),
               (22, "001.Auk/e\u0301.png", 1)])  # fmt: skip
    data = read(cub, split="random")
    assert len(data.split.rows) == 9
    left_out = {entry.example for entry in data.left_out}
    assert "001.Auk/x.png" in left_out
    assert not left_out & {"001.Auk/link.png", "001.Auk/\u00e9.png"}


def test_a_folder_with_the_name_of_a_listed_image_is_no_image(cub):
    (cub / "images/001.Auk/a.png").unlink()
    (cub / "images/001.Auk/a.png").mkdir()
    assert "001.Auk/a.png is listed but absent (1 of 6" in complaint(cub)


def test_files_whose_names_differ_in_case_alone(cub):
    """Lists of CUB and NABirds and copies of them differ in places; the listed name counts."""
    (cub / "images/001.Auk").rename(cub / "images/001.auk")
    (cub / "images/001.auk/a.png").rename(cub / "images/001.auk/A.PNG")
    data = read(cub)
    assert data.train.ids[:2] == ("001.Auk/a.png", "001.Auk/b c.png") and data.left_out == ()
    assert data.train.paths[0] == str(cub / "images/001.auk/A.PNG")
    assert data.train.paths[1] == str(cub / "images/001.auk/b c.png")
    Image.new("RGB", (4, 3)).save(cub / "images/001.auk/a.PNG")  # now two files might be meant
    assert "001.Auk/a.png is listed but absent (1 of 6" in complaint(cub)


def test_one_file_is_never_two_listed_images(cub):
    """One of them for training and one for testing, for example."""
    grow(cub, [(20, "001.Auk/A.png", 1)])
    with open(cub / "train_test_split.txt", "a") as file:
        file.write("\n20 0")
    (cub / "images/001.Auk/A.png").unlink()
    (cub / "images/001.Auk/a.png").rename(cub / "images/001.Auk/a.PNG")
    assert "is listed but absent (2 of 7" in complaint(cub)
