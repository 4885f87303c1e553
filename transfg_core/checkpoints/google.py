"""Google's Vision Transformer checkpoints (.npz) to and from canonical arrays.

Source of the layout: google-research/vision_transformer. Every array is one row of `ROWS`; the
file is planned from its headers alone, then read one array at a time.

Letters: D width, K heads, d = D / K, M width of the MLP, P patch, T tokens, C classes.
"""

import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from transfg_core.backend import Array, Arrays
from transfg_core.checkpoints.file import replace_file
from transfg_core.checkpoints.load_report import LoadReport
from transfg_core.checkpoints.npz_file import NpzFile
from transfg_core.config.vit import SIZES, VitConfig
from transfg_core.errors import UserError
from transfg_core.models.layout import suspects
from transfg_core.models.rows import Shape, resolve
from transfg_core.models.vit import SETTINGS, grid_size, param_specs
from transfg_core.models.vit import sizes as vit_sizes
from transfg_core.params.merge import and_more, as_float32, refuse, strict_merge
from transfg_core.params.positions import resize_pos_embed, square_side


class Row(NamedTuple):
    """Google's key, its shape in letters, the canonical name, and the transposition.

    After the transposition K and d lie side by side and become D. {i} counts the blocks; {block}
    and {norm} are what the placement calls the block and the encoder norm.
    """

    key: str
    dims: str
    name: str
    axes: tuple[int, ...]


BLOCK = "Transformer/encoderblock_{i}/"
ATTENTION = BLOCK + "MultiHeadDotProductAttention_1/"
ROWS = (
    Row("cls", "1 1 D", "cls_token", (0, 1, 2)),
    Row("Transformer/posembed_input/pos_embedding", "1 T D", "pos_embed", (0, 1, 2)),
    Row("embedding/kernel", "P P 3 D", "patch_embed.weight", (3, 2, 0, 1)),
    Row("embedding/bias", "D", "patch_embed.bias", (0,)),
    Row(BLOCK + "LayerNorm_0/scale", "D", "{block}.norm1.weight", (0,)),
    Row(BLOCK + "LayerNorm_0/bias", "D", "{block}.norm1.bias", (0,)),
    Row(ATTENTION + "query/kernel", "D K d", "{block}.attn.query.weight", (1, 2, 0)),
    Row(ATTENTION + "query/bias", "K d", "{block}.attn.query.bias", (0, 1)),
    Row(ATTENTION + "key/kernel", "D K d", "{block}.attn.key.weight", (1, 2, 0)),
    Row(ATTENTION + "key/bias", "K d", "{block}.attn.key.bias", (0, 1)),
    Row(ATTENTION + "value/kernel", "D K d", "{block}.attn.value.weight", (1, 2, 0)),
    Row(ATTENTION + "value/bias", "K d", "{block}.attn.value.bias", (0, 1)),
    Row(ATTENTION + "out/kernel", "K d D", "{block}.attn.out.weight", (2, 0, 1)),
    Row(ATTENTION + "out/bias", "D", "{block}.attn.out.bias", (0,)),
    Row(BLOCK + "LayerNorm_2/scale", "D", "{block}.norm2.weight", (0,)),
    Row(BLOCK + "LayerNorm_2/bias", "D", "{block}.norm2.bias", (0,)),
    Row(BLOCK + "MlpBlock_3/Dense_0/kernel", "D M", "{block}.mlp.fc1.weight", (1, 0)),
    Row(BLOCK + "MlpBlock_3/Dense_0/bias", "M", "{block}.mlp.fc1.bias", (0,)),
    Row(BLOCK + "MlpBlock_3/Dense_1/kernel", "M D", "{block}.mlp.fc2.weight", (1, 0)),
    Row(BLOCK + "MlpBlock_3/Dense_1/bias", "D", "{block}.mlp.fc2.bias", (0,)),
    Row("Transformer/encoder_norm/scale", "D", "{norm}.weight", (0,)),
    Row("Transformer/encoder_norm/bias", "D", "{norm}.bias", (0,)),
    Row("pre_logits/kernel", "D D", "", (1, 0)),  # in-21k files; no part of the network
    Row("pre_logits/bias", "D", "", (0,)),
    Row("head/kernel", "D C", "head.weight", (1, 0)),
    Row("head/bias", "C", "head.bias", (0,)),
)
AUGREG_PREFIX = "opt/target/"  # some files of Steiner et al. 2022, beside the optimiser's state
HYBRID_KEY = "conv_root/kernel"


