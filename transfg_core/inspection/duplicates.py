"""Images that are there twice: equal pixels, or perceptual hashes that differ in few bits.

Equal pixels are found by sorting hashes. Near ones are found as in multi-index hashing (Norouzi et
al. 2012): of t + 1 pieces of two hashes that differ in at most t bits, one piece is equal. So only
images that share a piece are compared.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from transfg_core.inspection.scan import Scan

HASH_BITS = 64
MOST_BITS = 16  # the largest useful threshold: unrelated images differ in about 32 bits
BLOCK = 1 << 22  # comparisons at once


@dataclass(frozen=True, eq=False)
class Group:
    """Rows of a `Scan`, ascending; `distances` are bits from the first one, 0 for equal pixels."""

    rows: tuple[int, ...]
    distances: tuple[int, ...]


def exact_groups(scan: Scan) -> list[Group]:
    """Groups of images with the same size and the same RGB values."""
    rows = np.flatnonzero(scan.readable)
    found = _groups_of_equal(scan.digests[rows])
    return [Group(tuple(rows[group].tolist()), (0,) * len(group)) for group in found]


def near_groups(scan: Scan, bits: int) -> list[Group]:
    """Groups of images that chains of perceptual hashes at most `bits` apart connect.

    Groups of equal pixels alone are left out, since `exact_groups` has them. Images of one colour
    are left out, because their hashes are noise.
    """
    assert scan.phashes is not None and 0 <= bits <= MOST_BITS
    from transfg_core.inspection.facts import Trait

    rows = np.flatnonzero(scan.readable & (scan.traits & int(Trait.UNIFORM) == 0))
    hashes, member = np.unique(scan.phashes[rows], return_inverse=True)
    pairs = near_pairs(hashes, bits)
    graph = coo_matrix((np.ones(len(pairs)), tuple(pairs.T)), shape=(len(hashes),) * 2)
    _, component = connected_components(graph, directed=False)
    groups = []
    for group in _groups_of_equal(component[member]):
        chosen = rows[group]
        if len(np.unique(scan.digests[chosen])) > 1:
            own = scan.phashes[chosen]
            distances = bit_count(own ^ own[0])
            groups.append(Group(tuple(chosen.tolist()), tuple(distances.tolist())))
    return groups


def _groups_of_equal(keys: NDArray[np.generic]) -> list[NDArray[np.int64]]:
    """Places of equal keys, each group with two places or more, in the order of the first place."""
    if not len(keys):
        return []
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    order = np.argsort(inverse, kind="stable")
    groups = np.split(order, np.cumsum(counts)[:-1])
    return sorted((group for group in groups if len(group) > 1), key=lambda group: int(group[0]))


def near_pairs(hashes: NDArray[np.uint64], bits: int) -> NDArray[np.int64]:
    """Pairs (n, 2) of places in distinct hashes (m,) that differ in at most `bits` bits."""
    found = [np.zeros((0, 2), np.int64)]
    edges = np.linspace(0, HASH_BITS, bits + 2).astype(int)
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        mask = np.uint64((1 << int(high - low)) - 1)
        pieces = (hashes >> np.uint64(low)) & mask
        for left, right in _pairs_with_equal(pieces):
            close = bit_count(hashes[left] ^ hashes[right]) <= bits
            found.append(np.stack([left[close], right[close]], axis=1))
    pairs: NDArray[np.int64] = np.unique(np.concatenate(found), axis=0)
    return pairs


def _pairs_with_equal(
    pieces: NDArray[np.uint64],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """All pairs of places with equal pieces, smaller place first, in blocks of about BLOCK."""
    order = np.argsort(pieces, kind="stable")
    ordered = pieces[order]
    ends = np.searchsorted(ordered, ordered, side="right")  # of each place's run of equal pieces
    partners = ends - np.arange(len(order)) - 1
    total, start = np.concatenate([[0], np.cumsum(partners)]), 0
    while start < len(order):
        stop = int(np.searchsorted(total, total[start] + BLOCK, side="right")) - 1
        stop = min(max(stop, start + 1), len(order))
        counts = partners[start:stop]
        first = np.repeat(np.arange(start, stop), counts)
        begins = np.repeat(total[start:stop] - total[start], counts)
        second = first + 1 + np.arange(len(first)) - begins
        left, right = order[first], order[second]
        yield np.minimum(left, right), np.maximum(left, right)
        start = stop


def bit_count(values: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The number of ones in each value; numpy 1 has no function for it (Warren 2012, 5-1)."""
    x = values - ((values >> np.uint64(1)) & np.uint64(0x5555555555555555))
    quads = np.uint64(0x3333333333333333)
    x = (x & quads) + ((x >> np.uint64(2)) & quads)
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    counts: NDArray[np.uint64] = (x * np.uint64(0x0101010101010101)) >> np.uint64(56)
    return counts.astype(np.int64)


def crosses(scan: Scan, group: Group) -> bool:
    """Whether a group has images of more than one split."""
    return len({int(scan.split[row]) for row in group.rows}) > 1


def disagrees(scan: Scan, group: Group) -> bool:
    """Whether a group has images of more than one class."""
    return len({int(scan.labels[row]) for row in group.rows}) > 1
