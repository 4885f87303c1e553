"""Which settings of `model` a file with another program's names shows by its shapes."""

from collections.abc import Callable, Mapping
from typing import Any

from transfg_core.checkpoints.naming import Naming
from transfg_core.models.rows import Shape
from transfg_core.params.bias_tables import window_of

ShapeOf = Callable[[str], Shape | None]  # of a canonical parameter; None if the file lacks it
MOST_BLOCKS = 200  # of a stage; no program has more


def found_settings(naming: Naming, shapes: Mapping[str, Shape]) -> dict[str, Any] | None:
    """Keys of `model`, with `name` and `classes` (None: no head); None if arrays are missing.

    `shapes` has the program's names.
    """

    def shape_of(name: str) -> Shape | None:
        place = naming.place(name)
        shape = shapes.get(place.key) if place else None
        return None if not place or not shape else (shape[0] // place.parts, *shape[1:])

    settings = READERS[naming.architecture](shape_of)
    head = shape_of("head.weight")
    classes = head[0] if head and head[0] > 1 else None
    return settings and {"name": naming.architecture, "classes": classes} | settings


def in_words(settings: Mapping[str, Any]) -> str:
    """The settings as a user writes them, without `name` and those that are not there."""
    shown = {key: value for key, value in settings.items() if key != "name" and value is not None}
    return " ".join(f"model.{k}={str(v).replace(' ', '')}" for k, v in shown.items())


def count_blocks(shape_of: ShapeOf, pattern: str) -> int:
    """How many parameters of a pattern such as `layer1.{}.conv1.weight` there are, from 0."""
    numbers = (i for i in range(MOST_BLOCKS) if shape_of(pattern.format(i)) is None)
    return next(numbers, MOST_BLOCKS)


def swin_settings(shape_of: ShapeOf) -> dict[str, Any] | None:
    """Width, depths, heads, MLP, patch and window of a Swin Transformer."""
    depths = [count_blocks(shape_of, f"stages.{i}.blocks.{{}}.norm1.weight") for i in range(4)]
    tables = [shape_of(f"stages.{i}.blocks.0.attn.bias_table") for i in range(4)]
    patch, mlp = shape_of("patch_embed.weight"), shape_of("stages.0.blocks.0.mlp.fc1.weight")
    if not all(depths) or not all(tables) or not patch or not mlp:
        return None
    if len(patch) != 4 or len(mlp) != 2 or any(len(table or ()) != 2 for table in tables):
        return None
    return {
        "width": patch[0],
        "depths": depths,
        "heads": [table[1] for table in tables if table],
        "mlp_ratio": mlp[0] // mlp[1],
        "patch": patch[2],
        "window": window_of(tables[0][0]) if tables[0] else None,
    }


def resnet_settings(shape_of: ShapeOf) -> dict[str, Any] | None:
    """Width, blocks and kind of blocks of a residual network."""
    stages = [count_blocks(shape_of, f"layer{i}.{{}}.conv1.weight") for i in range(1, 5)]
    blocks = stages[: stages.index(0)] if 0 in stages else stages
    stem = shape_of("conv1.weight")
    if not blocks or not stem:
        return None
    bottleneck = shape_of("layer1.0.conv3.weight") is not None
    return {"width": stem[0], "blocks": blocks, "bottleneck": bottleneck}


READERS: dict[str, Callable[[ShapeOf], dict[str, Any] | None]] = {
    "swin": swin_settings,
    "resnet": resnet_settings,
}
