"""Pictures of what a trained model selects: chosen patches, part scores and true parts."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from transfg_core.backend import Batch, load_backend
from transfg_core.config import apply_overrides, build_config
from transfg_core.data.datasets import read_dataset
from transfg_core.data.transforms import (
    boxes_through_eval,
    eval_transform,
    image_size,
    normalise,
    read_image,
)
from transfg_core.draw import part_picture
from transfg_core.errors import UserError
from transfg_core.experiment import with_classes
from transfg_core.params import grid_size
from transfg_core.resume import check_classes, read_checkpoint


def draw_parts(
    path: Path, backend_name: str, overrides: Iterable[str], count: int, out: Path
) -> None:
    """Draw `count` test images, evenly spread over the split, with the parts a checkpoint selects.

    Raises:
        UserError: the checkpoint is broken, or its model selects no parts.
    """
    arrays, metadata, saved = read_checkpoint(path)
    tree = saved.model_dump(mode="json")
    apply_overrides(tree, overrides)
    config = build_config(tree, str(path))
    if config.model.placement == "none":
        raise UserError(
            f"{path}: model.placement is none, and this picture shows selected parts; "
            "choose a checkpoint of a model with part selection"
        )
    dataset = read_dataset(config.data, config.run.seed)
    check_classes(path, metadata, dataset)
    config = with_classes(config, dataset)
    backend = load_backend(backend_name, config)
    backend.load_params(
        {name[6:]: value for name, value in arrays.items() if name.startswith("param/")}
    )
    test = dataset.test
    rows = np.unique(np.linspace(0, len(test.paths) - 1, count).astype(int))
    pixels = np.stack([eval_transform(read_image(test.paths[row]), config.data) for row in rows])
    images = normalise(pixels, config.data)
    traces = [
        backend.trace(Batch(images[k : k + 1], test.labels[rows[k : k + 1]]))
        for k in range(len(rows))
    ]
    index, scores, logits = (
        np.concatenate([trace[tap] for trace in traces])
        for tap in ("part_index", "part_scores", "logits")
    )
    if config.model.fusion == "mul":  # its scores are logarithms
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    boxes = None
    if test.part_boxes is not None:
        stored = [image_size(test.paths[row]) for row in rows]
        boxes = [
            boxes_through_eval(test.part_boxes[row], size, config.data)
            for row, size in zip(rows, stored, strict=True)
        ]
    titles = [
        dataset.classes[label] + ("" if label == guess else f" (taken for {dataset.classes[guess]})")
        for label, guess in zip(test.labels[rows], logits.argmax(axis=1), strict=True)
    ]
    assert config.model.stride is not None
    grid = grid_size(config.data.crop, config.model)
    patch, stride = config.model.patch, config.model.stride
    picture = part_picture(pixels, index, scores, grid, patch, stride, boxes, titles)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        picture.save(out)
    except (OSError, ValueError) as error:
        raise UserError(f"{out}: cannot write the picture: {error}") from error
