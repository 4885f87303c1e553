"""Images that are there twice: equal pixels, or perceptual hashes that differ in few bits.

Equal pixels are found by sorting hashes. Near ones are found as in multi-index hashing (Norouzi et
al. 2012): if two hashes differ in few bits, one of their pieces differs in one bit or none. So only
images with such a piece are compared.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from transfg_core.data.datasets.groups import ALIKE
from transfg_core.inspection.facts import Trait
from transfg_core.inspection.scan import Scan

HASH_BITS = 64
MOST_BITS = 10  # more takes long, and brings photographs that only have the same layout
CROWD = 100  # images with one hash, such as frames of a film
BLOCK = 1 << 20  # comparisons at once


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
    """Groups of images that are connected by pairs with near hashes and alike thumbnails.

    Hashes of unrelated photographs come as near as 4 bits, so a pair also needs thumbnails whose
    correlation is above ALIKE, as in `datasets/groups.py`. Groups of equal pixels alone are left
    out, since `exact_groups` has them; so are images of one colour, whose hashes are noise.
    """
    assert scan.phashes is not None and scan.thumbnails is not None and 0 <= bits <= MOST_BITS
    plain = scan.traits & int(Trait.UNIFORM) != 0
    rows = np.flatnonzero(scan.readable & ~plain)
    _, first, image = np.unique(scan.digests[rows], return_index=True, return_inverse=True)
    distinct = rows[first]  # one row for each set of equal pixels
    pairs = distinct[_candidates(scan.phashes[distinct], bits)]
    pairs = pairs[_alike(scan.thumbnails, pairs)]
    of_row = np.zeros(len(scan.paths), np.int64)
    of_row[rows] = image
    edges = of_row[pairs]
    graph = coo_matrix((np.ones(len(edges)), tuple(edges.T)), shape=(len(distinct),) * 2)
    _, component = connected_components(graph, directed=False)
    groups = []
    for group in _groups_of_equal(component[image]):
        chosen = rows[group]
        if len(np.unique(image[group])) > 1:
            own = scan.phashes[chosen]
            distances = bit_count(own ^ own[0])
            groups.append(Group(tuple(chosen.tolist()), tuple(distances.tolist())))
    return groups


def _candidates(hashes: NDArray[np.uint64], bits: int) -> NDArray[np.int64]:
    """Pairs (n, 2) of places whose hashes are near.

    All pairs of equal hashes; if more than CROWD are equal, each with the first of them. Of two
    hashes that differ, the first place of each.
    """
    unique, first, member, counts = np.unique(
        hashes, return_index=True, return_inverse=True, return_counts=True
    )
    crowded = counts[member] > CROWD
    later = np.flatnonzero(crowded & (first[member] != np.arange(len(hashes))))
    found = [np.stack([first[member[later]], later], axis=1), first[near_pairs(unique, bits)]]
    few = np.flatnonzero(~crowded)
    for left, right in _pairs_with_equal(hashes[few], hashes[few]):
        once = left < right
        found.append(few[np.stack([left[once], right[once]], axis=1)])
    return np.concatenate(found)


def _alike(thumbnails: NDArray[np.uint8], pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which pairs (n, 2) of thumbnails (N, 256) have a correlation above ALIKE."""
    found = [np.zeros(0, np.bool_)]
    for begin in range(0, len(pairs), BLOCK >> 6):
        left, right = (
            thumbnails[side].astype(np.float64) for side in pairs[begin : begin + (BLOCK >> 6)].T
        )
        left -= left.mean(axis=1, keepdims=True)
        right -= right.mean(axis=1, keepdims=True)
        product = np.einsum("ij,ij->i", left, right)
        lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
        found.append(product > ALIKE * lengths)  # never for a plain image
    return np.concatenate(found)


def _groups_of_equal(keys: NDArray[np.generic]) -> list[NDArray[np.int64]]:
    """Places of equal keys, each group with two places or more, in the order of the first place."""
    if not len(keys):
        return []
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    order = np.argsort(inverse, kind="stable")
    groups = np.split(order, np.cumsum(counts)[:-1])
    return sorted((group for group in groups if len(group) > 1), key=lambda group: int(group[0]))


def near_pairs(hashes: NDArray[np.uint64], bits: int) -> NDArray[np.int64]:
    """Pairs (n, 2) of places, the smaller first, in distinct hashes that differ in at most `bits`.

    Of `bits // 2 + 1` pieces of two such hashes, one differs in a single bit or in none.
    """
    found = [np.zeros((0, 2), np.int64)]
    edges = np.linspace(0, HASH_BITS, bits // 2 + 2).astype(int)
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        mask = np.uint64((1 << int(high - low)) - 1)
        pieces = (hashes >> np.uint64(low)) & mask
        for flip in (0, *(1 << bit for bit in range(high - low))):
            for left, right in _pairs_with_equal(pieces, pieces ^ np.uint64(flip)):
                close = (left < right) & (bit_count(hashes[left] ^ hashes[right]) <= bits)
                found.append(np.stack([left[close], right[close]], axis=1))
    pairs: NDArray[np.int64] = np.unique(np.concatenate(found), axis=0)
    return pairs


def _pairs_with_equal(
    left: NDArray[np.uint64], right: NDArray[np.uint64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """All places (i, j) with left[i] == right[j], in blocks of about BLOCK."""
    order = np.argsort(right, kind="stable")
    ordered = right[order]
    begins = np.searchsorted(ordered, left, side="left")
    partners = np.searchsorted(ordered, left, side="right") - begins
    total, start = np.concatenate([[0], np.cumsum(partners)]), 0
    while start < len(left):
        stop = int(np.searchsorted(total, total[start] + BLOCK, side="right")) - 1
        stop = min(max(stop, start + 1), len(left))
        counts = partners[start:stop]
        first = np.repeat(np.arange(start, stop), counts)
        offsets = np.arange(len(first)) - np.repeat(total[start:stop] - total[start], counts)
        yield first, order[begins[first] + offsets]
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
