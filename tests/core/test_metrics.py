"""Accuracy, cross-entropy and part hits against brute force."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfg_core.metrics import cross_entropy, part_hits, patch_boxes, topk_accuracy
from transfg_core.models.rows import PartGrid

sizes = st.tuples(st.integers(1, 6), st.integers(2, 5), st.integers(0, 2**32 - 1))


@settings(deadline=None)
@given(sizes, st.integers(1, 6))
def test_topk_equals_a_stable_sort(size, k):
    images, classes, seed = size
    rng = np.random.default_rng(seed)
    logits = rng.integers(0, 3, (images, classes)).astype(np.float32)  # many ties
    labels = rng.integers(0, classes, images)
    right = [
        label in sorted(range(classes), key=lambda c, row=row: (-row[c], c))[:k]
        for row, label in zip(logits, labels, strict=True)
    ]
    assert topk_accuracy(logits, labels, k) == pytest.approx(sum(right) / images)
    if k == 1:
        assert topk_accuracy(logits, labels, 1) == np.mean(logits.argmax(1) == labels)


def test_not_a_number_is_never_right():
    logits = np.array([[np.nan, 0.0], [1.0, 0.0]])
    assert topk_accuracy(logits, np.array([0, 0]), 1) == 0.5
    assert topk_accuracy(logits, np.array([1, 0]), 5) == 0.5


@settings(deadline=None)
@given(sizes)
def test_cross_entropy_equals_the_definition(size):
    images, classes, seed = size
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(images, classes)).astype(np.float32)
    labels = rng.integers(0, classes, images)
    expected = [
        -math.log(math.exp(row[y]) / math.fsum(math.exp(z) for z in row))
        for row, y in zip(logits.astype(np.float64), labels, strict=True)
    ]
    assert cross_entropy(logits, labels) == pytest.approx(np.mean(expected), rel=1e-12)


def test_cross_entropy_does_not_overflow():
    logits = np.array([[3e4, 0.0], [-3e38, 3e38]], np.float32)
    assert cross_entropy(logits, np.array([0, 1])) == 0.0
    assert cross_entropy(logits[:1], np.array([1])) == 3e4


def test_labels_outside_the_classes_are_refused():
    for labels in (np.array([2]), np.array([-1]), np.array([0, 1])):
        with pytest.raises(AssertionError):
            cross_entropy(np.zeros((1, 2)), labels)


def test_patches_start_at_stride_times_index():
    boxes = patch_boxes(PartGrid(2, 3, patch=8, stride=6))
    assert boxes.tolist()[:4] == [[0, 0, 8, 8], [6, 0, 14, 8], [12, 0, 20, 8], [0, 6, 8, 14]]


def brute_hit(index, boxes, columns, patch, stride, crop):
    """Does the patch hit any visible box? Written from the rule, one number at a time."""
    top, left = ((index - 1) // columns) * stride, ((index - 1) % columns) * stride
    for x0, y0, x1, y1 in boxes:
        x0, x1 = max(0, min(x0, crop[1])), max(0, min(x1, crop[1]))
        y0, y1 = max(0, min(y0, crop[0])), max(0, min(y1, crop[0]))
        if x0 >= x1 or y0 >= y1:
            continue
        cx, cy = left + patch / 2, top + patch / 2
        bx, by = (x0 + x1) / 2, (y0 + y1) / 2
        if x0 <= cx < x1 and y0 <= cy < y1:
            return True
        if left <= bx < left + patch and top <= by < top + patch:
            return True
    return False


boxes_of_images = st.lists(
    st.lists(st.tuples(*[st.integers(-10, 50)] * 4), max_size=3), min_size=1, max_size=4
)


@settings(deadline=None)
@given(
    boxes=boxes_of_images,
    shape=st.tuples(st.integers(8, 40), st.integers(8, 40)),
    patch=st.integers(1, 8),
    data=st.data(),
)
def test_part_hits_equal_brute_force(boxes, shape, patch, data):
    stride = data.draw(st.integers(1, patch))
    grid = ((shape[0] - patch) // stride + 1, (shape[1] - patch) // stride + 1)
    count = grid[0] * grid[1]
    heads = data.draw(st.integers(1, 4))
    index = np.array([[data.draw(st.integers(1, count)) for _ in range(heads)] for _ in boxes])
    hits, chance = part_hits(index, boxes, PartGrid(*grid, patch, stride), shape)
    for b, own in enumerate(boxes):
        visible = [
            box
            for box in own
            if max(0, box[0]) < min(shape[1], box[2]) and max(0, box[1]) < min(shape[0], box[3])
        ]
        if not visible:
            assert np.isnan(hits[b]) and np.isnan(chance[b])
            continue
        table = [brute_hit(j, own, grid[1], patch, stride, shape) for j in range(1, count + 1)]
        assert hits[b] == pytest.approx(np.mean([table[j - 1] for j in index[b]]))
        assert chance[b] == pytest.approx(np.mean(table))


def test_part_hits_by_hand():
    # 4 x 6 pixels, patches of 2: a box on the patch in row 1, column 2, which is token 6.
    index = np.array([[6, 6, 1], [1, 2, 3]])
    boxes = [[[4, 2, 6, 4]], []]
    hits, chance = part_hits(index, boxes, PartGrid(2, 3, 2, 2), (4, 6))
    assert hits[0] == pytest.approx(2 / 3) and chance[0] == pytest.approx(1 / 6)
    assert np.isnan(hits[1])


def test_a_patch_beyond_the_crop_is_cut_there():
    """A crop of 5 x 6 pixels in patches of 4: the last ones begin inside and end outside."""
    boxes = [[[4, 4, 6, 5]]]
    hits, chance = part_hits(np.array([[4, 1]]), boxes, PartGrid(2, 2, 4, 4), (5, 6))
    assert hits[0] == 0.5 and chance[0] == 0.25


def test_a_grid_that_does_not_fit_the_crop_is_refused():
    with pytest.raises(AssertionError, match="grid"):
        part_hits(np.array([[1]]), [[]], PartGrid(3, 2, 2, 2), (4, 6))
