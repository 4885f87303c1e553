"""The Vision Transformer and TransFG: parameters, initial values, and the axes of every tap.

The names are the attribute names of both twins' models. Source of the initial values: TransFG's
published program (docs/spec.md).

Letters: B batch, R colours, Z channels that patches are cut from (R, or those of a stem's map),
P patch, N patches, T = N + 1 tokens, D width, K heads, d = D / K, E = K d concatenated heads,
M width of the MLP, J rows of part scores, S selected tokens, Q = 1 + S class token and parts,
U inputs of the classifier, C classes. With a stem, those of `stem.py` as well.

This file is longer than most: placements and selections change several of its tables at once.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from transfg_core.config.model import ModelConfig
from transfg_core.config.vit import VitConfig
from transfg_core.errors import UserError
from transfg_core.models.rows import KEY_BIASES, FeatureMap, ParamSpec, PartGrid, TapSpec, affine
from transfg_core.models.stem import (
    map_sizes,
    stem_axes,
    stem_dims,
    stem_flops,
    stem_orders,
    stem_sizes,
    stem_specs,
    stem_taps,
)

TOKENS = (ParamSpec("cls_token", "1 1 D", "zeros"), ParamSpec("pos_embed", "1 T D", "zeros"))
EMBED = (
    ParamSpec("patch_embed.weight", "D Z P P", "uniform", "Z P P"),
    ParamSpec("patch_embed.bias", "D", "uniform", "Z P P"),
)
BLOCK = (
    ParamSpec("norm1.weight", "D", "ones"),
    ParamSpec("norm1.bias", "D", "zeros"),
    ParamSpec("attn.query.weight", "E D", "uniform", "D"),
    ParamSpec("attn.query.bias", "E", "uniform", "D"),
    ParamSpec("attn.key.weight", "E D", "uniform", "D"),
    ParamSpec("attn.key.bias", "E", "uniform", "D"),
    ParamSpec("attn.value.weight", "E D", "uniform", "D"),
    ParamSpec("attn.value.bias", "E", "uniform", "D"),
    ParamSpec("attn.out.weight", "D E", "uniform", "E"),
    ParamSpec("attn.out.bias", "D", "uniform", "E"),
    ParamSpec("norm2.weight", "D", "ones"),
    ParamSpec("norm2.bias", "D", "zeros"),
    ParamSpec("mlp.fc1.weight", "M D", "xavier"),
    ParamSpec("mlp.fc1.bias", "M", "near_zero"),
    ParamSpec("mlp.fc2.weight", "D M", "xavier"),
    ParamSpec("mlp.fc2.bias", "D", "near_zero"),
)
NORM = (ParamSpec("weight", "D", "ones"), ParamSpec("bias", "D", "zeros"))
HEAD = (ParamSpec("weight", "C U", "uniform", "U"), ParamSpec("bias", "C", "uniform", "U"))

AXES = {
    "B": "batch item",
    "N": "patch",
    "T": "token",
    "Q": "token",
    "D": "channel",
    "E": "channel",
    "M": "channel",
    "U": "channel",
    "K": "head",
    "J": "row of scores",
    "S": "part",
    "C": "class",
} | stem_axes()
SETTINGS = {
    "D": "model.width",
    "E": "model.width",
    "U": "model.width or model.placement (with model.selection, model.top_k and "
    "model.flatten_class_token)",
    "M": "model.mlp",
    "K": "model.heads",
    "d": "model.heads",
    "P": "model.patch",
    "Z": "model.stem",
    "T": "data.crop (with model.patch and model.stride)",
    "C": "model.classes",
} | dict.fromkeys(stem_axes(), "model.stem")
ZERO_GRADIENTS = KEY_BIASES
# a smaller stride resizes the positions; a stem is here because its message is clearer than names
HIDDEN_SETTINGS: Sequence[str] = ("heads", "stem")
CHANNELS = "pos_embed"


def require_vit(model: ModelConfig, task: str) -> VitConfig:
    """The model's section, after a check that it describes a Vision Transformer.

    Raises:
        UserError: it describes another architecture; `task` names what needs a ViT.
    """
    if not isinstance(model, VitConfig):
        raise UserError(f"{task}: expected model.name vit, found {model.name}")
    return model


def grid_size(image_size: tuple[int, int], model: VitConfig) -> tuple[int, int]:
    """Rows and columns of patches: (H, W) -> ((H-P)//S+1, (W-P)//S+1), where S is the stride.

    With a stem, H and W are rows and columns of its map.

    Raises:
        UserError: the image is smaller than one patch.
    """
    height, width = image_size
    least, reason = model.smallest_image
    if min(height, width) < least:
        raise UserError(
            f"image {height} x {width}: expected at least {least} each way ({reason}); "
            "enlarge data.crop or choose a smaller patch"
        )
    if model.stem != "none":
        height, width = map_sizes(model.stem, image_size)[-1]
    return (height - model.patch) // model.stride + 1, (width - model.patch) // model.stride + 1


def part_grid(model: VitConfig, image_size: tuple[int, int]) -> PartGrid:
    """The patches that parts are chosen from; with a stem, the squares of its positions.

    Raises:
        UserError: the image is smaller than one patch.
    """
    step = model.step
    return PartGrid(*grid_size(image_size, model), model.patch * step, model.stride * step)


def feature_map(model: VitConfig, image_size: tuple[int, int]) -> FeatureMap | None:
    """The stem's last map, in the squares of its positions; without a stem there is none."""
    if model.stem == "none":
        return None
    tap = next(reversed(stem_taps(model.stem)))
    return FeatureMap(tap, *map_sizes(model.stem, image_size)[-1], model.step, model.step / 2)


def param_specs(model: VitConfig) -> dict[str, ParamSpec]:
    """Dict: canonical name -> its row, in the model's order."""
    stem = [] if model.stem == "none" else stem_specs(model.stem)
    tables: list[tuple[str, Sequence[ParamSpec]]] = [("", (*TOKENS, *stem, *EMBED))]
    tables += [(f"blocks.{i}.", BLOCK) for i in range(model.encoder_depth)]
    if model.has_part_layer:
        tables += [("part_layer.", BLOCK), ("part_norm.", NORM)]
    else:
        tables.append(("norm.", NORM))
    tables.append(("head.", HEAD))
    return {prefix + spec.name: spec for prefix, table in tables for spec in table}


def dims_of(name: str) -> str:
    """Shape of a parameter in letters, for any Vision Transformer; empty for an unknown name."""
    if name.startswith("stem."):
        return stem_dims(name)
    inner = re.sub(r"^(blocks\.\d+|part_layer)\.", "", name)  # the name within its block
    dims = {spec.name: spec.dims for spec in (*TOKENS, *EMBED, *BLOCK)}
    dims |= {f"{norm}.{spec.name}": spec.dims for norm in ("norm", "part_norm") for spec in NORM}
    dims |= {f"head.{spec.name}": spec.dims for spec in HEAD}
    return dims.get(inner, "")


def sizes(model: VitConfig, image_size: tuple[int, int] | None = None) -> dict[str, int]:
    """Dict: letter -> number; N and T only with an image size, C only if `model.classes` is set.

    Raises:
        UserError: the image is smaller than a patch, or has fewer patches than `model.top_k`.
    """
    numbers = {
        "R": 3,
        "Z": 3,
        "D": model.width,
        "K": model.heads,
        "d": model.width // model.heads,
        "E": model.width,
        "M": model.mlp,
        "P": model.patch,
        "J": model.row_count,
        "S": model.part_count,
        "Q": 1 + model.part_count,
        "U": model.feature_width,
    }
    if model.stem != "none":
        numbers |= stem_sizes(model.stem, image_size)
    if model.classes is not None:
        numbers["C"] = model.classes
    if image_size is not None:
        rows, columns = grid_size(image_size, model)
        if model.selects_parts and rows * columns < model.row_parts:
            raise UserError(
                f"model.top_k {model.row_parts}: expected at most {rows * columns}, the number of "
                f"patches of an image of {image_size[0]} x {image_size[1]} pixels; set a smaller "
                "model.top_k, or enlarge data.crop"
            )
        numbers |= {"N": rows * columns, "T": rows * columns + 1}
    return numbers


def layers(model: VitConfig) -> dict[str, int]:
    """Dict: canonical name -> depth: embedding 0, block i at i + 1, then last norm and head.

    The stem belongs to the embedding. The part layer is the last block: the L-th of L, or one more
    where it is new. Source: BEiT (arXiv 2106.08254), whose program has these layers; ELECTRA (arXiv
    2003.10555) has the idea.
    """
    first = ("cls_token", "pos_embed", "patch_embed", "stem")
    last = model.encoder_depth + int(model.has_part_layer)

    def layer(name: str) -> int:
        module, _, rest = name.partition(".")
        if module == "blocks":
            return int(rest.partition(".")[0]) + 1
        if module == "part_layer":
            return last
        return 0 if module in first else last + 1

    return {name: layer(name) for name in param_specs(model)}


def taps(model: VitConfig) -> dict[str, TapSpec]:
    """Dict: tap -> its row, in the order of the forward pass."""
    rows = {} if model.stem == "none" else stem_taps(model.stem)
    source = next(reversed(rows), "images")
    rows |= {
        "patch_embed": TapSpec(
            "B N D", "convolution", (source,), affine("patch_embed"), model.stride
        ),
        "tokens": TapSpec("B T D", "tokens", ("patch_embed",), ("cls_token", "pos_embed")),
        "embed": TapSpec("B T D", "dropout", ("tokens",)),
    }
    last = "embed"
    for depth in range(model.encoder_depth):
        block = f"block{depth:02d}"
        rows |= block_taps(block, last, f"blocks.{depth}", "T")
        last = block
    tokens = "T"
    if model.selects_parts:
        rows |= selection_taps(model)
        last, tokens = "part_tokens", "Q"
    if model.has_part_layer:
        rows |= block_taps("part_layer", last, "part_layer", tokens)
        last = "part_layer"
    norm = "part_norm" if model.has_part_layer else "norm"
    rows[norm] = TapSpec(f"B {tokens} D", "layer_norm", (last,), affine(norm))
    pool = "class token"
    if model.placement == "flatten":
        pool = "all tokens" if model.flatten_class_token else "parts"
    rows["features"] = TapSpec("B U", pool, (norm, last))
    rows["logits"] = TapSpec("B C", "linear", ("features",), affine("head"))
    return rows


def block_taps(block: str, source: str, module: str, tokens: str) -> dict[str, TapSpec]:
    """The taps of one encoder block over T or Q tokens; the block's output is the last."""
    wide, heads, hidden = f"B {tokens} D", f"B {tokens} E", f"B {tokens} M"

    def rows() -> Iterator[tuple[str, TapSpec]]:
        yield "norm1", TapSpec(wide, "layer_norm", (source,), affine(f"{module}.norm1"))
        for name in ("query", "key", "value"):
            params = affine(f"{module}.attn.{name}")
            yield f"attn.{name}", TapSpec(heads, "linear", (f"{block}.norm1",), params)
        inputs = tuple(f"{block}.attn.{name}" for name in ("query", "key", "value"))
        yield "attn.mix", TapSpec(heads, "attention", inputs)
        yield (
            "attn.out",
            TapSpec(wide, "linear", (f"{block}.attn.mix",), affine(f"{module}.attn.out")),
        )
        yield "mid", TapSpec(wide, "residual", (source, f"{block}.attn.out", f"{block}.norm1"))
        yield "norm2", TapSpec(wide, "layer_norm", (f"{block}.mid",), affine(f"{module}.norm2"))
        yield "mlp.fc1", TapSpec(hidden, "linear", (f"{block}.norm2",), affine(f"{module}.mlp.fc1"))
        yield "mlp.gelu", TapSpec(hidden, "gelu", (f"{block}.mlp.fc1",))
        yield "mlp.hidden", TapSpec(hidden, "dropout", (f"{block}.mlp.gelu",))
        yield (
            "mlp.fc2",
            TapSpec(wide, "linear", (f"{block}.mlp.hidden",), affine(f"{module}.mlp.fc2")),
        )
        yield "mlp.out", TapSpec(wide, "dropout", (f"{block}.mlp.fc2",))

    inner = {f"{block}.{name}": tap for name, tap in rows()}
    inputs = (f"{block}.mid", f"{block}.mlp.out", f"{block}.norm2", source)
    return inner | {block: TapSpec(wide, "residual", inputs)}


def selection_taps(model: VitConfig) -> dict[str, TapSpec]:
    """The taps of part selection after the encoder; only the tokens have a gradient."""
    rows = {}
    blocks = [f"block{depth:02d}" for depth in range(model.encoder_depth)]
    # a head's row of scores selects one token, so heads may change places
    row, part = ("K", "K") if model.selection == "fused" else ("J", "S")
    if model.selection == "fused" and model.fusion == "matmul":
        for block in reversed(blocks[1:]):
            name = f"part_row{block.removeprefix('block')}"
            rows[name] = TapSpec("B K T", "fused row", stage="selection")
    if model.draws_parts:
        pass  # they come from outside, without scores
    elif model.selection == "cls_similarity":
        rows["part_scores"] = TapSpec(
            f"B {row} N", "class similarity", (blocks[-1],), stage="selection"
        )
    else:
        rows["part_scores"] = TapSpec(f"B {row} N", "scores", stage="selection")
    rows["part_index"] = TapSpec(
        f"B {part}", "choice", () if model.draws_parts else ("part_scores",), stage="selection"
    )
    sources = blocks if model.selection == "maws" else blocks[-1:]
    rows["part_tokens"] = TapSpec("B Q D", "gather", (*sources, "part_index"))
    return rows


def orders(model: VitConfig, rng: np.random.Generator) -> dict[str, NDArray[np.intp]]:
    """A random permutation of each axis whose order changes no result."""
    heads = rng.permutation(model.heads)
    inner = rng.permutation(model.width // model.heads)
    colours = rng.permutation(3)
    orders = {
        "R": colours,
        "Z": colours,
        "D": rng.permutation(model.width),
        "K": heads,
        "E": (heads[:, None] * len(inner) + inner).reshape(-1),
        "M": rng.permutation(model.mlp),
    }
    # parts follow their heads; those of other selections have an order of their own
    parts = heads if model.selection == "fused" else np.arange(model.part_count)
    orders["Q"] = np.concatenate([[0], parts + 1])
    orders["U"] = orders["D"]
    if model.placement == "flatten":
        tokens = orders["Q"] if model.flatten_class_token else parts
        orders["U"] = (tokens[:, None] * model.width + orders["D"]).reshape(-1)
    return orders if model.stem == "none" else orders | stem_orders(model.stem, rng)


def block_flops(queries: int, model: VitConfig) -> float:
    """Floating-point operations of one encoder block with `queries` tokens."""
    linear = 4 * model.width * model.width + 2 * model.width * model.mlp
    return 2.0 * queries * linear + 4.0 * queries * queries * model.width


def forward_flops(model: VitConfig, image_size: tuple[int, int]) -> float:
    """Floating-point operations of one image's forward pass, without part selection.

    A matmul of (m, k) and (k, n) counts 2 m k n; norms, softmax, GELU and additions do not count
    (Chowdhery et al. 2022, arXiv 2204.02311, appendix B).
    """
    rows, columns = grid_size(image_size, model)
    patches = rows * columns
    embed = 2.0 * patches * sizes(model)["Z"] * model.patch**2 * model.width
    embed += stem_flops(model.stem, image_size) if model.stem != "none" else 0.0
    head = 2.0 * model.feature_width * model.class_count
    blocks = model.encoder_depth * block_flops(patches + 1, model)
    if model.has_part_layer:
        blocks += block_flops(1 + model.part_count, model)
    return embed + blocks + head


def selection_flops(model: VitConfig, image_size: tuple[int, int]) -> float:
    """Floating-point operations of the selection `fused` by `matmul` for one image."""
    rows, columns = grid_size(image_size, model)
    tokens = rows * columns + 1
    return (model.encoder_depth - 1) * 2.0 * tokens * tokens * (model.width + model.heads)
