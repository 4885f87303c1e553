"""Residual networks: parameters, initial values, and the axes of every tap.

Names are torchvision's, with `head` for its `fc`. Initial values are those of torchvision's
program: He et al. 2015 by outputs for convolutions, 1 and 0 for batch norms, and PyTorch's default
for the classifier. Sources: He et al. 2016 (arXiv 1512.03385), table 1; the stride of a bottleneck
lies in its 3 x 3 convolution ("v1.5" of torchvision and NVIDIA), where the paper has it in the
first 1 x 1 convolution.

Letters: B batch, R colours, C classes; A kernel of a block's first convolution; G0, H0, W0
channels, rows and columns after the first convolution. Of stage s, from 1: Fs and Es channels after
a block's first and second convolution, Gs channels of its output, Hs and Ws rows and columns.
Without bottlenecks a block ends with its second convolution, and Es is Gs.
"""

import re
from collections.abc import Iterator, Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from transfg_core.config.resnet import ResNetConfig
from transfg_core.models.rows import (
    FeatureMap,
    ParamSpec,
    TapSpec,
    affine,
    batch_norm_params,
    batch_norm_specs,
)

STAGES = range(1, 5)
STEM = (7, 2, 3)  # kernel, stride and padding of the first convolution
POOL = (3, 2, 1)  # the same of the max pool after it

AXES = {"B": "batch item", "C": "class", "G0": "channel", "H0": "row", "W0": "column"} | {
    f"{letter}{stage}": word
    for stage in STAGES
    for letter, word in zip(
        "FEGHW", ("channel", "channel", "channel", "row", "column"), strict=True
    )
}
SETTINGS = {"C": "model.classes", "A": "model.depth"} | {
    f"{letter}{stage}": "model.width" for stage in (0, *STAGES) for letter in "FEG"
}
ZERO_GRADIENTS: dict[str, str] = {}
HIDDEN_SETTINGS: Sequence[str] = ()
CHANNELS = "bn1.bias"


def conv_spec(name: str, outputs: str, inputs: str, kernel: str) -> ParamSpec:
    """The row of a convolution without bias."""
    fan = f"{outputs} {kernel} {kernel}"
    return ParamSpec(name, f"{outputs} {inputs} {kernel} {kernel}", "kaiming", fan)


def block_specs(stage: int, first: bool, bottleneck: bool, joins: bool) -> Iterator[ParamSpec]:
    """The rows of one block, by names within it; `joins` says that its shortcut has weights."""
    inner, middle, out = f"F{stage}", f"E{stage}", f"G{stage}"
    entry = f"G{stage - 1}" if first else out
    yield conv_spec("conv1.weight", inner, entry, "A")
    yield from batch_norm_specs("bn1", inner)
    yield conv_spec("conv2.weight", middle, inner, "3")
    yield from batch_norm_specs("bn2", middle)
    if bottleneck:
        yield conv_spec("conv3.weight", out, middle, "1")
        yield from batch_norm_specs("bn3", out)
    if joins:
        yield conv_spec("downsample.0.weight", out, entry, "1")
        yield from batch_norm_specs("downsample.1", out)


def joins(model: ResNetConfig, stage: int, unit: int) -> bool:
    """Whether a block's shortcut is a convolution: its output has another shape than its input."""
    return unit == 0 and (stage > 1 or model.bottleneck)


def units(model: ResNetConfig) -> list[tuple[int, int]]:
    """(stage from 1, number within the stage) of every block."""
    return [(s, unit) for s, count in enumerate(model.blocks, 1) for unit in range(count)]


def stride_of(stage: int, unit: int) -> int:
    """Stride of a block: 2 where a stage but the first begins."""
    return 2 if stage > 1 and unit == 0 else 1


