"""What timm and torchvision can hold of a model, and its parameters under their names and back."""

from collections.abc import Mapping

import numpy as np

from transfg_core.backend import Array, Arrays
from transfg_core.checkpoints.forms import Form, write_form
from transfg_core.checkpoints.known import HYBRIDS
from transfg_core.checkpoints.naming import (
    TIMM_SWIN,
    TORCHVISION_RESNET,
    TORCHVISION_SWIN,
    Naming,
)
from transfg_core.checkpoints.renamed import write_naming
from transfg_core.checkpoints.tables import TIMM, TORCHVISION
from transfg_core.checkpoints.weight_file import FLOATS, WeightFile
from transfg_core.config.model import ModelConfig
from transfg_core.config.resnet import ResNetConfig
from transfg_core.config.swin import SwinConfig
from transfg_core.config.vit import VitConfig
from transfg_core.errors import UserError
from transfg_core.models.rows import Shape
from transfg_core.models.swin import windows_of
from transfg_core.params.merge import refuse

# program -> model.name -> its table
PROGRAMS: dict[str, dict[str, Form | Naming]] = {
    "timm": {"vit": TIMM, "resnet": TORCHVISION_RESNET, "swin": TIMM_SWIN},
    "torchvision": {"vit": TORCHVISION, "resnet": TORCHVISION_RESNET, "swin": TORCHVISION_SWIN},
}


def table_of(program: str, model: ModelConfig) -> Form | Naming:
    """The names that a program gives this architecture.

    Raises:
        UserError: the program has no such model.
    """
    tables = PROGRAMS[program]
    if model.name not in tables:
        raise UserError(
            f"{program}: expected model.name {', '.join(tables)}, found {model.name}, which "
            f"{program} does not have"
        )
    return tables[model.name]


def named_as(program: str, values: Mapping[str, Array], model: ModelConfig) -> Arrays:
    """Dict: the program's name -> array; `values` has canonical names and the model's shapes.

    Raises:
        UserError: the program has no such model.
    """
    table = table_of(program, model)
    if isinstance(table, Naming):
        return write_naming(table, values)
    assert isinstance(model, VitConfig)
    return write_form(table, values, model)


Layout = Mapping[str, tuple[str, ...]]  # key of a file -> the parameters that it stacks on axis 0


def timm_layout(model: ModelConfig, shapes: Mapping[str, Shape]) -> Layout:
    """Which parameters each array of `named_as("timm", ...)` holds.

    Raises:
        UserError: timm has no such model.
    """
    table = table_of("timm", model)
    if isinstance(table, Naming):
        parts: dict[str, dict[int, str]] = {}
        for name, place in table.places(shapes).items():
            parts.setdefault(place.key, {})[place.part] = name
        return {key: tuple(names[i] for i in sorted(names)) for key, names in parts.items()}
    assert isinstance(model, VitConfig)
    steps = [step for step in table.expand(model, model.depth) if step.names]
    return {step.key: step.names for step in steps if step.names[0] in shapes}


def read_layout(file: WeightFile, layout: Layout, shapes: Mapping[str, Shape]) -> Arrays:
    """The parameters in a file of exactly this layout; shapes are compared before arrays are read.

    Raises:
        UserError: names, shapes or types differ; lists every problem.
    """
    headers = file.headers()
    expected = {
        key: (sum(shapes[name][0] for name in names), *shapes[names[0]][1:])
        for key, names in layout.items()
    }
    lines = [f"{key}: missing, expected {expected[key]}" for key in expected if key not in headers]
    lines += [
        f"{key}: expected {shape}, found {headers[key].shape}"
        for key, shape in expected.items()
        if key in headers and headers[key].shape != shape
    ]
    lines += [f"{key}: unexpected, the model has no such array" for key in headers.keys() - layout]
    lines += [
        f"{key}: expected floating-point numbers, found {headers[key].dtype}"
        for key in expected
        if key in headers and headers[key].dtype not in FLOATS
    ]
    refuse(file.path, lines)
    arrays: Arrays = {}
    for key, names in layout.items():
        ends = np.cumsum([shapes[name][0] for name in names])[:-1]
        arrays |= zip(names, np.split(file.read(key), ends), strict=True)
    return arrays


def misfits(program: str, model: ModelConfig, image_size: tuple[int, int]) -> list[str]:
    """Why a program cannot hold a model of its architecture: a line for each setting.

    Raises:
        UserError: the program has no such architecture.
    """
    table_of(program, model)
    if isinstance(model, VitConfig):
        return _misfits_of_vit(program, model, image_size)
    if isinstance(model, SwinConfig):
        return _other_windows(program, model, image_size)
    assert isinstance(model, ResNetConfig)
    lines = []
    if model.width != 64:  # the programs fix the channels of the first stage
        lines.append(f"expected model.width 64, found {model.width}; leave it out")
    if len(model.blocks) != 4:
        lines.append(f"expected four stages in model.blocks, found {len(model.blocks)}")
    return lines


def _misfits_of_vit(program: str, model: VitConfig, image_size: tuple[int, int]) -> list[str]:
    lines = []
    if model.placement != "none":
        lines.append(f"expected model.placement none, found {model.placement}")
    if model.stride != model.patch:
        lines.append(f"expected model.stride {model.patch} (no overlap), found {model.stride}")
    if program == "torchvision" and image_size[0] != image_size[1]:
        lines.append(f"expected a square data.crop, found {list(image_size)}")
    if model.stem != "none" and (program == "torchvision" or model.stem not in HYBRIDS):
        lines.append(f"expected model.stem none or a published one of timm, found {model.stem}")
    return lines


def _other_windows(program: str, model: SwinConfig, image_size: tuple[int, int]) -> list[str]:
    """A line for each stage on whose map the program's windows are others than this project's.

    A window is clipped here to a smaller map, which torchvision pads, and for which timm has a
    smaller bias table. timm shifts a map before it pads it, and here it is padded first.
    """
    problems = []
    for stage, depth in enumerate(model.depths):
        last = windows_of(model, image_size, stage, min(depth, 2) - 1)  # shifted, if any block is
        size = (last.rows, last.columns)
        if last.sides != (model.window, model.window):
            expected = f"at least model.window {model.window} each way"
        elif program == "timm" and any(
            step and padded != side
            for step, padded, side in zip(last.shift, last.padded, size, strict=True)
        ):
            expected = f"multiples of model.window {model.window}, where windows are shifted"
        else:
            continue
        problems.append(
            f"data.crop {list(image_size)}: in stage {stage + 1} expected {expected}, "
            f"found {size[0]} x {size[1]} positions"
        )
    return problems
