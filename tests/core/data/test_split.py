"""Drawing a split: groups stay whole, classes keep both sides, the list reads back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfg_core.data.datasets.drawing import (
    Grouped,
    draw_folds,
    draw_split,
    draw_validation,
)
from transfg_core.data.datasets.split import PARTS, SplitList, SplitRow, read_split
from transfg_core.errors import UserError


def fifth(images):
    return max(1, round(images / 5)), 0


def draw(groups, labels=None, seed=0, shares=fifth):
    """The parts of images that are named after their group."""
    labels = np.zeros(len(groups), np.int64) if labels is None else np.array(labels)
    ids = [f"{group}/{number}" for number, group in enumerate(groups)]
    classes = [f"class{label}" for label in range(labels.max() + 1)]
    return draw_split(Grouped(ids, labels, groups, classes), seed, shares)


def test_single_images_meet_the_share_exactly():
    groups = [str(number) for number in range(100)]
    parts = draw(groups)
    assert parts.count("test") == 20 and parts.count("train") == 80
    assert draw(groups) == parts and draw(groups, seed=1) != parts


def test_held_out_images_are_in_neither_part():
    parts = draw([str(number) for number in range(50)], shares=lambda images: (5, 10))
    assert [parts.count(part) for part in PARTS] == [35, 5, 10]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 2)), min_size=12, max_size=60),
    st.integers(0, 9),
)
def test_groups_stay_whole_and_classes_have_both_sides(images, seed):
    """Images with any groups, which may span classes; each class also has two groups of its own."""
    images += [(20 + 2 * label + k, label) for label in range(3) for k in range(2)]
    groups, labels = [str(group) for group, _ in images], [label for _, label in images]
    parts = draw(groups, labels, seed)
    part_of = dict(zip(groups, parts, strict=True))
    assert parts == [part_of[group] for group in groups]
    for label in range(3):
        sides = {part for part, own in zip(parts, labels, strict=True) if own == label}
        assert sides == {"train", "test"}


def test_a_large_group_does_not_swallow_the_class():
    for seed in range(20):
        parts = draw(["film"] * 50 + ["x"] * 5 + ["y"] * 5, seed=seed)
        assert parts.count("test") == 10 and parts[0] == "train"


def test_the_order_of_the_images_does_not_matter():
    groups = [str(number // 3) for number in range(60)]
    ids = [f"{number:02}" for number in range(60)]
    labels = np.zeros(60, np.int64)
    parts = draw_split(Grouped(ids, labels, groups, ["a"]), 3, fifth)
    backwards = draw_split(Grouped(ids[::-1], labels, groups[::-1], ["a"]), 3, fifth)
    assert backwards[::-1] == parts


@pytest.mark.parametrize(
    ("groups", "said"), [(["x"] * 4, "4 images in one"), (["x"], "1 image in")]
)
def test_one_group_is_refused(groups, said):
    with pytest.raises(UserError, match=f"class class0: .*{said}"):
        draw(groups)


def test_the_remedy_for_one_group_is_named_where_it_works():
    with pytest.raises(UserError, match=r"data\.group='\(\.\+\)'"):
        draw(["x"] * 2)
    with pytest.raises(UserError) as caught:
        draw(["x"])
    assert "data.group" not in str(caught.value)


def test_groups_that_classes_share_may_leave_no_split():
    """Two classes with the same two groups: each side needs one. Three in a ring: none is left."""
    assert set(draw(["x", "y", "x", "y"], [0, 0, 1, 1])) == {"train", "test"}
    with pytest.raises(UserError, match="other classes"):
        draw(["x", "y", "y", "z", "z", "x"], [0, 0, 1, 1, 2, 2])


def test_a_list_reads_back(tmp_path):
    rows = {
        'a/"1", new\nline.jpg': SplitRow("train", "a/film", 12),
        "b/m\\xfcwe.png": SplitRow("test", "b"),
        "c/é": SplitRow("held out", "c", 3),
    }
    path = tmp_path / "split.csv"
    path.write_text(SplitList(rows).csv(), encoding="utf-8")
    split = read_split(path)
    assert split == SplitList(rows) and list(split.rows) == list(rows)
    assert split.ids("test") == {"b/m\\xfcwe.png"}
    assert read_split(tmp_path / "none.csv") is None


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ("a,test,g", 3),
        ("a,valid,g,1", 3),
        ("x,test,g,1", 3),
        ("a,test,g,-1", 3),
        ('"a,test', 3),
        (f"a,test,g,{'1' * 5000}", 3),
        (f"a,test,{'g' * 200_000},1", 3),
    ],
    ids=range(7),
)
def test_a_damaged_list_is_named(tmp_path, row, line):
    path = tmp_path / "split.csv"
    path.write_text(f"image,split,group,bytes\nx,train,g,1\n{row}\n")
    with pytest.raises(UserError, match=rf"split\.csv, line {line}: ") as caught:
        read_split(path)
    assert len(str(caught.value)) < 1000


def test_a_list_without_images_is_refused(tmp_path):
    """It would have no image in common with any folder, so every image would be a test image."""
    for text in ("", "image,split,group,bytes\n"):
        (tmp_path / "split.csv").write_text(text)
        with pytest.raises(UserError, match="found no images"):
            read_split(tmp_path / "split.csv")


def test_a_list_without_its_header_is_refused(tmp_path):
    (tmp_path / "split.csv").write_text("x,train,g,1\n")
    with pytest.raises(UserError, match="line 1"):
        read_split(tmp_path / "split.csv")


def test_validation_takes_training_images_alone():
    """Of each class, the share of its images, and one at least; the test images stay."""
    labels = np.repeat([0, 1], [40, 5])
    ids = [f"{label}/{number}" for number, label in enumerate(labels)]
    images = Grouped(ids, labels, ids, ["many", "few"])
    before = draw_split(images, 3, fifth)
    after = draw_validation(images, before, 0.25, 3, np.array([40, 5]))
    assert [row == "test" for row in after] == [row == "test" for row in before]
    held = np.array([part == "held out" for part in after])
    assert np.bincount(labels[held]).tolist() == [10, 1]
    assert draw_validation(images, before, None, 3, np.array([40, 5])) == before
    assert after == draw_validation(images, before, 0.25, 3, np.array([40, 5]))
    assert after != draw_validation(images, before, 0.25, 4, np.array([40, 5]))


def test_validation_keeps_groups_whole():
    groups = [str(number // 4) for number in range(40)]
    images = Grouped([str(k) for k in range(40)], np.zeros(40, np.int64), groups, ["a"])
    parts = draw_validation(images, ["train"] * 40, 0.2, 0, np.array([40]))
    assert parts.count("held out") == 8
    assert len({(group, part) for group, part in zip(groups, parts, strict=True)}) == 10


def test_a_class_with_one_training_group_has_no_validation():
    labels = np.array([0, 0, 1, 1, 1])
    images = Grouped(list("abcde"), labels, list("abcdd"), ["auk", "wren"])
    parts = ["test", "train", "train", "train", "train"]
    with pytest.raises(UserError, match=r"class auk: .*for data\.validation, found 1 image in one"):
        draw_validation(images, parts, 0.5, 0, np.array([2, 3]))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2)), min_size=0, max_size=60),
    st.integers(0, 9),
    st.integers(2, 4),
)
def test_folds_are_a_partition_of_whole_groups(images, seed, folds):
    images += [(100 + 10 * label + k, label) for label in range(3) for k in range(folds)]
    groups, labels = [str(group) for group, _ in images], np.array([label for _, label in images])
    drawn = Grouped([str(k) for k in range(len(images))], labels, groups, ["a", "b", "c"])
    fold = draw_folds(drawn, seed, folds)
    assert len({*zip(groups, fold.tolist(), strict=True)}) == len(set(groups))
    for label in range(3):
        assert np.bincount(fold[labels == label], minlength=folds).min() > 0


def test_folds_of_single_images_are_equal():
    labels = np.repeat([0, 1], [20, 7])
    ids = [f"{number:02d}" for number in range(27)]
    fold = draw_folds(Grouped(ids, labels, ids, ["a", "b"]), 0, 5)
    assert np.bincount(fold[:20]).tolist() == [4] * 5
    assert sorted(np.bincount(fold[20:]).tolist()) == [1, 1, 1, 2, 2]
    assert sorted(np.bincount(fold).tolist()) == [5, 5, 5, 6, 6]
    backwards = draw_folds(Grouped(ids[::-1], labels[::-1], ids[::-1], ["a", "b"]), 0, 5)
    assert backwards[::-1].tolist() == fold.tolist()


def test_too_few_groups_for_the_folds():
    images = Grouped(list("abcd"), np.array([0, 0, 1, 1]), list("abcd"), ["auk", "wren"])
    with pytest.raises(UserError, match=r"class auk: .*at least 3 groups.*2 images.*data\.folds"):
        draw_folds(images, 0, 3)
