"""Pictures of a checkpoint's part selection: chosen patches, part scores and true parts."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from transfg_core.backend import Array, Arrays, Backend, Batch
from transfg_core.checkpoints.averages import AVERAGED
from transfg_core.checkpoints.file import replace_file
from transfg_core.config.model import ModelConfig
from transfg_core.config.sections import DataConfig
from transfg_core.config.vit import VitConfig
from transfg_core.data.datasets import Samples
from transfg_core.data.sample_reader import EvalReader, none_readable
from transfg_core.errors import RunFailed, UserError
from transfg_core.evaluate import boxes_in_crop
from transfg_core.explain.drawing import part_picture
from transfg_core.models.layout import part_grid
from transfg_core.models.rows import PartGrid
from transfg_core.models.vit import require_vit
from transfg_core.run.progress import Progress
from transfg_core.trained import open_checkpoint

Heat = Literal["scores", "rollout", "saliency"]


def draw_parts(
    path: Path,
    backend_name: str,
    overrides: Iterable[str],
    count: int,
    out: Path,
    heat: Heat = "scores",
) -> None:
    """Draw `count` test images, evenly spread over the split, with the parts a checkpoint selects.

    Next to each image is a copy dimmed by the part scores, by the attention rollout, which also
    exists in a plain Vision Transformer, or by the saliency of each pixel, which every model has.

    With `data.on_bad_image: skip`, unreadable images are named and left out, as in an evaluation.

    Raises:
        UserError: the checkpoint is broken, or its model has no such heat.
        RunFailed: an image cannot be read.
    """
    config, dataset, backend = open_checkpoint(path, backend_name, overrides, out)
    if config.optim.ema is not None:
        Progress("parts").say(f"{path}: {AVERAGED}")
    check_heat(config.model, heat, path)
    selects = config.model.selects_parts
    test = dataset.test
    rows, pixels = _read(test, config.data, count)
    traces = [
        backend.trace(Batch(pixels[k : k + 1], test.labels[rows[k : k + 1]]))
        for k in range(len(rows))
    ]
    logits = np.concatenate([trace["logits"] for trace in traces])
    index = np.concatenate([trace["part_index"] for trace in traces]) if selects else None
    if heat == "scores":
        scores = np.concatenate([part_heat(config.model, trace) for trace in traces])
    else:
        scores = np.stack([_heat(backend, image, heat) for image in pixels])
    boxes = None if test.part_boxes is None else boxes_in_crop(test, rows, config.data)
    titles = [
        dataset.classes[label]
        + (f" (taken for {dataset.classes[guess]})" if label != guess else "")
        for label, guess in zip(test.labels[rows], logits.argmax(axis=1), strict=True)
    ]
    if heat == "saliency":  # of pixels; no patches are framed
        index, grid = None, PartGrid(*config.data.crop, patch=1, stride=1)
    else:
        grid = part_grid(config.model, config.data.crop, f"{path}: pictures of parts")
    picture = part_picture(pixels, index, scores, grid, boxes, titles)
    png = io.BytesIO()
    picture.save(png, format="PNG")
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, png.getvalue())


def check_heat(model: ModelConfig, heat: Heat, path: Path) -> None:
    """Refuse a heat that a model does not have.

    Raises:
        UserError: it selects no parts, or has no attention.
    """
    if heat == "scores" and not model.selects_parts:
        is_vit = isinstance(model, VitConfig)
        found = "model.placement none" if is_vit else f"model.name {model.name}"
        raise UserError(
            f"{path}: expected a model with part selection, found {found}; choose another "
            f"checkpoint, or --heat {'rollout' if is_vit else 'saliency'}"
        )
    if heat == "rollout":
        require_vit(model, f"{path}: attention rollout")


def part_heat(model: ModelConfig, trace: Arrays) -> Array:
    """Scores of the patches that are not negative, from the taps of one image: (1, J, N).

    Where no scores choose the parts, the chosen patches are 1 and the others 0.
    """
    if model.draws_parts:
        patches = np.arange(1, trace["tokens"].shape[1])
        return np.isin(patches, trace["part_index"])[None, None].astype(np.float64)
    scores = trace["part_scores"].astype(np.float64)
    if not isinstance(model, VitConfig):
        return scores
    if model.selection == "fused" and model.fusion == "mul":  # logarithms
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    if model.selection == "cls_similarity":  # a cosine
        scores = (scores + 1) / 2
    return scores


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


def _heat(backend: Backend, image: Array, heat: Heat) -> Array:
    """Rollout or saliency of one image (H, W, 3) as scores of one head: (1, N) or (1, H W)."""
    handle = backend.rollout(image[None]) if heat == "rollout" else backend.saliency(image[None])
    scores: Array = backend.fetch(handle)[heat].reshape(1, -1)
    return scores
