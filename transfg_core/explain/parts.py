"""Pictures of a checkpoint's part selection: chosen patches, part scores and true parts."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from transfg_core.backend import Array, Backend, Batch
from transfg_core.checkpoints.averages import AVERAGED
from transfg_core.checkpoints.file import replace_file
from transfg_core.config.sections import DataConfig
from transfg_core.data.datasets import Samples
from transfg_core.data.sample_reader import EvalReader, none_readable
from transfg_core.data.transforms import normalise
from transfg_core.errors import RunFailed, UserError
from transfg_core.evaluate import boxes_in_crop
from transfg_core.explain.drawing import part_picture
from transfg_core.models.layout import part_grid
from transfg_core.models.vit import require_vit
from transfg_core.run.progress import Progress
from transfg_core.trained import open_checkpoint

Heat = Literal["scores", "rollout"]


def draw_parts(
    path: Path,
    backend_name: str,
    overrides: Iterable[str],
    count: int,
    out: Path,
    heat: Heat = "scores",
) -> None:
    """Draw `count` test images, evenly spread over the split, with the parts a checkpoint selects.

    Next to each image is a copy dimmed by the part scores, or by the attention rollout, which also
    exists in a plain Vision Transformer.

    With `data.on_bad_image: skip`, unreadable images are named and left out, as in an evaluation.

    Raises:
        UserError: the checkpoint is broken, or `heat` is "scores" and its model selects no parts.
        RunFailed: an image cannot be read.
    """
    config, dataset, backend = open_checkpoint(path, backend_name, overrides, out)
    if config.optim.ema is not None:
        Progress("parts").say(f"{path}: {AVERAGED}")
    model = require_vit(config.model, f"{path}: pictures of parts and attention")
    selects = model.selects_parts
    if not selects and heat == "scores":
        raise UserError(
            f"{path}: expected a model with part selection, found model.placement none; choose "
            "another checkpoint, or --heat rollout"
        )
    test = dataset.test
    rows, pixels = _read(test, config.data, count)
    images = normalise(pixels, config.data)
    traces = [
        backend.trace(Batch(images[k : k + 1], test.labels[rows[k : k + 1]]))
        for k in range(len(rows))
    ]
    logits = np.concatenate([trace["logits"] for trace in traces])
    index = np.concatenate([trace["part_index"] for trace in traces]) if selects else None
    if heat == "rollout":
        scores = np.stack([_rollout(backend, image) for image in images])
    else:
        scores = np.concatenate([trace["part_scores"] for trace in traces])
    if heat == "scores" and model.fusion == "mul":  # the scores of `mul` are logarithms
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    boxes = None if test.part_boxes is None else boxes_in_crop(test, rows, config.data)
    titles = [
        dataset.classes[label]
        + (f" (taken for {dataset.classes[guess]})" if label != guess else "")
        for label, guess in zip(test.labels[rows], logits.argmax(axis=1), strict=True)
    ]
    grid = part_grid(config.model, config.data.crop, f"{path}: pictures of parts")
    picture = part_picture(pixels, index, scores, grid, boxes, titles)
    png = io.BytesIO()
    picture.save(png, format="PNG")
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, png.getvalue())


def _read(
    test: Samples, data: DataConfig, count: int
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Rows of up to `count` images, evenly spread over the split, and their crops (B, H, W, 3)."""
    read = EvalReader(test, data)
    spread = np.unique(np.linspace(0, len(test.paths) - 1, count).astype(int))
    records = [read(int(row)) for row in spread]
    skipped = {path: reason for record in records for path, reason in record.skipped.items()}
    Progress("parts").skipped(skipped)
    errors = [record.error for record in records if record.error]
    shown = [record for record in records if record.pixels.size]
    if errors or not shown:
        raise RunFailed(errors[0] if errors else none_readable(skipped, len(records)))
    rows = np.array([record.sample for record in shown], np.int64)
    return rows, np.stack([record.pixels for record in shown])


def _rollout(backend: Backend, image: Array) -> Array:
    """Attention rollout of one image (3, H, W) as scores of a single head: (1, N)."""
    scores: Array = backend.fetch(backend.rollout(image[None]))["rollout"]
    return scores