class Step(NamedTuple):
    """One array to read: its key in the file, its row, and the parameter it becomes."""

    key: str
    row: Row
    name: str


class Plan(NamedTuple):
    """What to read; what to leave, as `key: reason`; which names the file lacks."""

    steps: tuple[Step, ...]
    ignored: tuple[str, ...]
    missing: tuple[str, ...]


def load_vit_npz(
    path: str | Path, model: VitConfig, image_size: tuple[int, int]
) -> tuple[Arrays, LoadReport]:
    """Canonical name -> float32 C-contiguous array, for the names that the file fills.

    With part selection the encoder norm becomes `part_norm`, and the last block becomes
    `part_layer` only if `model.part_layer_init` is `last_block`. The head is read only if
    `model.pretrained_head` asks for it and its classes are the model's.

    Raises:
        UserError: the file is missing, damaged, of another kind or of another architecture, or
            holds values that are not finite; each problem with key, expected and found.
    """
    grid = grid_size(image_size, model)
    sizes = vit_sizes(model, image_size)
    specs = param_specs(model)
    arrays, resized, problems = {}, [], []
    with NpzFile(path) as file:
        plan = plan_vit_npz(file.shapes(), model, str(path))
        for key, row, name in plan.steps:
            array = as_float32(file.read(key))
            if not np.isfinite(array).all():
                problems.append(f"{key}: holds NaN or infinity; download the file again")
            array = array.transpose(row.axes)
            if name == "pos_embed" and (side := square_side(array.shape[1])) is not None:
                if (side, side) != grid:
                    resized.append(f"{name}: {side} x {side} to {grid[0]} x {grid[1]}")
                    array = resize_pos_embed(array, grid)
            shape = resolve(specs[name].dims, sizes)
            arrays[name] = np.ascontiguousarray(array.reshape(shape))
    refuse(str(path), problems)
    left = tuple(name for name in specs if name not in arrays)
    return arrays, LoadReport(
        str(path), tuple(arrays), tuple(resized), plan.ignored, plan.missing, left
    )


def save_vit_npz(path: str | Path, arrays: Mapping[str, Array], model: VitConfig) -> None:
    """Write the parameters of a plain Vision Transformer under Google's names.

    Raises:
        UserError: part selection has no place in such a file; names or shapes are not the
            model's; the positions are no square grid.
        RunFailed: the file cannot be written.
    """
    if model.placement != "none":
        raise UserError(f"{path}: expected model.placement none, found {model.placement}")
    letters = (("T", "pos_embed", 1), ("C", "head.bias", 0))  # free, so taken from the arrays
    free = {x: arrays[name].shape[axis] for x, name, axis in letters if name in arrays}
    sizes = vit_sizes(model) | {"T": 0, "C": 0} | free
    shapes = {name: resolve(spec.dims, sizes) for name, spec in param_specs(model).items()}
    values = strict_merge(shapes, arrays, str(path))
    if square_side(sizes["T"]) is None:
        raise UserError(f"{path}: {sizes['T'] - 1} positions: expected a square grid")
    google = {}
    for key, row, name in _expand(model, model.depth):
        if name:
            shape = resolve(row.dims, sizes)
            moved = values[name].reshape([shape[axis] for axis in row.axes])
            google[key] = np.ascontiguousarray(moved.transpose(np.argsort(row.axes)))
    buffer = io.BytesIO()
    np.savez(buffer, **google)
    replace_file(Path(path), buffer.getvalue())


def plan_vit_npz(shapes: Mapping[str, Shape], model: VitConfig, source: str) -> Plan:
    """Decide from names and shapes alone what a file's arrays become.

    Raises:
        UserError: the file is a hybrid, no Vision Transformer, or of another architecture; every
            problem is listed, one line for each setting that may be wrong.
    """
    prefix = AUGREG_PREFIX if any(key.startswith(AUGREG_PREFIX) for key in shapes) else ""
    ours = {key[len(prefix) :]: shape for key, shape in shapes.items() if key.startswith(prefix)}
    ignored = [f"{key}: optimiser state" for key in shapes if not key.startswith(prefix)]
    depth = _depth(ours)
    _refuse_foreign(ours, depth, source)
    heads = [key for key in ours if key.startswith("head/")]
    problems, steps, missing = [], [], []
    expected = {key: (row, name) for key, row, name in _expand(model, depth)}
    for key, (row, name) in expected.items():
        reason = _reason_to_skip(name, ours, model)
        if reason is None and key in ours:
            steps.append(Step(prefix + key, row, name))
        elif reason is None and not heads and name.startswith("head."):
            missing.append(name)
        elif reason is None:
            problems.append(f"{key}: missing; is the file complete?")
        elif key in ours:
            ignored.append(f"{prefix}{key}: {reason}")
    if depth != model.depth:
        problems.insert(0, f"blocks: expected {model.depth}, found {depth}; is model.depth right?")
    for key in ours.keys() - expected.keys():
        problems.append(f"{key}: unexpected, found {ours[key]}")
    problems += _shape_problems(steps, {prefix + key: ours[key] for key in ours}, model)
    refuse(source, [*problems, f"the file holds {_describe(ours, depth)}"] if problems else [])
    return Plan(tuple(steps), tuple(ignored), tuple(missing))


