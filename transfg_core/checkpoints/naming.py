"""Other programs' names for the parameters of an architecture, as a table.

Arrays keep their layout; only names differ, and query, key and value may be stacked. The Vision
Transformer needs more, such as transposed arrays and names that depend on the placement: `forms.py`
serves it.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from transfg_core.checkpoints.forms import QKV

NUMBERS = r"(0|[1-9]\d{0,3})"
COUNTER = "counts batches, which a running mean of fixed momentum does not need"
COMPUTED = "computed from the window, not learned"


class Place(NamedTuple):
    """Where a parameter is in a file: its key, and which of `parts` equal parts along axis 0."""

    key: str
    part: int = 0
    parts: int = 1


@dataclass(frozen=True)
class Naming:
    """What one program calls the modules of an architecture.

    A row of `modules` is a canonical module, or parameter, and the program's name of it. {i}, {j}
    and {k} stand for numbers; the program's name may also have {i_next} (i + 1), {i_prev}, {k_prev}
    (one less), {i_odd} (2 i + 1) and {i_even} (2 i + 2). {qkv} stands for query, key and value;
    where the program's name lacks it, the three are stacked along axis 0 in this order.
    """

    title: str  # for the user: "torchvision"
    architecture: str  # model.name
    anchor: str  # a key of every such file, at the end of no other key
    marks: tuple[tuple[str, ...], ...]  # a file has at least one key of each tuple
    modules: tuple[tuple[str, str], ...]
    ignored: tuple[tuple[str, str], ...] = ()  # pattern of a key, reason

    def prefixes(self, keys: Collection[str]) -> list[str]:
        """What stands before the names of each model of this program: `backbone.`, or nothing."""
        ends = [key for key in keys if key == self.anchor or key.endswith(f".{self.anchor}")]
        starts = [key.removesuffix(self.anchor) for key in ends]
        return [start for start in starts if self._after(start, keys)]

    def bare_names(self, keys: Collection[str]) -> dict[str, str]:
        """Dict: the program's name -> key of the file; empty unless it holds one such model."""
        prefixes = self.prefixes(keys)
        return self._after(prefixes[0], keys) if len(prefixes) == 1 else {}

    def _after(self, prefix: str, keys: Collection[str]) -> dict[str, str]:
        """Dict: what follows a prefix -> key; empty if this is not a model of this program."""
        # `model.swin.` may hold the body, and `model.` the head
        outer = prefix[: prefix[:-1].rfind(".") + 1]
        bare = {key.removeprefix(prefix if key.startswith(prefix) else outer): key for key in keys}
        fits = all(any(mark in bare for mark in group) for group in self.marks)
        return bare if fits else {}

    def place(self, name: str) -> Place | None:
        """Where the program has a parameter: `stages.0.blocks.1.attn.key.bias` -> its `qkv.bias`.

        None for a parameter that the program does not know.
        """
        for pattern, theirs in self.patterns:
            match = pattern.fullmatch(name)
            if match:
                found = match.groupdict()
                key = theirs.format(**_numbers(found)) + found["rest"]
                stacked = found.get("qkv") is not None and "{qkv}" not in theirs
                return Place(key, QKV.index(found["qkv"]), len(QKV)) if stacked else Place(key)
        return None

    @cached_property
    def patterns(self) -> tuple[tuple[re.Pattern[str], str], ...]:
        """The rows with the canonical name as a pattern; its group `rest` has what follows."""
        rows = []
        for ours, theirs in self.modules:
            pattern = re.escape(ours)
            for letter in "ijk":
                pattern = pattern.replace(rf"\{{{letter}\}}", f"(?P<{letter}>{NUMBERS})")
            pattern = pattern.replace(r"\{qkv\}", f"(?P<qkv>{'|'.join(QKV)})")
            rows.append((re.compile(rf"{pattern}(?P<rest>(\.[a-z_]+)*)"), theirs))
        return tuple(rows)

    def places(self, names: Iterable[str]) -> dict[str, Place]:
        """Dict: parameter -> its place, for the parameters that the program knows."""
        found = {name: self.place(name) for name in names}
        return {name: place for name, place in found.items() if place is not None}

    def reason_to_ignore(self, name: str) -> str | None:
        """Why an array under the program's name is left out; None if it is not known to be."""
        return next((why for pattern, why in self.ignored if re.search(pattern, name)), None)


