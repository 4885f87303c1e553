"""What the panels of a figure are called, and what the number of a selected patch means."""

from typing import NamedTuple

from transfg_core.config.model import ModelConfig
from transfg_core.config.swinfc import SwinFCConfig
from transfg_core.config.vit import VitConfig


class PartLabels(NamedTuple):
    """A label of each selected patch, in the order of `part_index`, and a sentence about it."""

    labels: list[str]
    meaning: str


def part_labels(model: ModelConfig) -> PartLabels:
    """The labels of a model that selects parts; heads, blocks and ranks count from 1."""
    assert model.selects_parts
    if isinstance(model, SwinFCConfig):
        pairs = [(b, h) for b in range(model.depths[-1]) for h in range(model.heads[-1])]
        return PartLabels(
            [f"{block + 1}.{head + 1}" for block, head in pairs],
            "2.3 is the choice of head 3 in block 2 of the last stage.",
        )
    assert isinstance(model, VitConfig)
    ranks = [str(rank + 1) for rank in range(model.part_count)]
    if model.selection == "fused":
        return PartLabels(ranks, "Each number is the head that chose the patch.")
    if model.selection == "maws":
        blocks = [str(place // model.row_parts + 1) for place in range(model.part_count)]
        return PartLabels(blocks, "Each number is the block that chose the patch.")
    if model.selection == "cls_similarity":
        return PartLabels(ranks, "Number 1 is most like the class token.")
    where = "at random" if model.selection == "random" else "around the centre"
    return PartLabels(ranks, f"The patches are chosen {where}.")


def stretches(model: ModelConfig) -> bool:
    """Whether the map of part scores begins at its smallest value: cosines are far from 0."""
    return isinstance(model, VitConfig) and model.selection == "cls_similarity"


def map_labels(model: ModelConfig, label: str) -> dict[str, tuple[str, str]]:
    """Dict: map -> its title and a sentence; `label` is the predicted class."""
    rows = {"maws": "the mean over blocks", "cls_similarity": "likeness to the class token"}
    compared = rows.get(getattr(model, "selection", ""), "the mean over heads")
    scores = f"What the part selection compares: {compared}."
    if stretches(model):
        scores += " Here dark blue is the smallest value of this image, not 0."
    return {
        "scores": ("Part scores", scores),
        "rollout": ("Attention rollout", "How much of each patch reaches the class token."),
        "grad_cam": (
            "Grad-CAM",
            f"Which places of the last feature map raise the score of {label}.",
        ),
        "saliency": ("Saliency of pixels", f"How much the score of {label} depends on each pixel."),
    }


def mask_labels(model: VitConfig) -> tuple[str, str]:
    """Title and sentence of the picture in which all but the selected patches is dimmed."""
    reader = "part layer" if model.has_part_layer else "classifier"
    token = model.placement != "flatten" or model.flatten_class_token or model.has_part_layer
    rest = "and the class token" if token else "without the class token"
    return f"What the {reader} reads", f"The tokens of these patches, {rest}."
