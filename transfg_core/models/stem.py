"""The convolutional stem of hybrid Vision Transformers: parameters, sizes, axes of its taps.

A ResNet with group norm and standardised weights computes a feature map; the patches of the
Vision Transformer are cut from that map instead of the image. Source: Dosovitskiy et al. 2021
(arXiv 2010.11929), "Hybrid Architecture", and google-research/vision_transformer. A unit is the
bottleneck of He et al. 2016 (arXiv 1512.03385) with the stride in its 3 x 3 convolution.

Letters: B batch, R colours, Z channels of the last map. Stage s has Is channels inside its units
and Os between them; stage 0 reads F, the channels of the root. H and W are rows and columns of the
root's map, Hs and Ws those of the maps of stage s, which `pool` starts for stage 0.
"""

import re
from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from transfg_core.config.stem import GROUPS, STEMS, Stem
from transfg_core.models.rows import ParamSpec, TapSpec, affine

ROOT, KERNEL = 7, 3  # sides of the root's kernel, and of the second kernel of a unit
EXPANSION = 4  # a unit gives this many times the channels that it has inside


def units_of(stem: Stem) -> Iterator[tuple[int, int]]:
    """Pairs: stage, and unit in this stage, in the order of the forward pass."""
    return ((stage, unit) for stage, count in enumerate(stem.units) for unit in range(count))


def stride_of(stage: int, unit: int) -> int:
    """The stride of a unit's 3 x 3 convolution: the first unit of a later stage halves the map."""
    return 2 if stage and not unit else 1


def convolution_spec(name: str, features: str, inputs: str, kernel: int) -> ParamSpec:
    """A kernel without bias, drawn from a normal distribution of variance 1 / inputs.

    LeCun et al. 1998, as in google-research/vision_transformer, but not truncated.
    """
    dims = f"{features} {inputs} {kernel} {kernel}"
    return ParamSpec(name, dims, "kaiming", f"2 {inputs} {kernel} {kernel}")


def norm_specs(
    module: str, features: str, weights: Literal["ones", "zeros"] = "ones"
) -> tuple[ParamSpec, ParamSpec]:
    """Weight and bias of a group norm."""
    weight, bias = affine(module)
    return ParamSpec(weight, features, weights), ParamSpec(bias, features, "zeros")


def unit_specs(stage: int, unit: int) -> list[ParamSpec]:
    """The parameters of one unit. The last norm starts at zero, so that a unit starts as ReLU."""
    module, inner, outer = f"stem.stages.{stage}.{unit}", f"I{stage}", f"O{stage}"
    source = outer if unit else f"O{stage - 1}" if stage else "F"
    specs = [
        convolution_spec(f"{module}.conv1.weight", inner, source, 1),
        *norm_specs(f"{module}.norm1", inner),
        convolution_spec(f"{module}.conv2.weight", inner, inner, KERNEL),
        *norm_specs(f"{module}.norm2", inner),
        convolution_spec(f"{module}.conv3.weight", outer, inner, 1),
        *norm_specs(f"{module}.norm3", outer, "zeros"),
    ]
    if not unit:
        specs.append(convolution_spec(f"{module}.downsample.conv.weight", outer, source, 1))
        specs += norm_specs(f"{module}.downsample.norm", outer)
    return specs


def root_specs() -> list[ParamSpec]:
    """The parameters before the first stage."""
    norm = norm_specs("stem.root.norm", "F")
    return [convolution_spec("stem.root.conv.weight", "F", "R", ROOT), *norm]


def stem_specs(name: str) -> list[ParamSpec]:
    """The parameters of a stem."""
    specs = root_specs()
    for stage, unit in units_of(STEMS[name]):
        specs += unit_specs(stage, unit)
    return specs


def stem_dims(name: str) -> str:
    """Shape of a stem's parameter in letters, for any stem; empty for an unknown name."""
    match = re.match(r"stem\.stages\.([0-3])\.(\d{1,2})\.", name)
    specs = unit_specs(int(match[1]), int(match[2])) if match else root_specs()
    return next((spec.dims for spec in specs if spec.name == name), "")


def map_sizes(name: str, image_size: tuple[int, int]) -> list[tuple[int, int]]:
    """Rows and columns of the maps: of the root, of stage 0, and of each later stage.

    Every stride of 2 halves them and rounds up, since the padding is that of TensorFlow's `SAME`.
    """
    maps = [halved(image_size)]
    for _ in range(max(len(STEMS[name].units), 1)):
        maps.append(halved(maps[-1]))
    return maps


