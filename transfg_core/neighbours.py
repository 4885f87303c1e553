"""Classification by the nearest training images, in NumPy.

Source: DINO (Caron et al. 2021, arXiv 2104.14294), section 4.1 and its program: features of unit
length, and votes exp(cosine / temperature) of the k nearest. Wu et al. 2018 (arXiv 1805.01978) has
the weights. Letters: Q queries, N training images, D width, C classes, k neighbours.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

ROWS = 16384  # training images at a time: similarities take QUERIES x ROWS numbers, never Q x N
QUERIES = 512  # queries at a time

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


class Neighbours(NamedTuple):
    """The nearest training images of each query, the nearest first: (Q, k)."""

    images: Integers
    similarity: Floats


def unit_length(features: NDArray[Any]) -> Floats:
    """Rows divided by their length, at least 1e-12: (..., D) -> (..., D)."""
    wide = features.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=-1, keepdims=True)
    return np.asarray(wide / np.maximum(lengths, 1e-12), np.float32)


def nearest(queries: Floats, bank: Floats, k: int) -> Neighbours:
    """The k training images with the largest cosine; of equal ones, those that come first.

    Args:
        queries: (Q, D), rows of unit length.
        bank: (N, D), rows of unit length, N >= k >= 1.
    """
    assert 1 <= k <= len(bank), f"k {k} outside 1..{len(bank)}"
    index = np.empty((len(queries), 0), np.int64)
    similarity = np.empty((len(queries), 0), np.float32)
    for start in range(0, len(bank), ROWS):
        # a product in float32 rounds equal images differently at the edge of a block of BLAS
        wide = queries.astype(np.float64) @ bank[start : start + ROWS].T.astype(np.float64)
        found = wide.astype(np.float32)
        numbers = np.broadcast_to(np.arange(start, start + found.shape[1]), found.shape)
        # the older candidates come first, so that equal ones stay in the order of the bank
        similarity = np.concatenate([similarity, found], axis=1)
        columns = largest(similarity, min(k, similarity.shape[1]))
        index = np.take_along_axis(np.concatenate([index, numbers], axis=1), columns, axis=1)
        similarity = np.take_along_axis(similarity, columns, axis=1)
    return Neighbours(index, similarity)


def largest(values: Floats, k: int) -> Integers:
    """Columns of the k largest values of each row, the largest first: (Q, N) -> (Q, k).

    Of equal values, those in earlier columns count, and come first.
    """
    least = np.partition(values, -k, axis=1)[:, [-k]]
    above, equal = values > least, values == least
    needed = k - above.sum(axis=1, keepdims=True)
    chosen = above | (equal & (equal.cumsum(axis=1) <= needed))  # k in each row
    columns = np.nonzero(chosen)[1].reshape(len(values), k)
    order = np.argsort(-np.take_along_axis(values, columns, axis=1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)


def weighted_votes(
    found: Neighbours, labels: Integers, classes: int, k: int, temperature: float
) -> NDArray[np.float64]:
    """Sum of exp(cosine / temperature) over the k nearest of each class: (Q, C).

    Args:
        labels: (N,) of the training images, in [0, C).
        k: how many of the neighbours vote.
    """
    weights = np.exp(found.similarity[:, :k].astype(np.float64) / temperature)
    return _added(weights, labels[found.images[:, :k]], classes)


def majority_votes(
    found: Neighbours, labels: Integers, classes: int, k: int
) -> NDArray[np.float64]:
    """How many of the k nearest each class has; a fraction below 1 settles ties: (Q, C).

    Of classes with equal counts, that of the nearest neighbour has the largest fraction.
    """
    voters = labels[found.images[:, :k]]
    votes = _added(np.ones(voters.shape), voters, classes)
    rows = np.arange(len(voters))
    for rank in reversed(range(k)):  # the nearest last, so that its fraction stays
        whole = np.floor(votes[rows, voters[:, rank]])
        votes[rows, voters[:, rank]] = whole + 1 - (rank + 1) / (k + 1)
    return votes


def _added(weights: NDArray[np.float64], voters: Integers, classes: int) -> NDArray[np.float64]:
    """Weights (Q, k) of voters (Q, k), summed by class: (Q, C)."""
    votes = np.zeros((len(weights), classes))
    np.add.at(votes, (np.arange(len(weights))[:, None], voters), weights)
    return votes


def right_within(votes: NDArray[np.float64], labels: Integers, places: int) -> NDArray[np.bool_]:
    """Whether a query's class has votes and is among the first: (Q, C), (Q,) -> (Q,)."""
    own = votes[np.arange(len(labels)), labels]
    earlier = np.arange(votes.shape[1]) < labels[:, None]
    before = ((votes > own[:, None]) | ((votes == own[:, None]) & earlier)).sum(axis=1)
    right: NDArray[np.bool_] = (own > 0) & (before < places)
    return right


def blocks(queries: int) -> Iterator[slice]:
    """The queries in blocks of QUERIES, in order."""
    for start in range(0, queries, QUERIES):
        yield slice(start, start + QUERIES)
