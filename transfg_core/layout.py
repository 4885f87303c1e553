"""Layout of the model's parameters: canonical names, shapes and how each one starts.

The names are the attribute names of both twins' models. Source of the initialisation: TransFG's
published program (docs/architecture.md).

Letters: D width, K heads, d = D / K, M width of the MLP, P patch, S stride, T tokens, C classes.
"""

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

from transfg_core.config import ModelConfig
from transfg_core.errors import UserError

Shape = tuple[int, ...]


class Spec(NamedTuple):
    """One parameter: its shape in letters and how it starts; fan_in bounds `uniform`."""

    name: str
    dims: str
    init: Literal["zeros", "ones", "uniform", "xavier", "near_zero"]
    fan_in: str = ""


STEM = (
    Spec("cls_token", "1 1 D", "zeros"),
    Spec("pos_embed", "1 T D", "zeros"),
    Spec("patch_embed.weight", "D 3 P P", "uniform", "3 P P"),
    Spec("patch_embed.bias", "D", "uniform", "3 P P"),
)
BLOCK = (
    Spec("norm1.weight", "D", "ones"),
    Spec("norm1.bias", "D", "zeros"),
    Spec("attn.query.weight", "D D", "uniform", "D"),
    Spec("attn.query.bias", "D", "uniform", "D"),
    Spec("attn.key.weight", "D D", "uniform", "D"),
    Spec("attn.key.bias", "D", "uniform", "D"),
    Spec("attn.value.weight", "D D", "uniform", "D"),
    Spec("attn.value.bias", "D", "uniform", "D"),
    Spec("attn.out.weight", "D D", "uniform", "D"),
    Spec("attn.out.bias", "D", "uniform", "D"),
    Spec("norm2.weight", "D", "ones"),
    Spec("norm2.bias", "D", "zeros"),
    Spec("mlp.fc1.weight", "M D", "xavier"),
    Spec("mlp.fc1.bias", "M", "near_zero"),
    Spec("mlp.fc2.weight", "D M", "xavier"),
    Spec("mlp.fc2.bias", "D", "near_zero"),
)
NORM = (Spec("weight", "D", "ones"), Spec("bias", "D", "zeros"))
HEAD = (Spec("weight", "C D", "uniform", "D"), Spec("bias", "C", "uniform", "D"))

# What to look at when a dimension does not fit.
SETTINGS = {
    "D": "model.width",
    "M": "model.mlp",
    "K": "model.heads",
    "d": "model.heads",
    "P": "model.patch",
    "T": "data.crop (with model.patch and model.stride)",
    "C": "model.classes",
}


def grid_size(image_size: tuple[int, int], model: ModelConfig) -> tuple[int, int]:
    """Rows and columns of patches: (H, W) -> ((H-P)//S+1, (W-P)//S+1).

    Raises:
        UserError: the image is smaller than one patch.
    """
    assert model.stride
    height, width = image_size
    if min(height, width) < model.patch:
        raise UserError(
            f"image {height} x {width}: expected at least model.patch {model.patch} each way; "
            "enlarge data.crop or choose a smaller patch"
        )
    return (height - model.patch) // model.stride + 1, (width - model.patch) // model.stride + 1


def param_specs(model: ModelConfig) -> dict[str, Spec]:
    """Canonical name -> its row, in the model's order; `model.classes` may be open."""
    assert model.depth
    tables: list[tuple[str, tuple[Spec, ...]]] = [("", STEM)]
    if model.placement == "transfg":
        tables += [(f"blocks.{i}.", BLOCK) for i in range(model.depth - 1)]
        tables += [("part_layer.", BLOCK), ("part_norm.", NORM)]
    else:
        tables += [(f"blocks.{i}.", BLOCK) for i in range(model.depth)]
        tables += [("norm.", NORM)]
    tables.append(("head.", HEAD))
    return {prefix + spec.name: spec for prefix, table in tables for spec in table}


def dim_sizes(model: ModelConfig) -> dict[str, int]:
    """Letter -> number for all but T, which takes an image; no C where `model.classes` is open."""
    assert model.width and model.heads
    sizes = {
        "D": model.width,
        "K": model.heads,
        "d": model.width // model.heads,
        "M": model.mlp,
        "P": model.patch,
        "C": model.classes,
    }
    return {letter: size for letter, size in sizes.items() if size is not None}


def resolve(dims: str, sizes: Mapping[str, int]) -> Shape:
    """Letters and digits as numbers: "D 3 P P" -> (768, 3, 16, 16)."""
    return tuple(int(dim) if dim.isdigit() else sizes[dim] for dim in dims.split())


def param_shapes(model: ModelConfig, image_size: tuple[int, int]) -> dict[str, Shape]:
    """Canonical name -> shape, in the model's order; `model.classes` must be set."""
    assert model.classes is not None, "model.classes is open: fill it in from the data set"
    rows, columns = grid_size(image_size, model)
    sizes = dim_sizes(model) | {"T": rows * columns + 1}
    return {name: resolve(spec.dims, sizes) for name, spec in param_specs(model).items()}


def dims_of(name: str) -> str:
    """Shape in letters of a canonical name of any model, or nothing."""
    inner = re.sub(r"^(blocks\.\d+|part_layer)\.", "", name)
    known = {spec.name: spec.dims for spec in (*STEM, *BLOCK)}
    known |= {f"{norm}.{spec.name}": spec.dims for norm in ("norm", "part_norm") for spec in NORM}
    known |= {f"head.{spec.name}": spec.dims for spec in HEAD}
    return known.get(inner, "")


def suspects(dims: str, expected: Shape, found: Shape) -> str:
    """The settings behind the dimensions that differ, as `; is model.width right?`."""
    letters = dims.split()
    if not len(letters) == len(expected) == len(found):
        return ""
    differing = [a for a, b, c in zip(letters, expected, found, strict=True) if b != c]
    names = list(dict.fromkeys(SETTINGS[a] for a in differing if a in SETTINGS))
    verb = "are" if len(names) > 1 else "is"
    return f"; {verb} {' and '.join(names)} right?" if names else ""
