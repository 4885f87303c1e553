"""SwinFC: parameters, initial values, and the axes of every tap.

The backbone is the Swin Transformer of `swin.py`, with the same names. Source: Xiang, Chen and Yang
2023 (doi 10.3778/j.issn.1002-8331.2211-0456). The paper states no initial values of its modules;
those of convolutions are PyTorch's defaults, those of classifiers are the backbone's.

Stages 2 to 4, as the paper counts them, are stages 1 to 3 of the backbone here: the module
`eaca.0` and the tap `eaca2` belong to stage 2.
Letters: those of `swin.py`, and H1 to H3 and W1 to W3 rows and columns of the stages' maps, J
memories, A channels between the two convolutions of the alignment, F fused channels, Q chosen
tokens.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from transfg_core.config.swinfc import SwinFCConfig
from transfg_core.models import swin
from transfg_core.models.multi_scale import BRANCHES, branch_specs, branch_taps, pooled_width
from transfg_core.models.rows import FeatureMap, ParamSpec, PartGrid, TapSpec, affine
from transfg_core.models.swin import map_sizes

AXES = swin.AXES | {"J": "memory", "A": "channel", "F": "channel", "Q": "chosen token"}
AXES |= {
    f"{letter}{stage}": word
    for stage in BRANCHES
    for letter, word in (("H", "row"), ("W", "column"))
}
SETTINGS = swin.SETTINGS | {
    "J": "model.memories",
    "A": "model.align_width",
    "F": "model.fused_width",
}
# A batch norm takes away what the linear layers before it add to a channel. Behind EA it is that of
# the alignment: without FFM, the first of these gradients is not zero.
ZERO_GRADIENTS = swin.ZERO_GRADIENTS | {
    "*eaca.*.ea.norm.bias": ".bias>.weight",
    "*stage_heads.*.norm1.bias": ".bias>.weight",
    "*stage_heads.*.fc1.bias": ".fc1.>.norm2.",
}
HIDDEN_SETTINGS: Sequence[str] = ("similarity", "prediction", "fsm", *swin.HIDDEN_SETTINGS)
CHANNELS = swin.CHANNELS


def part_grid(model: SwinFCConfig, image_size: tuple[int, int]) -> PartGrid:
    """The tokens of the last stage's map; each is made from a square of 8 x 8 patches."""
    side = model.patch * 2 ** BRANCHES[-1]
    return PartGrid(*map_sizes(image_size, model)[-1], side, side)


def feature_map(model: SwinFCConfig, image_size: tuple[int, int]) -> FeatureMap:
    """The backbone's; before the norm if the stages' classifiers, which read it there, decide."""
    sums = model.prediction == "sum" and model.branches
    last = f"stage{BRANCHES[-1]}_block{model.depths[-1] - 1:02d}"
    return swin.feature_map(model, image_size, last if sums else "norm")


def param_specs(model: SwinFCConfig) -> dict[str, ParamSpec]:
    """Dict: canonical name -> its row, in the model's order: the backbone's, then the branches'."""
    return swin.param_specs(model) | {spec.name: spec for spec in branch_specs(model)}


def dims_of(name: str) -> str:
    """Shape of a parameter in letters, for any SwinFC; empty for an unknown name.

    Without FFM the classifiers read the stages' own channels, whose letters another module has
    then; their last axis is called F here, too.
    """
    known = swin.dims_of(name)
    if known:
        return known
    tables = (SwinFCConfig(stage_head=head) for head in ("linear", "mlp"))
    rows = {spec.name: spec.dims for model in tables for spec in branch_specs(model)}
    return rows.get(name, "")


def sizes(model: SwinFCConfig, image_size: tuple[int, int] | None = None) -> dict[str, int]:
    """Dict: letter -> number; those of maps only with an image size, C only if it is set."""
    numbers = swin.sizes(model, image_size)
    numbers |= {"J": model.memories, "A": model.align_width, "F": model.fused_width}
    numbers["Q"] = model.depths[-1] * model.heads[-1]
    if image_size is not None:
        maps = map_sizes(image_size, model)
        numbers |= {f"H{stage}": maps[stage][0] for stage in BRANCHES}
        numbers |= {f"W{stage}": maps[stage][1] for stage in BRANCHES}
    return numbers


def layers(model: SwinFCConfig) -> dict[str, int]:
    """Dict: canonical name -> depth: the backbone's; the new modules with the head."""
    depths = swin.layers(model)
    return depths | {spec.name: depths["head.weight"] for spec in branch_specs(model)}


def taps(model: SwinFCConfig) -> dict[str, TapSpec]:
    """Dict: tap -> its row, in the order of the forward pass."""
    rows = swin.backbone_taps(model)
    maps = {stage: f"stage{stage}_block{model.depths[stage] - 1:02d}" for stage in BRANCHES}
    if model.branches:
        rows |= branch_taps(model, maps)
    rows["norm"] = swin.norm("B T3 D3", maps[3], "norm")
    if model.fsm:
        rows["part_scores"] = TapSpec("B Q T3", "column means", stage="selection")
        rows["part_index"] = TapSpec("B Q", "choice", ("part_scores",), stage="selection")
        rows["part_tokens"] = TapSpec("B Q D3", "gather parts", ("norm", "part_index"))
        rows["part_features"] = TapSpec("B D3", "mean over tokens", ("part_tokens",))
    rows["features"] = TapSpec("B D3", "mean over tokens", ("norm",))
    rows["logits"] = TapSpec("B C", "linear", ("features",), affine("head"))
    return rows


def orders(model: SwinFCConfig, rng: np.random.Generator) -> dict[str, NDArray[np.intp]]:
    """A random permutation of each axis whose order changes no result."""
    result = swin.orders(model, rng)
    counts = {"J": model.memories, "A": model.align_width, "F": model.fused_width}
    heads, blocks = result["K3"], np.arange(model.depths[-1])
    result["Q"] = (blocks[:, None] * len(heads) + heads).reshape(-1)
    return result | {letter: rng.permutation(count) for letter, count in counts.items()}


def forward_flops(model: SwinFCConfig, image_size: tuple[int, int]) -> float:
    """Floating-point operations of one image's forward pass.

    Counted as in `swin.py`: matmuls and convolutions alone. FFM's products are counted once, as
    they are computed: equations 8 to 11 as written would take three times as many. FSM's maps are
    not counted, as part selection of TransFG is not.
    """
    total = swin.forward_flops(model, image_size)
    numbers = sizes(model, image_size)
    tokens = {stage: numbers[f"T{stage}"] for stage in BRANCHES}
    for stage in BRANCHES if model.branches else ():
        width = numbers[f"D{stage}"]
        if model.ea:
            total += 2.0 * tokens[stage] * width * model.memories * 4  # kernels of 3 and 1
        if model.ca:
            total += 2.0 * (numbers[f"H{stage}"] + numbers[f"W{stage}"]) * 3 * width * width
        if model.ffm:
            per_token = model.align_width * (width + 9 * model.fused_width)
            total += 2.0 * tokens[stage] * per_token
        pooled = numbers[pooled_width(model, stage)]
        if model.stage_head == "mlp":
            total += 2.0 * model.align_width * (pooled + model.class_count)
        else:
            total += 2.0 * pooled * model.class_count
    if model.ffm:
        pairs = ((1, 2), (1, 3), (2, 3))
        total += sum(2.0 * tokens[i] * tokens[j] * model.fused_width for i, j in pairs)
    return total