def _numbers(found: Mapping[str, str | None]) -> dict[str, str | int]:
    """The values of a row's placeholders."""
    values: dict[str, str | int] = {}
    for letter in "ijk":
        if (text := found.get(letter)) is not None:
            number = int(text)
            values |= {letter: number, f"{letter}_next": number + 1, f"{letter}_prev": number - 1}
            values |= {f"{letter}_odd": 2 * number + 1, f"{letter}_even": 2 * number + 2}
    return values | {"qkv": found.get("qkv") or ""}


RESNET_MODULES = (
    ("conv1", "conv1"),
    ("bn1", "bn1"),
    ("layer{i}.{j}.conv{k}", "layer{i}.{j}.conv{k}"),
    ("layer{i}.{j}.bn{k}", "layer{i}.{j}.bn{k}"),
    ("layer{i}.{j}.downsample.{k}", "layer{i}.{j}.downsample.{k}"),
    ("head", "fc"),
)
# torchvision/models/resnet.py; timm/models/resnet.py has the same names
TORCHVISION_RESNET = Naming(
    title="timm and torchvision (ResNet)",
    architecture="resnet",
    anchor="layer1.0.conv1.weight",
    marks=(
        ("layer1.0.bn1.running_mean",),
        # what this project's own names lack; the last is the stem of a ResNet-C or -D, to refuse it
        ("fc.weight", "bn1.num_batches_tracked", "conv1.0.weight"),
    ),
    modules=RESNET_MODULES,
    ignored=((r"\.num_batches_tracked$", COUNTER),),
)
RESNET_LAYER = "encoder.stages.{i_prev}.layers.{j}."
# transformers/models/resnet/modeling_resnet.py
HUGGING_FACE_RESNET = Naming(
    title="Hugging Face transformers (ResNet)",
    architecture="resnet",
    anchor="embedder.embedder.convolution.weight",
    marks=(("encoder.stages.0.layers.0.layer.0.convolution.weight",),),
    modules=(
        ("conv1", "embedder.embedder.convolution"),
        ("bn1", "embedder.embedder.normalization"),
        ("layer{i}.{j}.conv{k}", RESNET_LAYER + "layer.{k_prev}.convolution"),
        ("layer{i}.{j}.bn{k}", RESNET_LAYER + "layer.{k_prev}.normalization"),
        ("layer{i}.{j}.downsample.0", RESNET_LAYER + "shortcut.convolution"),
        ("layer{i}.{j}.downsample.1", RESNET_LAYER + "shortcut.normalization"),
        ("head", "classifier.1"),
    ),
    ignored=((r"\.num_batches_tracked$", COUNTER),),
)


def _swin_modules(block: str, merging: str, head: str) -> tuple[tuple[str, str], ...]:
    """The rows that Microsoft's and timm's programs have in common."""
    ours = "stages.{i}.blocks.{j}."
    same = (
        (f"{ours}{name}", f"{block}{name}") for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2")
    )
    return (
        ("patch_embed", "patch_embed.proj"),
        ("patch_norm", "patch_embed.norm"),
        *same,
        (ours + "attn.{qkv}", block + "attn.qkv"),
        (ours + "attn.out", block + "attn.proj"),
        (ours + "attn.bias_table", block + "attn.relative_position_bias_table"),
        ("stages.{i}.merging", merging),
        ("norm", "norm"),
        ("head", head),
    )


