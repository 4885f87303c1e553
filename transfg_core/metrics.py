"""Evaluation metrics from logits and chosen parts, in NumPy.

Letters: B images, C classes, K heads (one chosen patch each), N patches, n boxes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from transfg_core.models.rows import PartGrid

Float64 = NDArray[np.float64]


def topk_accuracy(logits: NDArray[Any], labels: NDArray[Any], k: int) -> float:
    """Fraction of images whose class is among the k largest logits.

    Among equal logits the class with the lower index comes first, as in argmax. An image with a
    not-a-number among its logits counts as wrong; with k >= C all other images count as right.

    Args:
        logits: (B, C), B >= 1.
        labels: (B,) integers in [0, C).
    """
    _check_labels(logits, labels)
    own = np.take_along_axis(logits, labels[:, None].astype(np.int64), axis=1)  # (B, 1)
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    rank = ((logits > own) | ((logits == own) & earlier)).sum(axis=1)
    return float(np.mean((rank < k) & ~np.isnan(logits).any(axis=1)))


def cross_entropy(logits: NDArray[Any], labels: NDArray[Any]) -> float:
    """Mean over images of log sum exp(logits) - logits[label], in nats, computed in float64.

    Args:
        logits: (B, C), B >= 1.
        labels: (B,) integers in [0, C).
    """
    _check_labels(logits, labels)
    own = np.take_along_axis(logits, labels[:, None].astype(np.int64), axis=1)[:, 0]
    return float(np.mean(log_sum_exp(logits) - own.astype(np.float64)))


def log_sum_exp(logits: NDArray[Any]) -> Float64:
    """log sum exp over classes, (B, C) -> (B,), in float64, without overflow."""
    wide = logits.astype(np.float64)
    largest = wide.max(axis=1, keepdims=True)
    total: Float64 = np.log(np.exp(wide - largest).sum(axis=1)) + largest[:, 0]
    return total


def patch_boxes(grid: PartGrid) -> Float64:
    """Pixel boxes (N, 4) of all patches in token order: left, top, right, bottom.

    A patch starts at stride * index. On an overlapping grid this differs from patch * index.
    """
    rows, columns = np.divmod(np.arange(grid.rows * grid.columns), grid.columns)
    corners = np.stack([columns, rows], axis=1).astype(np.float64) * grid.stride
    return np.concatenate([corners, corners + grid.patch], axis=1)


def part_hits(
    part_index: NDArray[Any], boxes: Sequence[ArrayLike], grid: PartGrid, crop: tuple[int, int]
) -> tuple[Float64, Float64]:
    """Fraction of the chosen patches, and of all patches, that lie on true discriminative parts.

    A patch hits a box if the patch's centre lies in the box or the box's centre in the patch.
    Boxes are half-open. Each is first cut to the crop; the centre is that of its visible rest.

    Args:
        part_index: (B, K) token indices from 1 (0 is the class token); duplicates all count.
        boxes: per image (n, 4) left, top, right, bottom in pixels of the crop, possibly outside.
        grid: the patches that the parts are chosen from; each lies in the crop, at least in part.
        crop: (height, width) in pixels.

    Returns:
        hits: (B,) fraction of the K chosen patches that hit any box of their image.
        chance: (B,) fraction of all N patches that hit, which a random choice would reach.
        Both are not-a-number where no box is visible: average with `np.nanmean` to skip those.
    """
    starts = (grid.rows - 1) * grid.stride, (grid.columns - 1) * grid.stride
    beside = f"grid {grid}: expected patches that begin in a crop of {crop}"
    assert starts[0] < crop[0] and starts[1] < crop[1], beside
    assert len(part_index) == len(boxes), f"{len(part_index)} images, boxes of {len(boxes)}"
    patches = patch_boxes(grid)
    assert part_index.min(initial=1) >= 1 and part_index.max(initial=1) <= len(patches)
    hits, chance = np.full((2, len(boxes)), np.nan)
    for image, (chosen, raw) in enumerate(zip(part_index, boxes, strict=True)):
        visible = _cut_to_crop(raw, crop)
        if len(visible):
            hit = _contains(visible, patches).any(axis=0) | _contains(patches, visible).any(axis=1)
            hits[image], chance[image] = hit[chosen - 1].mean(), hit.mean()
    return hits, chance


def _cut_to_crop(boxes: ArrayLike, crop: tuple[int, int]) -> Float64:
    """The visible parts (m, 4) of boxes (n, 4); boxes outside the crop are dropped."""
    height, width = crop
    cut = np.asarray(boxes, np.float64).reshape(-1, 4).clip(0, [width, height, width, height])
    return cut[(cut[:, 2] > cut[:, 0]) & (cut[:, 3] > cut[:, 1])]


def _contains(outer: Float64, inner: Float64) -> NDArray[np.bool_]:
    """(len(outer), len(inner)): does the half-open outer box hold the inner box's centre?"""
    centre = (inner[:, :2] + inner[:, 2:]) / 2
    above = centre[None] >= outer[:, None, :2]
    below = centre[None] < outer[:, None, 2:]
    return np.asarray((above & below).all(axis=2))


def _check_labels(logits: NDArray[Any], labels: NDArray[Any]) -> None:
    assert logits.ndim == 2 and labels.shape == logits.shape[:1] and labels.size, (
        f"logits {logits.shape}, labels {labels.shape}"
    )
    assert labels.min() >= 0 and labels.max() < logits.shape[1], "label outside the classes"
