"""The small convolutional classifier: parameters, initial values, and the axes of every tap.

Two convolutions without padding, each with ReLU; the mean over positions; a linear classifier.
Initial values are PyTorch's defaults for `nn.Conv2d` and `nn.Linear`: uniform in ±1/√(inputs).

Letters: B batch, R colours, X kernel, C classes; F, H, W channels, rows and columns of the first
convolution's output, G, h, w those of the second's.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from transfg_core.config.convnet import ConvNetConfig
from transfg_core.errors import UserError
from transfg_core.models.rows import FeatureMap, ParamSpec, TapSpec, affine

SPECS = (
    ParamSpec("conv1.weight", "F R X X", "uniform", "R X X"),
    ParamSpec("conv1.bias", "F", "uniform", "R X X"),
    ParamSpec("conv2.weight", "G F X X", "uniform", "F X X"),
    ParamSpec("conv2.bias", "G", "uniform", "F X X"),
    ParamSpec("head.weight", "C G", "uniform", "G"),
    ParamSpec("head.bias", "C", "uniform", "G"),
)
AXES = {
    "B": "batch item",
    "F": "channel",
    "G": "channel",
    "H": "row",
    "W": "column",
    "h": "row",
    "w": "column",
    "C": "class",
}
SETTINGS = {
    "F": "model.width",
    "G": "model.width2",
    "X": "model.kernel",
    "C": "model.classes",
}
ZERO_GRADIENTS: dict[str, str] = {}
HIDDEN_SETTINGS: Sequence[str] = ("stride",)
CHANNELS = "conv1.bias"


def map_sizes(image_size: tuple[int, int], model: ConvNetConfig) -> tuple[tuple[int, int], ...]:
    """Rows and columns after each convolution, from the image's (height, width).

    Raises:
        UserError: the image is too small for the second kernel.
    """
    maps = []
    size = image_size
    for _ in range(2):
        if min(size) < model.kernel:
            raise UserError(
                f"image {image_size[0]} x {image_size[1]}: expected at least "
                f"{model.smallest_image[0]} each way; enlarge data.crop or choose a smaller "
                "model.kernel"
            )
        rows, columns = ((side - model.kernel) // model.stride + 1 for side in size)
        size = (rows, columns)
        maps.append(size)
    return tuple(maps)


def feature_map(model: ConvNetConfig, image_size: tuple[int, int]) -> FeatureMap:
    """The map behind the second ReLU; without padding, its first region begins at pixel 0."""
    region = model.kernel + (model.kernel - 1) * model.stride
    size = map_sizes(image_size, model)[-1]
    return FeatureMap("relu2", *size, model.stride**2, region / 2)


def param_specs(model: ConvNetConfig) -> dict[str, ParamSpec]:
    """Dict: canonical name -> its row, in the model's order."""
    return {spec.name: spec for spec in SPECS}


def dims_of(name: str) -> str:
    """Shape of a parameter in letters; empty for an unknown name."""
    return next((spec.dims for spec in SPECS if spec.name == name), "")


def sizes(model: ConvNetConfig, image_size: tuple[int, int] | None = None) -> dict[str, int]:
    """Dict: letter -> number; H, W, h, w only with an image size, C only with `model.classes`."""
    numbers = {"R": 3, "X": model.kernel, "F": model.width, "G": model.width2}
    if model.classes is not None:
        numbers["C"] = model.classes
    if image_size is not None:
        first, second = map_sizes(image_size, model)
        numbers |= dict(zip("HWhw", (*first, *second), strict=True))
    return numbers


def layers(model: ConvNetConfig) -> dict[str, int]:
    """Dict: canonical name -> depth: the convolutions 0 and 1, the head 2."""
    depths = {"conv1": 0, "conv2": 1, "head": 2}
    return {spec.name: depths[spec.name.partition(".")[0]] for spec in SPECS}


def taps(model: ConvNetConfig) -> dict[str, TapSpec]:
    """Dict: tap -> its row, in the order of the forward pass."""
    first, second = "B F H W", "B G h w"
    return {
        "conv1": TapSpec(first, "convolution", ("images",), affine("conv1"), model.stride),
        "relu1": TapSpec(first, "relu", ("conv1",)),
        "conv2": TapSpec(second, "convolution", ("relu1",), affine("conv2"), model.stride),
        "relu2": TapSpec(second, "relu", ("conv2",)),
        "pool": TapSpec("B G", "mean over positions", ("relu2",)),
        "features": TapSpec("B G", "dropout", ("pool",)),
        "logits": TapSpec("B C", "linear", ("features",), affine("head")),
    }


def orders(model: ConvNetConfig, rng: np.random.Generator) -> dict[str, NDArray[np.intp]]:
    """A random permutation of each axis whose order changes no result."""
    counts = {"R": 3, "F": model.width, "G": model.width2}
    return {letter: rng.permutation(count) for letter, count in counts.items()}


def forward_flops(model: ConvNetConfig, image_size: tuple[int, int]) -> float:
    """Floating-point operations of one image's forward pass; ReLU and the mean do not count."""
    first, second = map_sizes(image_size, model)
    kernel = 2.0 * model.kernel**2
    conv1 = first[0] * first[1] * kernel * 3 * model.width
    conv2 = second[0] * second[1] * kernel * model.width * model.width2
    return conv1 + conv2 + 2.0 * model.width2 * model.class_count