def param_specs(model: ResNetConfig) -> dict[str, ParamSpec]:
    """Dict: canonical name -> its row, in the model's order."""
    specs = [conv_spec("conv1.weight", "G0", "R", "7"), *batch_norm_specs("bn1", "G0")]
    for stage, unit in units(model):
        rows = block_specs(stage, unit == 0, model.bottleneck, joins(model, stage, unit))
        specs += [row._replace(name=f"layer{stage}.{unit}.{row.name}") for row in rows]
    last = f"G{len(model.blocks)}"
    specs.append(ParamSpec("head.weight", f"C {last}", "uniform", last))
    specs.append(ParamSpec("head.bias", "C", "uniform", last))
    return {spec.name: spec for spec in specs}


def dims_of(name: str) -> str:
    """Shape of a parameter in letters, for any residual network; empty for an unknown name.

    `head.weight` is taken to be behind four stages.
    """
    specs = [conv_spec("conv1.weight", "G0", "R", "7"), *batch_norm_specs("bn1", "G0")]
    specs += [ParamSpec("head.weight", "C G4", "uniform"), ParamSpec("head.bias", "C", "uniform")]
    place = re.match(r"layer([1-4])\.(\d+)\.", name)
    if place:
        specs = list(block_specs(int(place[1]), place[2] == "0", True, True))
        name = name[place.end() :]
    return next((spec.dims for spec in specs if spec.name == name), "")


