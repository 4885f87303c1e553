"""Convert Google's Vision Transformer checkpoints (.npz) to and from canonical arrays.

Source of the layout: google-research/vision_transformer. Each array has a row in `ROWS`. A plan is
made from the file's headers alone; then the arrays are read one at a time.

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
from transfg_core.params.merge import and_more, as_float, refuse, strict_merge
from transfg_core.params.positions import resize_pos_embed, square_side


class Row(NamedTuple):
    """One array: Google's key, its shape in letters, its canonical name, and the transposition.

    After the transposition, K and d are neighbours and merge into D. {i} is the block's number.
    {block} and {norm} stand for the names of block and encoder norm, which depend on the placement.
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
    Row("pre_logits/kernel", "D D", "", (1, 0)),  # in-21k files; not part of the network
    Row("pre_logits/bias", "D", "", (0,)),
    Row("head/kernel", "D C", "head.weight", (1, 0)),
    Row("head/bias", "C", "head.bias", (0,)),
)
AUGREG_PREFIX = "opt/target/"  # in files of Steiner et al. 2022 that also hold optimiser state
HYBRID_KEY = "conv_root/kernel"


class Step(NamedTuple):
    """One array to read: its key in the file, its row, and the parameter that it fills."""

    key: str
    row: Row
    name: str


class Plan(NamedTuple):
    """What to read from a file.

    `ignored` lists `key: reason` for the other arrays; `missing` names parameters that it lacks.
    """

    steps: tuple[Step, ...]
    ignored: tuple[str, ...]
    missing: tuple[str, ...]


def load_vit_npz(
    path: str | Path, model: VitConfig, image_size: tuple[int, int]
) -> tuple[Arrays, LoadReport]:
    """Dict: canonical name -> C-contiguous float32 array, for the parameters that the file fills.

    With part selection the encoder norm becomes `part_norm`, and the last block becomes
    `part_layer` only if `model.part_layer_init` is `last_block`. The head is read only if
    `model.pretrained_head` is true and the numbers of classes are equal.

    Raises:
        UserError: the file is missing, damaged, of another type or of another architecture, or
            holds values that are not finite; lists each problem with key, expected and found.
    """
    grid = grid_size(image_size, model)
    sizes = vit_sizes(model, image_size)
    specs = param_specs(model)
    arrays, resized, problems = {}, [], []
    with NpzFile(path) as file:
        plan = plan_vit_npz(file.shapes(), model, str(path))
        for key, row, name in plan.steps:
            array = as_float(file.read(key))
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
    initialised = tuple(name for name in specs if name not in arrays)
    return arrays, LoadReport(
        str(path), tuple(arrays), tuple(resized), plan.ignored, plan.missing, initialised
    )


def save_vit_npz(path: str | Path, arrays: Mapping[str, Array], model: VitConfig) -> None:
    """Write the parameters of a plain Vision Transformer under Google's names.

    Raises:
        UserError: the model has part selection, which such a file cannot hold; names or shapes
            differ from the model's; or the positions are not a square grid.
        RunFailed: the file cannot be written.
    """
    if model.placement != "none":
        raise UserError(f"{path}: expected model.placement none, found {model.placement}")
    # the model alone does not determine T and C, so the arrays give them
    sources = (("T", "pos_embed", 1), ("C", "head.bias", 0))
    free = {letter: arrays[name].shape[axis] for letter, name, axis in sources if name in arrays}
    sizes = vit_sizes(model) | {"T": 0, "C": 0} | free
    shapes = {name: resolve(spec.dims, sizes) for name, spec in param_specs(model).items()}
    values = strict_merge(shapes, arrays, str(path))
    if square_side(sizes["T"]) is None:
        raise UserError(f"{path}: expected a square grid, found {sizes['T'] - 1} positions")
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
    """Decide from names and shapes alone which parameter each array of a file fills.

    Raises:
        UserError: the file is a hybrid, not a Vision Transformer, or of another architecture;
            lists every problem, with one line for each setting that may be wrong.
    """
    prefix = AUGREG_PREFIX if any(key.startswith(AUGREG_PREFIX) for key in shapes) else ""
    bare = {key[len(prefix) :]: shape for key, shape in shapes.items() if key.startswith(prefix)}
    ignored = [f"{key}: optimiser state" for key in shapes if not key.startswith(prefix)]
    depth = _depth(bare)
    _refuse_foreign(bare, depth, source)
    heads = [key for key in bare if key.startswith("head/")]
    problems, steps, missing = [], [], []
    expected = {key: (row, name) for key, row, name in _expand(model, depth)}
    for key, (row, name) in expected.items():
        reason = _reason_to_skip(name, bare, model)
        if reason is None and key in bare:
            steps.append(Step(prefix + key, row, name))
        elif reason is None and not heads and name.startswith("head."):
            missing.append(name)
        elif reason is None:
            problems.append(f"{key}: missing; is the file complete?")
        elif key in bare:
            ignored.append(f"{prefix}{key}: {reason}")
    if depth != model.depth:
        problems.insert(0, f"blocks: expected {model.depth}, found {depth}; is model.depth right?")
    for key in bare.keys() - expected.keys():
        problems.append(f"{key}: unexpected, found {bare[key]}")
    problems += _shape_problems(steps, {prefix + key: bare[key] for key in bare}, model)
    refuse(source, [*problems, f"the file holds {_describe(bare, depth)}"] if problems else [])
    return Plan(tuple(steps), tuple(ignored), tuple(missing))


