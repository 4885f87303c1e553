"""Nearest neighbours against plain loops over all pairs."""

import numpy as np
import pytest

from transfg_core import neighbours
from transfg_core.neighbours import (
    Neighbours,
    largest,
    majority_votes,
    nearest,
    right_within,
    unit_length,
    weighted_votes,
)


def given(rows, width, seed):
    return unit_length(np.random.default_rng(seed).normal(size=(rows, width)))


@pytest.mark.parametrize("rows", [7, 20, 1000])
@pytest.mark.parametrize("k", [1, 5, 31])
def test_nearest_in_pieces_is_the_order_of_all_similarities(monkeypatch, rows, k):
    monkeypatch.setattr(neighbours, "ROWS", rows)
    bank, queries = given(53, 11, 1), given(9, 11, 2)
    found = nearest(queries, bank, k)
    for query, index, similarity in zip(queries, *found, strict=True):
        expected = sorted(range(53), key=lambda i: -float(query @ bank[i]))[:k]
        assert index.tolist() == expected
        assert similarity == pytest.approx(bank[expected] @ query, abs=1e-6)


@pytest.mark.parametrize("rows", [2, 3, 100])
def test_equal_images_keep_the_order_of_the_data_set(monkeypatch, rows):
    monkeypatch.setattr(neighbours, "ROWS", rows)
    row, other = given(1, 5, 3)[0], given(1, 5, 4)[0]
    bank = np.stack([other, row, row, other, row, row, other])
    assert nearest(row[None], bank, 3).images.tolist() == [[1, 2, 4]]
    assert nearest(row[None], bank, 6).images.tolist() == [[1, 2, 4, 5, 0, 3]]


def test_memory_is_bounded_by_the_piece(monkeypatch):
    shapes = []
    monkeypatch.setattr(neighbours, "ROWS", 10)
    monkeypatch.setattr(neighbours, "largest", lambda v, k: shapes.append(v.shape) or largest(v, k))
    nearest(given(3, 4, 5), given(95, 4, 6), 4)
    assert max(width for _, width in shapes) == 10 + 4


def test_blocks_cover_the_queries(monkeypatch):
    monkeypatch.setattr(neighbours, "QUERIES", 4)
    rows = [list(range(10))[block] for block in neighbours.blocks(10)]
    assert rows == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_votes_by_hand():
    labels = np.array([0, 2, 1, 1, 0])
    found = Neighbours(np.array([[1, 2, 3, 0]]), np.array([[0.9, 0.5, 0.4, 0.1]], np.float32))
    votes = weighted_votes(found, labels, 4, 3, 0.5)
    expected = [0, np.exp(1.0) + np.exp(0.8), np.exp(1.8), 0]
    assert votes[0] == pytest.approx(expected, rel=1e-6)
    assert votes[0].argmax() == 2  # one near image outweighs two further ones
    assert weighted_votes(found, labels, 4, 3, 5.0)[0].argmax() == 1
    assert majority_votes(found, labels, 4, 3)[0].argmax() == 1
    assert np.floor(majority_votes(found, labels, 4, 4))[0].tolist() == [1, 2, 1, 0]


def test_majority_counts_and_the_nearest_settles_ties():
    labels = np.array([3, 1, 1, 3, 0])
    found = Neighbours(np.array([[4, 3, 1, 2, 0]]), np.zeros((1, 5), np.float32))
    for k, winner in ((1, 0), (2, 0), (3, 0), (4, 1), (5, 3)):
        votes = majority_votes(found, labels, 5, k)
        assert votes[0].argmax() == winner, k
        assert votes[0, 2] == votes[0, 4] == 0


def test_a_class_without_votes_is_never_right():
    votes = np.array([[0.0, 3.0, 0.0], [0.0, 1.0, 2.0]])
    assert right_within(votes, np.array([0, 1]), 1).mean() == 0
    assert right_within(votes, np.array([0, 1]), 2).mean() == 0.5
    assert right_within(votes, np.array([1, 2]), 1).mean() == 1


def test_unit_length_of_a_zero_row_is_zero():
    rows = unit_length(np.array([[3.0, 4.0], [0.0, 0.0]]))
    assert rows.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0]]
    assert rows.dtype == np.float32
