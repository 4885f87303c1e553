"""Parameter names of TransFG's published program, and the architecture that its checkpoints show.

Source: the authors' program (He et al. 2022). Its names map one to one to the canonical names;
shapes are equal. `transfg_torch.foreign.authors` reads the files, which need PyTorch.
"""

import difflib
import re
from collections.abc import Mapping
from typing import NamedTuple

from transfg_core.backend import Array, Arrays
from transfg_core.config.vit import SIZES
from transfg_core.errors import UserError
from transfg_core.params.merge import as_float, refuse
from transfg_core.params.positions import square_side

# (published name, canonical name) of modules outside the blocks, of blocks, of modules in a block.
MODULES = (
    ("transformer.embeddings.patch_embeddings", "patch_embed"),
    ("transformer.encoder.part_norm", "part_norm"),
    ("part_head", "head"),
)
BLOCKS = (
    ("transformer.encoder.layer.{i}", "blocks.{i}"),
    ("transformer.encoder.part_layer", "part_layer"),
)
INNER = (
    ("attention_norm", "norm1"),
    ("attn.query", "attn.query"),
    ("attn.key", "attn.key"),
    ("attn.value", "attn.value"),
    ("attn.out", "attn.out"),
    ("ffn_norm", "norm2"),
    ("ffn.fc1", "mlp.fc1"),
    ("ffn.fc2", "mlp.fc2"),
)
NAMES = (
    ("transformer.embeddings.cls_token", "cls_token"),
    ("transformer.embeddings.position_embeddings", "pos_embed"),
    *((f"{old}.{leaf}", f"{new}.{leaf}") for old, new in MODULES for leaf in ("weight", "bias")),
    *(
        (f"{old}.{old_inner}.{leaf}", f"{new}.{new_inner}.{leaf}")
        for old, new in BLOCKS
        for old_inner, new_inner in INNER
        for leaf in ("weight", "bias")
    ),
)
TO_CANONICAL = dict(NAMES)
assert len(TO_CANONICAL) == len(set(TO_CANONICAL.values())) == len(NAMES)
NUMBER = re.compile(r"(?<=\.)(0|[1-9]\d*)(?=\.)")  # a block's number, without leading zeros


class Dimensions(NamedTuple):
    """The dimensions that shapes show: all but the heads, the stride and the image size."""

    width: int
    depth: int
    mlp: int
    patch: int
    classes: int
    tokens: int

    def describe(self) -> str:
        """The matching settings of `model`, as lines for the user."""
        dimensions = {name: (size[0], size[2], size[3]) for name, size in SIZES.items()}
        own = (self.width, self.depth, self.mlp)
        size = next((name for name, known in dimensions.items() if known == own), None)
        heads = f"heads {SIZES[size][1]} (size {size})" if size else "heads: not in the file"
        side = square_side(self.tokens)
        grid = f", {side} x {side} if square" if side else ""
        return (
            f"placement transfg, width {self.width}, depth {self.depth}, mlp {self.mlp}, "
            f"patch {self.patch}, classes {self.classes}, {heads}\n"
            f"{self.tokens - 1} patches{grid}: choose data.crop and model.stride to match"
        )


def to_canonical(name: str) -> str:
    """`transformer.encoder.layer.3.ffn.fc1.bias` -> `blocks.3.mlp.fc1.bias`.

    Raises:
        UserError: the published program has no such name; the message gives the nearest one.
    """
    number = NUMBER.search(name)
    pattern = NUMBER.sub("{i}", name, count=1)
    if pattern in TO_CANONICAL and "{i}" not in name:
        return TO_CANONICAL[pattern].replace("{i}", number[0] if number else "")
    near = difflib.get_close_matches(pattern, TO_CANONICAL, n=1, cutoff=0.0)
    example = near[0].replace("{i}", number[0] if number else "0")
    raise UserError(f"{name}: unknown to the published program; the nearest name is {example}")


def convert_arrays(arrays: Mapping[str, Array]) -> Arrays:
    """The arrays under canonical names, as C-contiguous float32; shapes stay.

    Raises:
        UserError: lists every unknown name.
    """
    converted, problems = {}, []
    for name, array in arrays.items():
        try:
            converted[to_canonical(name)] = as_float(array)
        except UserError as error:
            problems.append(str(error))
    refuse("published checkpoint", problems)
    return converted


def infer_architecture(shapes: Mapping[str, tuple[int, ...]]) -> Dimensions:
    """Infer the architecture from canonical names and shapes.

    Raises:
        UserError: a necessary array is missing, or its number of axes is wrong.
    """
    blocks = {int(match[0]) for name in shapes if (match := NUMBER.search(name))}
    sources = (
        ("patch_embed.weight", 0, 4),
        ("part_layer.mlp.fc1.weight", 0, 2),
        ("patch_embed.weight", 2, 4),
        ("head.weight", 0, 2),
        ("pos_embed", 1, 3),
    )
    wrong = [
        f"{name}: expected {axes} axes, found {shapes.get(name, 'no such array')}"
        for name, _, axes in sources
        if len(shapes.get(name, ())) != axes
    ]
    refuse("published checkpoint", list(dict.fromkeys(wrong)))
    width, mlp, patch, classes, tokens = (shapes[name][axis] for name, axis, _ in sources)
    return Dimensions(width, max(blocks, default=-1) + 2, mlp, patch, classes, tokens)