def halved(size: tuple[int, int]) -> tuple[int, int]:
    """Half of both sides, rounded up."""
    return -(-size[0] // 2), -(-size[1] // 2)


def stem_sizes(name: str, image_size: tuple[int, int] | None = None) -> dict[str, int]:
    """Dict: letter -> number; those of rows and columns only with an image size."""
    stem = STEMS[name]
    numbers = {"F": stem.width, "Z": stem.channels}
    for stage in range(len(stem.units)):
        numbers[f"I{stage}"] = stem.width * 2**stage
        numbers[f"O{stage}"] = EXPANSION * stem.width * 2**stage
    if image_size is not None:
        root, *stages = map_sizes(name, image_size)
        numbers |= {"H": root[0], "W": root[1]}
        for stage, (rows, columns) in enumerate(stages):
            numbers |= {f"H{stage}": rows, f"W{stage}": columns}
    return numbers


def stem_axes() -> dict[str, str]:
    """Dict: letter -> what an index on such an axis counts, for every stem."""
    counts = {"F": "channel", "H": "row", "W": "column"}
    for stage in range(max(len(stem.units) for stem in STEMS.values())):
        counts |= {f"I{stage}": "channel", f"O{stage}": "channel"}
        counts |= {f"H{stage}": "row", f"W{stage}": "column"}
    return counts


def stem_taps(name: str) -> dict[str, TapSpec]:
    """Dict: tap -> its row, in the order of the forward pass; the last is what patches are of."""
    stem, root, pool = STEMS[name], "B F H W", "B F H0 W0"
    rows = {
        "root.conv": TapSpec(
            root, "standardised convolution", ("images",), ("stem.root.conv.weight",), 2
        ),
        "root": TapSpec(root, "group norm and relu", ("root.conv",), affine("stem.root.norm")),
        "pool": TapSpec(pool, "padded max pool", ("root",)),
    }
    last = "pool"
    for stage, unit in units_of(stem):
        rows |= unit_taps(stage, unit, last)
        last = f"unit{stage}_{unit:02d}"
    return rows


def unit_taps(stage: int, unit: int, source: str) -> dict[str, TapSpec]:
    """The taps of one unit; its output is the last."""
    module, tap = f"stem.stages.{stage}.{unit}", f"unit{stage}_{unit:02d}"
    stride, size = stride_of(stage, unit), f"H{stage} W{stage}"
    before = f"H{stage - 1} W{stage - 1}" if stride > 1 else size
    inner, outer = f"B I{stage}", f"B O{stage} {size}"
    then_relu = "group norm and relu"
    # convolution, norm, axes of both, what the convolution reads, its stride, the norm's operation
    layers = [
        ("conv1", "norm1", f"{inner} {before}", source, 1, then_relu),
        ("conv2", "norm2", f"{inner} {size}", f"{tap}.norm1", stride, then_relu),
        ("conv3", "norm3", outer, f"{tap}.norm2", 1, "group norm"),
    ]
    shortcut = source
    if not unit:
        shortcut = f"{tap}.downsample.norm"
        first = ("downsample.conv", "downsample.norm", outer, source, stride, "group norm")
        layers.insert(0, first)
    rows = {}
    for conv, norm, axes, read, step, operation in layers:
        weight = (f"{module}.{conv}.weight",)
        rows[f"{tap}.{conv}"] = TapSpec(axes, "standardised convolution", (read,), weight, step)
        rows[f"{tap}.{norm}"] = TapSpec(
            axes, operation, (f"{tap}.{conv}",), affine(f"{module}.{norm}")
        )
    return rows | {tap: TapSpec(outer, "residual relu", (shortcut, f"{tap}.norm3"))}


def stem_orders(name: str, rng: np.random.Generator) -> dict[str, NDArray[np.intp]]:
    """Random permutations of the channels that keep the groups of every group norm together."""
    orders = {letter: order_of_groups(count, rng) for letter, count in stem_sizes(name).items()}
    # the last map has two letters
    last = len(STEMS[name].units) - 1
    return orders | {"Z": orders["F" if last < 0 else f"O{last}"]}


def order_of_groups(channels: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """A permutation of the groups, and of the channels inside each group: (channels,)."""
    members = np.arange(channels).reshape(GROUPS, -1)
    return np.concatenate([rng.permutation(members[group]) for group in rng.permutation(GROUPS)])


def stem_flops(name: str, image_size: tuple[int, int]) -> float:
    """Floating-point operations of the convolutions for one image; all else does not count."""
    stem, (root, *stages) = STEMS[name], map_sizes(name, image_size)
    products = root[0] * root[1] * ROOT**2 * 3 * stem.width
    inputs = stem.width
    for stage, unit in units_of(stem):
        inner = stem.width * 2**stage
        outer = EXPANSION * inner
        rows, columns = stages[stage]
        # the first convolution comes before the stride
        above = stages[stage - 1] if stride_of(stage, unit) > 1 else stages[stage]
        products += above[0] * above[1] * inputs * inner
        products += rows * columns * (KERNEL**2 * inner * inner + inner * outer)
        products += 0 if unit else rows * columns * inputs * outer
        inputs = outer
    return 2.0 * products
