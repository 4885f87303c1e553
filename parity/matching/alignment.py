"""Two sequences aligned in order, by dynamic programming (Needleman and Wunsch 1970)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

GAP = 0.25  # cost of an element that has no partner; the score of a pair is 0 to 1
Floats = NDArray[np.floating[Any]]


def best_scores(scores: Floats) -> Floats:
    """(n + 1, m + 1): the best score of the first i elements of one side and j of the other."""
    rows, columns = scores.shape
    best = np.empty((rows + 1, columns + 1))
    best[0] = -GAP * np.arange(columns + 1)
    for i in range(1, rows + 1):
        above = best[i - 1]
        straight = np.maximum(above[1:] - GAP, above[:-1] + scores[i - 1])
        best[i, 0] = -GAP * i
        # best[i, j] = max over k <= j of straight[k] - GAP * (j - k): a running maximum
        shifted = np.concatenate(([best[i, 0]], straight + GAP * np.arange(1, columns + 1)))
        best[i] = np.maximum.accumulate(shifted) - GAP * np.arange(columns + 1)
    return best


def align(scores: Floats) -> list[tuple[int, int, float]]:
    """The best pairs (i, j, margin), both ascending.

    Args:
        scores: (n, m), -inf where a pair is impossible.

    Returns:
        Pairs of one best alignment. The margin is how much worse the best alignment is that gives
        i or j another partner, or none; near 0 the pair is a guess.
    """
    rows, columns = scores.shape
    forward = best_scores(scores)
    backward = best_scores(scores[::-1, ::-1])[::-1, ::-1]
    through = forward[:-1, :-1] + scores + backward[1:, 1:]  # best alignment with the pair (i, j)
    # best alignment in which i, or j, has no partner
    no_row = (forward[:-1] + backward[1:]).max(axis=1) - GAP
    no_column = (forward[:, :-1] + backward[:, 1:]).max(axis=0) - GAP
    pairs = []
    i, j = rows, columns
    while i and j:
        if np.isclose(forward[i, j], forward[i - 1, j - 1] + scores[i - 1, j - 1]):
            i, j = i - 1, j - 1
            others = [
                no_row[i],
                no_column[j],
                np.delete(through[i], j).max(initial=-np.inf),
                np.delete(through[:, j], i).max(initial=-np.inf),
            ]
            pairs.append((i, j, float(through[i, j] - max(others))))
        elif np.isclose(forward[i, j], forward[i - 1, j] - GAP):
            i -= 1
        else:
            j -= 1
    return pairs[::-1]