def _expand(model: VitConfig, depth: int) -> Iterator[Step]:
    """Every row for every block; an empty name where no parameter corresponds."""
    parts = model.placement == "transfg"
    for row in ROWS:
        for i in range(depth) if "{i}" in row.key else (0,):
            block = "part_layer" if parts and i == depth - 1 else f"blocks.{i}"
            name = row.name.format(block=block, norm="part_norm" if parts else "norm")
            yield Step(row.key.format(i=i), row, name)


def _reason_to_skip(name: str, ours: Mapping[str, Shape], model: VitConfig) -> str | None:
    if not name:
        return "no part of the network"
    if name.startswith("part_layer.") and model.part_layer_init == "random":
        return "model.part_layer_init is random"
    if name.startswith("head."):
        if not model.pretrained_head:
            return "model.pretrained_head is false"
        shape = ours.get("head/bias") or ours.get("head/kernel")
        classes = shape[-1] if shape else model.classes
        if classes != model.classes:
            return f"{classes} classes, model.classes {model.classes}"
    return None


def _shape_problems(steps: list[Step], found: Mapping[str, Shape], model: VitConfig) -> list[str]:
    """One line for each setting in doubt: its first key, expected and found shape."""
    doubts: dict[str, list[str]] = {}
    for key, row, name in steps:
        shape = found[key]
        tokens = shape[1] if name == "pos_embed" and len(shape) == 3 else 0
        expected = resolve(row.dims, vit_sizes(model) | {"T": tokens})
        if shape != expected:
            ask = suspects(row.dims, SETTINGS, expected, shape)
            doubts.setdefault(ask, []).append(f"{key}: expected {expected}, found {shape}")
        elif name == "pos_embed" and square_side(tokens) is None:
            doubts[key] = [f"{key}: expected 1 + a square number of tokens, found {tokens}"]
    return [f"{lines[0]}{and_more(lines)}{ask}" for ask, lines in doubts.items()]


def _depth(ours: Mapping[str, Shape]) -> int:
    numbers = [re.match(r"Transformer/encoderblock_(\d+)/", key) for key in ours]
    return 1 + max((int(match[1]) for match in numbers if match), default=-1)


def _refuse_foreign(ours: Mapping[str, Shape], depth: int, source: str) -> None:
    if HYBRID_KEY in ours:
        raise UserError(
            f"{source}: {HYBRID_KEY}: a hybrid with a ResNet stem, which this version does not "
            "support yet; take a file without an R in its name, such as ViT-B_16.npz"
        )
    if not depth or "embedding/kernel" not in ours:
        raise UserError(
            f"{source}: expected Google's Vision Transformer names, such as embedding/kernel, "
            f"found {', '.join(list(ours)[:3]) or 'no arrays'}"
        )


def _describe(ours: Mapping[str, Shape], depth: int) -> str:
    """The architecture as far as the shapes tell, by the names of its settings."""
    values = {"depth": depth}
    sources = (
        ("width", "embedding/bias", 0),
        ("heads", ATTENTION.format(i=0) + "query/bias", 0),
        ("mlp", BLOCK.format(i=0) + "MlpBlock_3/Dense_0/bias", 0),
        ("patch", "embedding/kernel", 0),
    )
    values |= {name: ours[key][axis] for name, key, axis in sources if ours.get(key)}
    size = tuple(values.get(name) for name in ("width", "heads", "depth", "mlp"))
    named = [f"model.size {name}: " for name, numbers in SIZES.items() if numbers == size]
    return "".join(named) + ", ".join(f"{name} {value}" for name, value in values.items())
