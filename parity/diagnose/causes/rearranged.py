"""Relations in which B holds A's numbers in other places: axes swapped, slices reordered, shifts.

Part of `relations.py`.
"""

from collections.abc import Iterator
from itertools import permutations

import numpy as np

from parity.diagnose.causes.pair import FAR_NEARER, NEARER, Array, Cause, Context, Pair

SIGNATURE = 32  # random projections of a slice, by which slices are matched


def axes(pair: Pair, context: Context) -> Iterator[Cause]:
    """B is A with its axes in another order, or reshaped where they should have been swapped."""
    a, b = pair.expected, pair.found
    if a.size != b.size or not same_numbers(a, b) or not 1 <= a.ndim <= 4:
        return
    for order in permutations(range(a.ndim)):
        moved = a.transpose(order)
        text = f"B is A with its axes in the order {order}"
        if moved.shape != b.shape:
            text = f"B is A with its axes in the order {order}, then reshaped to {b.shape}"
        hits = list(pair.cause("axes", text, moved.reshape(b.shape)))
        if hits:
            yield hits[0]
            return
    if context.heads and a.shape == b.shape and a.shape[-1] % context.heads == 0:
        k, d = context.heads, a.shape[-1] // context.heads
        for rows, columns, how in (
            (k, d, "a channel's heads lie"),
            (d, k, "a head's channels lie"),
        ):
            moved = a.reshape(*a.shape[:-1], rows, columns).swapaxes(-1, -2).reshape(a.shape)
            yield from pair.cause("heads", f"the heads are interleaved: in B {how} together", moved)


def same_numbers(a: Array, b: Array) -> bool:
    """A quick test whether b may be a rearrangement of a: their norms agree to 1 %."""
    return abs(float(np.linalg.norm(b)) / float(np.linalg.norm(a)) - 1) < 0.01


def order(pair: Pair, context: Context) -> Iterator[Cause]:
    """B holds the slices of A in another order along one axis."""
    if not same_numbers(pair.expected, pair.found):
        return
    for axis, count in enumerate(pair.expected.shape):
        a, b = (np.moveaxis(x, axis, 0).reshape(count, -1) for x in (pair.expected, pair.found))
        if count < 2:
            continue
        place = nearest(b, a)
        if len(set(place.tolist())) == count and (place != np.arange(count)).any():
            hypothesis = np.take(pair.expected, place, axis=axis)
            text = f"B is A in another order along axis {axis}: {describe(place)}"
            hits = list(pair.cause("order", text, hypothesis, fitted=count))
            yield from hits
            if hits:
                return
    for axis in range(pair.expected.ndim):
        back = np.argsort(np.argsort(pair.found, axis=axis), axis=axis)
        hypothesis = np.take_along_axis(np.sort(pair.expected, axis=axis), back, axis=axis)
        text = (
            f"B holds A's values in another order, a different one in each line along axis {axis}"
        )
        yield from pair.cause("order", text, hypothesis, fitted=pair.expected.size)


def nearest(b: Array, a: Array) -> Array:
    """For each row of b the nearest row of a: b and a, each (n, m) -> (n,).

    Rows are compared by a few random projections: n² · SIGNATURE operations for any m.
    """
    if a.shape[1] > SIGNATURE:
        random = np.random.default_rng(0).standard_normal((a.shape[1], SIGNATURE))
        a, b = a @ random, b @ random
    squares = (b * b).sum(1)[:, None] + (a * a).sum(1)[None] - 2 * b @ a.T
    place: Array = squares.argmin(axis=1)
    return place


def describe(place: Array) -> str:
    """An order in words: reversed, moved, a grid read by columns; else its first numbers."""
    count = len(place)
    straight = np.arange(count)
    if (place == straight[::-1]).all():
        return "reversed"
    for step in (1, -1):
        if (place == np.roll(straight, step)).all():
            return "the last is first" if step == 1 else "the first is last"
    for first in (0, 1):  # with a class token before the grid, or without
        grid = straight[first:]
        for rows in range(2, (count - first) // 2 + 1):
            if (count - first) % rows == 0 and (place[:first] == straight[:first]).all():
                if (place[first:] == grid.reshape(rows, -1).T.ravel()).all():
                    return f"a grid of {rows} rows, read by columns"
    moved = np.flatnonzero(place != straight)
    if len(moved) == 2:
        return f"{moved[0]} and {moved[1]} are exchanged"
    return f"{place[:6].tolist()}{' ...' if count > 6 else ''}"


def shifted(pair: Pair, context: Context) -> Iterator[Cause]:
    """B[k] = A[k - s] along one axis; the ends that the shift leaves open are not compared."""
    delta = np.abs(pair.found - pair.expected)
    for axis, count in enumerate(pair.expected.shape):
        for step in (-2, -1, 1, 2):
            if count - abs(step) < 3:
                continue
            open_ends = slice(0, step) if step > 0 else slice(count + step, count)
            where = (slice(None),) * axis + (open_ends,)
            hypothesis = np.roll(pair.expected, step, axis=axis)
            hypothesis[where] = pair.found[where]
            kept = np.linalg.norm(np.delete(delta, np.arange(count)[open_ends], axis=axis))
            error = np.linalg.norm(pair.found - hypothesis)
            # the difference must lie where the shift explains it, not in the open ends
            if error <= kept / NEARER and error <= max(pair.limit * pair.size, kept / FAR_NEARER):
                text = f"B[k] = A[k {'-' if step > 0 else '+'} {abs(step)}] along axis {axis}"
                fitted = hypothesis[where].size
                yield from pair.cause("shifted", text, hypothesis, fitted)
