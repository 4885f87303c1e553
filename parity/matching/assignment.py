"""Pairs of two sets that are clear: any other assignment of all of them is worse."""

from functools import cache

import numpy as np

from parity.matching.named import Array

CLEAR = 0.12  # by so much the best assignment without a pair must be worse
MOST = 7  # larger sets are paired one by one, the best first


def clear_pairs(scores: Array) -> list[tuple[int, int, float]]:
    """Pairs (i, j, confidence) of the best assignment that no other one comes near.

    Args:
        scores: (n, m), how alike two elements are; -inf if they cannot belong together.
    """
    if max(scores.shape) > MOST:
        return _one_by_one(scores)
    best, pairs = _best(scores)
    found = []
    for i, j in pairs:
        without = scores.copy()
        without[i, j] = -np.inf
        margin = best - _best(without)[0]
        if margin >= CLEAR:
            found.append((i, j, _confidence(margin)))
    return found


def _best(scores: Array) -> tuple[float, list[tuple[int, int]]]:
    """The largest sum of an assignment, and its pairs; elements may stay without a partner."""
    rows, columns = scores.shape

    @cache
    def best_from(i: int, used: int) -> tuple[float, int]:
        """The best sum of rows i and later without the used columns, and the column of row i."""
        if i == rows:
            return 0.0, -1
        options = [(best_from(i + 1, used)[0], -1)]
        for j in range(columns):
            if not used >> j & 1 and scores[i, j] > -np.inf:
                options.append((float(scores[i, j]) + best_from(i + 1, used | 1 << j)[0], j))
        return max(options)

    pairs, used = [], 0
    for i in range(rows):
        j = best_from(i, used)[1]
        if j >= 0:
            pairs.append((i, j))
            used |= 1 << j
    return best_from(0, 0)[0], pairs


def _one_by_one(scores: Array) -> list[tuple[int, int, float]]:
    """The pair that is most alike, if no other pair of either comes near; then the next."""
    found: list[tuple[int, int, float]] = []
    scores = scores.copy()
    while True:
        i, j = np.unravel_index(np.argmax(scores), scores.shape)
        best = scores[i, j]
        others = np.concatenate([np.delete(scores[i], j), np.delete(scores[:, j], i)])
        margin = float(best - others.max(initial=-np.inf)) if best > -np.inf else 0.0
        if margin < CLEAR:
            return found
        found.append((int(i), int(j), _confidence(margin)))
        scores[i], scores[:, j] = -np.inf, -np.inf


def _confidence(margin: float) -> float:
    return round(min(0.9, 0.7 + margin / 4), 2)
