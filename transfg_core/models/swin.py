"""The Swin Transformer: parameters, initial values, and the axes of every tap.

Source: Liu et al. 2021 (arXiv 2103.14030); the initial values are those of its published program.

Letters: B batch, R colours, P patch, W rows of the bias table, C classes. The others end with the
index of their stage, from 0: D width, T tokens, U tokens after padding to whole windows, K heads, E
concatenated heads (as wide as D), M width of the MLP, G four merged patches (4 D). This file is
longer than most, because it has the tables of blocks, mergings and four stages.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from transfg_core.config.swin import SwinConfig
from transfg_core.errors import UserError
from transfg_core.models.rows import KEY_BIASES, FeatureMap, ParamSpec, TapSpec, affine
from transfg_core.models.windows import Windows

STAGES = range(4)
NORM_EPS = 1e-5  # the published program; the default of both frameworks
STEM = (
    ParamSpec("patch_embed.weight", "D0 R P P", "uniform", "R P P"),
    ParamSpec("patch_embed.bias", "D0", "uniform", "R P P"),
    ParamSpec("patch_norm.weight", "D0", "ones"),
    ParamSpec("patch_norm.bias", "D0", "zeros"),
)
BLOCK = (
    ParamSpec("norm1.weight", "D", "ones"),
    ParamSpec("norm1.bias", "D", "zeros"),
    ParamSpec("attn.bias_table", "W K", "normal"),
    ParamSpec("attn.query.weight", "E D", "normal"),
    ParamSpec("attn.query.bias", "E", "zeros"),
    ParamSpec("attn.key.weight", "E D", "normal"),
    ParamSpec("attn.key.bias", "E", "zeros"),
    ParamSpec("attn.value.weight", "E D", "normal"),
    ParamSpec("attn.value.bias", "E", "zeros"),
    ParamSpec("attn.out.weight", "D E", "normal"),
    ParamSpec("attn.out.bias", "D", "zeros"),
    ParamSpec("norm2.weight", "D", "ones"),
    ParamSpec("norm2.bias", "D", "zeros"),
    ParamSpec("mlp.fc1.weight", "M D", "normal"),
    ParamSpec("mlp.fc1.bias", "M", "zeros"),
    ParamSpec("mlp.fc2.weight", "D M", "normal"),
    ParamSpec("mlp.fc2.bias", "D", "zeros"),
)
MERGING = (
    ParamSpec("norm.weight", "G", "ones"),
    ParamSpec("norm.bias", "G", "zeros"),
    ParamSpec("reduction.weight", "N G", "normal"),  # N: the next stage's width
)
LAST = (
    ParamSpec("norm.weight", "D3", "ones"),
    ParamSpec("norm.bias", "D3", "zeros"),
    ParamSpec("head.weight", "C D3", "normal"),
    ParamSpec("head.bias", "C", "zeros"),
)

WORDS = {"T": "token", "U": "token", "D": "channel", "E": "channel", "M": "channel", "K": "head"}
AXES = {"B": "batch item", "C": "class"} | {
    f"{letter}{stage}": word
    for stage in STAGES
    for letter, word in (WORDS | {"G": "channel"}).items()
}
SETTINGS = {"P": "model.patch", "W": "model.window", "C": "model.classes"} | {
    f"{letter}{stage}": setting
    for stage in STAGES
    for letter, setting in {
        "D": "model.width",
        "E": "model.width",
        "G": "model.width",
        "K": "model.heads",
        "M": "model.mlp_ratio",
    }.items()
}
ZERO_GRADIENTS = KEY_BIASES
HIDDEN_SETTINGS: Sequence[str] = ()  # tables show heads and window, everything else has its shape
CHANNELS = "patch_norm.bias"


def map_sizes(image_size: tuple[int, int], model: SwinConfig) -> list[tuple[int, int]]:
    """Rows and columns of each stage's map: patches, then half of the stage before, rounded up.

    Raises:
        UserError: the image is smaller than one patch.
    """
    height, width = image_size
    if min(image_size) < model.patch:
        raise UserError(
            f"image {height} x {width}: expected at least model.patch {model.patch} each way; "
            "enlarge data.crop or choose a smaller patch"
        )
    rows, columns = height // model.patch, width // model.patch
    return [(-(-rows // 2**stage), -(-columns // 2**stage)) for stage in STAGES]


def feature_map(model: SwinConfig, image_size: tuple[int, int], tap: str = "norm") -> FeatureMap:
    """The last stage's map behind the norm, whose mean the classifier reads."""
    side = model.patch * 2 ** STAGES[-1]
    return FeatureMap(tap, *map_sizes(image_size, model)[-1], side, side / 2)


def norm(axes: str, source: str, module: str) -> TapSpec:
    """The tap of a layer norm."""
    return TapSpec(axes, "layer_norm", (source,), affine(module), eps=NORM_EPS)