def _expand(model: VitConfig, depth: int) -> Iterator[Step]:
    """Every row for every block; the name is empty if the model has no such parameter."""
    parts = model.placement == "transfg"
    for row in ROWS:
        for i in range(depth) if "{i}" in row.key else (0,):
            block = "part_layer" if parts and i == depth - 1 else f"blocks.{i}"
            name = row.name.format(block=block, norm="part_norm" if parts else "norm")
            yield Step(row.key.format(i=i), row, name)


def _reason_to_skip(name: str, shapes: Mapping[str, Shape], model: VitConfig) -> str | None:
    if not name:
        return "not part of the network"
    if name.startswith("part_layer.") and model.part_layer_init == "random":
        return "model.part_layer_init is random"
    if name.startswith("head."):
        if not model.pretrained_head:
            return "model.pretrained_head is false"
        shape = shapes.get("head/bias") or shapes.get("head/kernel")
        classes = shape[-1] if shape else model.classes
        if classes != model.classes:
            return f"{classes} classes, model.classes {model.classes}"
    return None


def _shape_problems(steps: list[Step], shapes: Mapping[str, Shape], model: VitConfig) -> list[str]:
    """One line for each setting that may be wrong: its first key, expected and found shape."""
    # the question about the settings, or a key -> lines
    problems: dict[str, list[str]] = {}
    for key, row, name in steps:
        shape = shapes[key]
        tokens = shape[1] if name == "pos_embed" and len(shape) == 3 else 0
        expected = resolve(row.dims, vit_sizes(model) | {"T": tokens})
        if shape != expected:
            question = suspects(row.dims, SETTINGS, expected, shape)
            problems.setdefault(question, []).append(f"{key}: expected {expected}, found {shape}")
        elif name == "pos_embed" and square_side(tokens) is None:
            problems[key] = [f"{key}: expected 1 + a square number of tokens, found {tokens}"]
    return [f"{lines[0]}{and_more(lines)}{question}" for question, lines in problems.items()]


def _depth(shapes: Mapping[str, Shape]) -> int:
    matches = [re.match(r"Transformer/encoderblock_(\d+)/", key) for key in shapes]
    return 1 + max((int(match[1]) for match in matches if match), default=-1)


def _refuse_foreign(shapes: Mapping[str, Shape], depth: int, source: str) -> None:
    if HYBRID_KEY in shapes:
        raise UserError(
            f"{source}: {HYBRID_KEY}: a hybrid with a ResNet stem, which this version does not "
            "support; use a file without an R in its name, such as ViT-B_16.npz"
        )
    if not depth or "embedding/kernel" not in shapes:
        raise UserError(
            f"{source}: expected Google's Vision Transformer names, such as embedding/kernel, "
            f"found {', '.join(list(shapes)[:3]) or 'no arrays'}"
        )


def _describe(shapes: Mapping[str, Shape], depth: int) -> str:
    """The settings that the shapes show, by name."""
    values = {"depth": depth}
    sources = (
        ("width", "embedding/bias", 0),
        ("heads", ATTENTION.format(i=0) + "query/bias", 0),
        ("mlp", BLOCK.format(i=0) + "MlpBlock_3/Dense_0/bias", 0),
        ("patch", "embedding/kernel", 0),
    )
    values |= {name: shapes[key][axis] for name, key, axis in sources if shapes.get(key)}
    size = tuple(values.get(name) for name in ("width", "heads", "depth", "mlp"))
    named = [f"model.size {name}: " for name, numbers in SIZES.items() if numbers == size]
    return "".join(named) + ", ".join(f"{name} {value}" for name, value in values.items())