TABLE = "attn.relative_position_bias_table"
SWIN_IGNORED = ((r"relative_position_index$", COMPUTED), (r"(^|\.)attn_mask$", COMPUTED))
# microsoft/Swin-Transformer, models/swin_transformer.py: stage i ends with its patch merging
SWIN_OFFICIAL = Naming(
    title="microsoft/Swin-Transformer",
    architecture="swin",
    anchor=f"layers.0.blocks.0.{TABLE}",
    marks=(("patch_embed.proj.weight",), ("layers.0.downsample.norm.weight",)),
    modules=_swin_modules("layers.{i}.blocks.{j}.", "layers.{i}.downsample", "head"),
    ignored=SWIN_IGNORED,
)
# timm/models/swin_transformer.py since timm 0.9: the patch merging opens the next stage
TIMM_SWIN = Naming(
    title="timm (Swin)",
    architecture="swin",
    anchor=f"layers.0.blocks.0.{TABLE}",
    marks=(("patch_embed.proj.weight",), ("layers.1.downsample.norm.weight",)),
    modules=_swin_modules("layers.{i}.blocks.{j}.", "layers.{i_next}.downsample", "head.fc"),
    ignored=SWIN_IGNORED,
)
SWIN_BLOCK = "features.{i_odd}.{j}."
# torchvision/models/swin_transformer.py: stages and mergings alternate in one list
TORCHVISION_SWIN = Naming(
    title="torchvision (Swin)",
    architecture="swin",
    anchor=f"features.1.0.{TABLE}",
    marks=(("features.0.0.weight",), ("features.2.reduction.weight",)),
    modules=(
        ("patch_embed", "features.0.0"),
        ("patch_norm", "features.0.2"),
        ("stages.{i}.blocks.{j}.norm1", SWIN_BLOCK + "norm1"),
        ("stages.{i}.blocks.{j}.norm2", SWIN_BLOCK + "norm2"),
        ("stages.{i}.blocks.{j}.attn.{qkv}", SWIN_BLOCK + "attn.qkv"),
        ("stages.{i}.blocks.{j}.attn.out", SWIN_BLOCK + "attn.proj"),
        ("stages.{i}.blocks.{j}.attn.bias_table", SWIN_BLOCK + TABLE),
        ("stages.{i}.blocks.{j}.mlp.fc1", SWIN_BLOCK + "mlp.0"),
        ("stages.{i}.blocks.{j}.mlp.fc2", SWIN_BLOCK + "mlp.3"),
        ("stages.{i}.merging", "features.{i_even}"),
        ("norm", "norm"),
        ("head", "head"),
    ),
    ignored=SWIN_IGNORED,
)
SWIN_LAYER = "encoder.layers.{i}.blocks.{j}."
# transformers/models/swin/modeling_swin.py
HUGGING_FACE_SWIN = Naming(
    title="Hugging Face transformers (Swin)",
    architecture="swin",
    anchor="embeddings.patch_embeddings.projection.weight",
    marks=(("encoder.layers.0.downsample.norm.weight",),),
    modules=(
        ("patch_embed", "embeddings.patch_embeddings.projection"),
        ("patch_norm", "embeddings.norm"),
        ("stages.{i}.blocks.{j}.norm1", SWIN_LAYER + "layernorm_before"),
        ("stages.{i}.blocks.{j}.norm2", SWIN_LAYER + "layernorm_after"),
        ("stages.{i}.blocks.{j}.attn.{qkv}", SWIN_LAYER + "attention.self.{qkv}"),
        ("stages.{i}.blocks.{j}.attn.out", SWIN_LAYER + "attention.output.dense"),
        (
            "stages.{i}.blocks.{j}.attn.bias_table",
            SWIN_LAYER + "attention.self.relative_position_bias_table",
        ),
        ("stages.{i}.blocks.{j}.mlp.fc1", SWIN_LAYER + "intermediate.dense"),
        ("stages.{i}.blocks.{j}.mlp.fc2", SWIN_LAYER + "output.dense"),
        ("stages.{i}.merging", "encoder.layers.{i}.downsample"),
        ("norm", "layernorm"),
        ("head", "classifier"),
    ),
    ignored=SWIN_IGNORED,
)

# of several that fit, the first: the official file also has what marks timm's
NAMINGS = (
    TORCHVISION_RESNET, HUGGING_FACE_RESNET,
    SWIN_OFFICIAL, TIMM_SWIN, TORCHVISION_SWIN, HUGGING_FACE_SWIN,
)  # fmt: skip