def windows_of(model: SwinConfig, image_size: tuple[int, int], stage: int, block: int) -> Windows:
    """The windows of a block of a stage, both counted from 0; every second block shifts them."""
    return Windows(*map_sizes(image_size, model)[stage], model.window, shifted=block % 2 == 1)


def in_stage(dims: str, stage: int) -> str:
    """Letters of the tables above as those of a stage: "M D" -> "M2 D2", "N G" -> "D3 G2"."""
    letters = [
        f"D{stage + 1}" if x == "N" else x if x == "W" else f"{x}{stage}" for x in dims.split()
    ]
    return " ".join(letters)


def param_specs(model: SwinConfig) -> dict[str, ParamSpec]:
    """Dict: canonical name -> its row, in the model's order."""

    def tables() -> Iterator[ParamSpec]:
        yield from STEM
        for stage, depth in enumerate(model.depths):
            for prefix, table in (
                *((f"stages.{stage}.blocks.{block}.", BLOCK) for block in range(depth)),
                (f"stages.{stage}.merging.", MERGING if stage < STAGES[-1] else ()),
            ):
                for spec in table:
                    yield spec._replace(name=prefix + spec.name, dims=in_stage(spec.dims, stage))
        yield from LAST

    return {spec.name: spec for spec in tables()}


def dims_of(name: str) -> str:
    """Shape of a parameter in letters, for any Swin Transformer; empty for an unknown name."""
    match = re.fullmatch(r"stages\.([0-3])\.(?:(blocks)\.\d+|merging)\.(.+)", name)
    if match is None:
        return next((spec.dims for spec in (*STEM, *LAST) if spec.name == name), "")
    stage, table = int(match[1]), BLOCK if match[2] else MERGING
    if table is MERGING and stage == STAGES[-1]:
        return ""
    return next((in_stage(spec.dims, stage) for spec in table if spec.name == match[3]), "")


def sizes(model: SwinConfig, image_size: tuple[int, int] | None = None) -> dict[str, int]:
    """Dict: letter -> number; T and U only with an image size, C only if `model.classes` is set."""
    numbers = {"R": 3, "P": model.patch, "W": (2 * model.window - 1) ** 2}
    for stage in STAGES:
        width = model.width * 2**stage
        numbers |= {f"{letter}{stage}": width for letter in "DE"}
        numbers |= {f"K{stage}": model.heads[stage], f"M{stage}": width * model.mlp_ratio}
        numbers |= {f"G{stage}": 4 * width}
    if model.classes is not None:
        numbers["C"] = model.classes
    if image_size is not None:
        for stage, (rows, columns) in enumerate(map_sizes(image_size, model)):
            padded = windows_of(model, image_size, stage, 0).padded
            numbers |= {f"T{stage}": rows * columns, f"U{stage}": padded[0] * padded[1]}
    return numbers


def layers(model: SwinConfig) -> dict[str, int]:
    """Dict: canonical name -> depth: embedding 0, the blocks in order, last norm and head.

    The merging of a stage belongs to its last block. Source: SimMIM's fine-tuning of Swin (Xie et
    al. 2022, arXiv 2111.09886), as in the published program.
    """
    first = [1 + sum(model.depths[:stage]) for stage in STAGES]

    def layer(name: str) -> int:
        parts = name.split(".")
        if parts[0] == "stages":
            stage = int(parts[1])
            block = int(parts[3]) if parts[2] == "blocks" else model.depths[stage] - 1
            return first[stage] + block
        return 0 if parts[0] in ("patch_embed", "patch_norm") else sum(model.depths) + 1

    return {name: layer(name) for name in param_specs(model)}


def taps(model: SwinConfig) -> dict[str, TapSpec]:
    """Dict: tap -> its row, in the order of the forward pass."""
    rows = backbone_taps(model)
    last = list(rows)[-1]
    rows["norm"] = norm("B T3 D3", last, "norm")
    rows["features"] = TapSpec("B D3", "mean over tokens", ("norm",))
    rows["logits"] = TapSpec("B C", "linear", ("features",), affine("head"))
    return rows


def backbone_taps(model: SwinConfig) -> dict[str, TapSpec]:
    """The taps up to the last stage's map."""
    embed, stem = affine("patch_embed"), "B T0 D0"
    rows = {
        "patch_embed": TapSpec(stem, "convolution", ("images",), embed, model.patch),
        "patch_norm": norm(stem, "patch_embed", "patch_norm"),
        "embed": TapSpec(stem, "dropout", ("patch_norm",)),
    }
    last = "embed"
    for stage, depth in enumerate(model.depths):
        for block in range(depth):
            tap = f"stage{stage}_block{block:02d}"
            rows |= block_taps(tap, last, stage, f"stages.{stage}.blocks.{block}")
            last = tap
        if stage < STAGES[-1]:
            rows |= merging_taps(f"merging{stage}", last, stage)
            last = f"merging{stage}"
    return rows