def halved(size: tuple[int, int], window: tuple[int, int, int]) -> tuple[int, int]:
    """Rows and columns after a convolution or pool of (kernel, stride, padding)."""
    kernel, stride, padding = window
    rows, columns = ((side + 2 * padding - kernel) // stride + 1 for side in size)
    return rows, columns


def map_sizes(image_size: tuple[int, int], model: ResNetConfig) -> list[tuple[int, int]]:
    """Rows and columns after the first convolution, and of each stage's output."""
    maps = [halved(image_size, STEM)]
    size = halved(maps[0], POOL)
    for stage in range(1, len(model.blocks) + 1):
        size = size if stage == 1 else halved(size, (3, 2, 1))
        maps.append(size)
    return maps


def feature_map(model: ResNetConfig, image_size: tuple[int, int]) -> FeatureMap:
    """The last block's map. Each stride is padded evenly, so the first region is around pixel 0."""
    last = f"block{len(units(model)) - 1:02d}"
    stride = 4 * 2 ** (len(model.blocks) - 1)
    return FeatureMap(last, *map_sizes(image_size, model)[-1], stride, 0.5)


def sizes(model: ResNetConfig, image_size: tuple[int, int] | None = None) -> dict[str, int]:
    """Dict: letter -> number; rows and columns only with an image size, C only with classes."""
    numbers = {"R": 3, "A": 1 if model.bottleneck else 3, "G0": model.width}
    for stage in range(1, len(model.blocks) + 1):
        inner = model.width * 2 ** (stage - 1)
        numbers |= {f"F{stage}": inner, f"E{stage}": inner, f"G{stage}": inner * model.expansion}
    if model.classes is not None:
        numbers["C"] = model.classes
    if image_size is not None:
        for stage, (rows, columns) in enumerate(map_sizes(image_size, model)):
            numbers |= {f"H{stage}": rows, f"W{stage}": columns}
    return numbers


def layers(model: ResNetConfig) -> dict[str, int]:
    """Dict: canonical name -> depth: the stem 0, block i at i + 1, the head last."""
    depths = {f"layer{s}.{unit}": depth for depth, (s, unit) in enumerate(units(model), 1)}
    last = len(depths) + 1

    def layer(name: str) -> int:
        if name.startswith("head."):
            return last
        return depths.get(".".join(name.split(".")[:2]), 0)

    return {name: layer(name) for name in param_specs(model)}


def taps(model: ResNetConfig) -> dict[str, TapSpec]:
    """Dict: tap -> its row, in the order of the forward pass."""
    stem, (_, stride, padding) = "B G0 H0 W0", STEM
    rows = {
        "conv1": TapSpec(stem, "convolution", ("images",), ("conv1.weight",), stride, padding),
        "bn1": TapSpec(stem, "batch_norm", ("conv1",), batch_norm_params("bn1")),
        "relu1": TapSpec(stem, "relu", ("bn1",)),
        "pool1": TapSpec("B G0 H1 W1", "max pool", ("relu1",)),
    }
    last = "pool1"
    for depth, (stage, unit) in enumerate(units(model)):
        block = f"block{depth:02d}"
        rows |= block_taps(model, stage, unit, block, last)
        last = block
    channels = f"B G{len(model.blocks)}"
    rows["pool"] = TapSpec(channels, "mean over positions", (last,))
    rows["features"] = TapSpec(channels, "dropout", ("pool",))
    rows["logits"] = TapSpec("B C", "linear", ("features",), affine("head"))
    return rows


def block_taps(
    model: ResNetConfig, stage: int, unit: int, block: str, source: str
) -> dict[str, TapSpec]:
    """The taps of one block; its output is the last."""
    module, stride = f"layer{stage}.{unit}", stride_of(stage, unit)
    entry = stage - 1 if stride == 2 else stage  # whose rows and columns its input has
    final = 3 if model.bottleneck else 2
    rows: dict[str, TapSpec] = {}
    last = source
    for number, letter in enumerate("FEG"[:final], 1):
        at = entry if model.bottleneck and number == 1 else stage
        axes = f"B {letter}{stage} H{at} W{at}"
        # a bottleneck's second convolution has the stride, else the first
        step, padding = (
            stride if number == final - 1 else 1,
            0 if model.bottleneck and number != 2 else 1,
        )
        conv, bn = f"{block}.conv{number}", f"{block}.bn{number}"
        weight = (f"{module}.conv{number}.weight",)
        rows[conv] = TapSpec(axes, "convolution", (last,), weight, step, padding)
        rows[bn] = TapSpec(axes, "batch_norm", (conv,), batch_norm_params(f"{module}.bn{number}"))
        last = bn
        if number < final:
            last = f"{block}.relu{number}"
            rows[last] = TapSpec(axes, "relu", (bn,))
    shortcut, out = source, f"B G{stage} H{stage} W{stage}"
    if joins(model, stage, unit):
        conv, shortcut = f"{block}.downsample.conv", f"{block}.downsample"
        weight = (f"{module}.downsample.0.weight",)
        rows[conv] = TapSpec(out, "convolution", (source,), weight, stride)
        rows[shortcut] = TapSpec(
            out, "batch_norm", (conv,), batch_norm_params(f"{module}.downsample.1")
        )
    return rows | {block: TapSpec(out, "residual relu", (last, shortcut))}


def orders(model: ResNetConfig, rng: np.random.Generator) -> dict[str, NDArray[np.intp]]:
    """A random permutation of each axis whose order changes no result.

    Channels that a shortcut adds have one order: those of a stage's blocks, and, where the first
    stage begins without a convolution in its shortcut, those of the stem.
    """
    numbers = sizes(model)
    found = {"R": rng.permutation(3), "G0": rng.permutation(model.width)}
    for stage in range(1, len(model.blocks) + 1):
        for letter in ("F", "E", "G"):
            found[f"{letter}{stage}"] = rng.permutation(numbers[f"{letter}{stage}"])
        if not model.bottleneck:
            found[f"E{stage}"] = found[f"G{stage}"]
    if not joins(model, 1, 0):
        found["E1"] = found["G1"] = found["G0"]
    return found


def forward_flops(model: ResNetConfig, image_size: tuple[int, int]) -> float:
    """Floating-point operations of one image's forward pass: convolutions and the classifier.

    Norms, ReLU, pools and additions do not count.
    """
    numbers = sizes(model, image_size) | {"B": 1, "C": model.class_count}
    specs = param_specs(model)

    def count(dims: str) -> int:
        return prod(int(dim) if dim.isdigit() else numbers[dim] for dim in dims.split())

    return 2.0 * sum(
        count(specs[tap.params[0]].dims) * count(tap.axes) // numbers[tap.axes.split()[1]]
        for tap in taps(model).values()
        if tap.operation in ("convolution", "linear")
    )
