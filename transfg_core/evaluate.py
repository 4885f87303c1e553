"""Evaluation of a model on one split."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transfg_core.backend import Backend
from transfg_core.config.sections import Config, DataConfig
from transfg_core.data.datasets import Samples
from transfg_core.data.decoding import image_orientation, image_size, region_box
from transfg_core.data.loader import eval_batches
from transfg_core.data.pixels import upright_boxes
from transfg_core.data.transforms import boxes_through_eval
from transfg_core.errors import Diverged
from transfg_core.metrics import cross_entropy, part_hits, topk_accuracy
from transfg_core.models.layout import part_grid

NEEDED = ("logits", "part_index", "label", "row")  # of each image


@dataclass(frozen=True)
class Evaluation:
    """Metrics over `images` pictures, and the output for each of them.

    Accuracies and part hits are fractions in [0, 1]; part hits need known part boxes. For each
    picture: `index` (B,) into the split, `labels` (B,), `logits` (B, C) and `part_index` (B, K) or
    None. `bad_images` maps each skipped file to the reason. `averaged` says whether the model had
    averaged parameters (`optim.ema`).
    """

    loss: float
    top1: float
    top5: float
    part_hit: float | None
    part_hit_chance: float | None
    images: int
    seconds: float
    index: NDArray[np.int64]
    labels: NDArray[np.int64]
    logits: NDArray[np.float32]
    part_index: NDArray[np.int64] | None
    bad_images: dict[str, str]
    averaged: bool = False

    def record(self) -> dict[str, Any]:
        """The scalars for metrics.jsonl."""
        names = ("loss", "top1", "top5", "part_hit", "part_hit_chance", "images", "seconds")
        scalars = {name: getattr(self, name) for name in names}
        return scalars | {"bad_images": len(self.bad_images), "averaged": self.averaged}


def evaluate(
    backend: Backend,
    samples: Samples,
    config: Config,
    advance: Callable[[int], None] = lambda images: None,
) -> Evaluation:
    """Run every image of a split through the model once, in order.

    `advance` is called after each batch with the number of its images.

    Raises:
        Diverged: the logits are not finite.
        RunFailed: an image cannot be read.
    """
    started = time.perf_counter()
    bad_images: dict[str, str] = {}
    columns: dict[str, list[NDArray[Any]]] = {}
    batches = eval_batches(samples, config.data, config.train.eval_batch_size, bad_images)
    with closing(batches):  # `advance` may raise
        for batch in batches:
            output = backend.fetch(backend.eval_step(batch.images))
            for name, values in (output | {"label": batch.labels, "row": batch.index}).items():
                if name in NEEDED:  # the others can fill the memory
                    columns.setdefault(name, []).append(values)
            advance(len(batch.labels))
    table = {name: np.concatenate(values) for name, values in columns.items()}
    logits, labels, parts = table["logits"], table["label"], table.get("part_index")
    if not np.isfinite(logits).all():
        raise Diverged(
            "evaluation: expected finite logits, found inf or nan: training has diverged; take an "
            "older checkpoint (best, or a numbered one), or start another run with a smaller "
            "optim.lr"
        )
    hit, chance = mean_part_hits(parts, table["row"], samples, config)
    return Evaluation(
        loss=cross_entropy(logits, labels),
        top1=topk_accuracy(logits, labels, 1),
        top5=topk_accuracy(logits, labels, 5),
        part_hit=hit,
        part_hit_chance=chance,
        images=len(labels),
        seconds=time.perf_counter() - started,
        index=table["row"],
        labels=labels,
        logits=logits,
        part_index=parts,
        bad_images=bad_images,
        averaged=config.optim.ema is not None,
    )


def boxes_in_crop(
    samples: Samples, rows: NDArray[np.int64], data: DataConfig
) -> list[NDArray[np.float32]]:
    """True part boxes (n, 4) of the given rows, in pixels of the evaluation crop."""
    assert samples.part_boxes is not None
    moved = []
    for row in rows:
        path, boxes = samples.paths[row], samples.part_boxes[row]
        size = image_size(path)
        if data.exif == "apply":
            boxes, size = upright_boxes(boxes, size, image_orientation(path))
        region = samples.region(row)
        if region is not None:
            left, top, right, bottom = region_box(path, region, size)
            boxes = boxes - np.array([left, top, left, top], np.float32)
            size = bottom - top, right - left
        moved.append(boxes_through_eval(boxes, size, data))
    return moved


def mean_part_hits(
    parts: NDArray[np.int64] | None, index: NDArray[np.int64], samples: Samples, config: Config
) -> tuple[float | None, float | None]:
    """Share of the chosen patches that lie on a true part, and the same share for all patches.

    Both are None without part selection, without boxes, or if no box is inside the crop.
    """
    if parts is None or samples.part_boxes is None:
        return None, None
    boxes = boxes_in_crop(samples, index, config.data)
    grid = part_grid(config.model, config.data.crop, "part selection")
    hits, chance = part_hits(parts, boxes, grid, config.data.crop)
    if np.isnan(hits).all():
        return None, None
    return float(np.nanmean(hits)), float(np.nanmean(chance))