def block_taps(block: str, source: str, stage: int, module: str) -> dict[str, TapSpec]:
    """The taps of one block; the block's output is the last.

    Queries, keys and values have the tokens of the padded map, everything else those of the map.
    """
    wide, padded = f"B T{stage} D{stage}", f"B U{stage} E{stage}"
    hidden = f"B T{stage} M{stage}"

    def rows() -> Iterator[tuple[str, TapSpec]]:
        yield "norm1", norm(wide, source, f"{module}.norm1")
        for name in ("query", "key", "value"):
            params = affine(f"{module}.attn.{name}")
            yield f"attn.{name}", TapSpec(padded, "linear", (f"{block}.norm1",), params)
        inputs = tuple(f"{block}.attn.{name}" for name in ("query", "key", "value"))
        table = (f"{module}.attn.bias_table",)
        mixed = f"B T{stage} E{stage}"
        yield "attn.mix", TapSpec(mixed, "window attention", inputs, table)
        out = affine(f"{module}.attn.out")
        yield "attn.out", TapSpec(wide, "linear", (f"{block}.attn.mix",), out)
        yield "mid", TapSpec(wide, "residual", (source, f"{block}.attn.out", f"{block}.norm1"))
        yield "norm2", norm(wide, f"{block}.mid", f"{module}.norm2")
        first, second = affine(f"{module}.mlp.fc1"), affine(f"{module}.mlp.fc2")
        yield "mlp.fc1", TapSpec(hidden, "linear", (f"{block}.norm2",), first)
        yield "mlp.gelu", TapSpec(hidden, "gelu", (f"{block}.mlp.fc1",))
        yield "mlp.hidden", TapSpec(hidden, "dropout", (f"{block}.mlp.gelu",))
        yield "mlp.fc2", TapSpec(wide, "linear", (f"{block}.mlp.hidden",), second)
        yield "mlp.out", TapSpec(wide, "dropout", (f"{block}.mlp.fc2",))

    inner = {f"{block}.{name}": tap for name, tap in rows()}
    inputs = (f"{block}.mid", f"{block}.mlp.out", f"{block}.norm2", source)
    return inner | {block: TapSpec(wide, "residual", inputs)}


def merging_taps(merging: str, source: str, stage: int) -> dict[str, TapSpec]:
    """The taps of the merging of four patches at the end of a stage; its output is the last."""
    module, merged = f"stages.{stage}.merging", f"B T{stage + 1} G{stage}"
    reduction = (f"{module}.reduction.weight",)
    return {
        f"{merging}.patches": TapSpec(merged, "merging", (source,)),
        f"{merging}.norm": norm(merged, f"{merging}.patches", f"{module}.norm"),
        merging: TapSpec(f"B T{stage + 1} D{stage + 1}", "linear", (f"{merging}.norm",), reduction),
    }


def orders(model: SwinConfig, rng: np.random.Generator) -> dict[str, NDArray[np.intp]]:
    """A random permutation of each axis whose order changes no result."""
    result = {"R": rng.permutation(3)}
    for stage in STAGES:
        width = model.width * 2**stage
        channels, heads = rng.permutation(width), rng.permutation(model.heads[stage])
        inner = rng.permutation(width // len(heads))
        result |= {
            f"D{stage}": channels,
            f"G{stage}": (np.arange(4)[:, None] * width + channels).reshape(-1),
            f"K{stage}": heads,
            f"E{stage}": (heads[:, None] * len(inner) + inner).reshape(-1),
            f"M{stage}": rng.permutation(width * model.mlp_ratio),
        }
    return result


def forward_flops(model: SwinConfig, image_size: tuple[int, int]) -> float:
    """Floating-point operations of one image's forward pass.

    As for the Vision Transformer, a matmul of (m, k) and (k, n) counts 2 m k n; norms, softmax,
    GELU and additions do not count. Padding counts where it is computed.
    """
    numbers = sizes(model, image_size)
    total = 2.0 * numbers["T0"] * 3 * model.patch**2 * model.width
    for stage, depth in enumerate(model.depths):
        width, hidden, tokens, padded = (numbers[f"{letter}{stage}"] for letter in "DMTU")
        height, length = windows_of(model, image_size, stage, 0).sides
        linear = 2.0 * width * (3 * padded * width + tokens * width + 2 * tokens * hidden)
        total += depth * (linear + 4.0 * padded * height * length * width)
        if stage < STAGES[-1]:
            total += 2.0 * numbers[f"T{stage + 1}"] * 4 * width * 2 * width
    return total + 2.0 * numbers["D3"] * model.class_count
