"""Starting values from a checkpoint: Google's .npz, or this project's own .safetensors."""

from collections.abc import Mapping
from pathlib import Path

import safetensors

from transfg_core import checkpoint
from transfg_core.backend import Arrays
from transfg_core.config import Config, ModelConfig, build_config
from transfg_core.errors import UserError
from transfg_core.layout import Shape, grid_size, param_shapes
from transfg_core.params import LoadReport, as_float32, refuse, strict_merge
from transfg_core.positions import resize_pos_embed, square_side
from transfg_core.vit_npz import load_vit_npz, save_vit_npz

PREFIX = "param/"  # what a run's checkpoint puts before the parameters, beside optimiser state
FLOATS = ("F16", "F32", "F64")


def load_pretrained(
    path: str, model: ModelConfig, image_size: tuple[int, int]
) -> tuple[Arrays, LoadReport]:
    """Canonical name -> array for the parameters that the checkpoint fills, and a report.

    Raises:
        UserError: the file is of an unknown kind, cannot be read, or does not fit the model.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".npz":
        return load_vit_npz(path, model, image_size)
    if suffix == ".safetensors":
        return load_own(path, model, image_size)
    if suffix in (".bin", ".pth", ".pt"):
        raise UserError(
            f"{path}: a PyTorch checkpoint; convert it once with "
            f"`transfg convert {path} {Path(path).with_suffix('.safetensors')}` and name the result"
        )
    raise UserError(f"{path}: expected a .npz or .safetensors file; check model.pretrained")


def load_own(
    path: str, model: ModelConfig, image_size: tuple[int, int]
) -> tuple[Arrays, LoadReport]:
    """Parameters of this project, as `param/<name>` or bare names, in a model like theirs.

    All must fit, but for three things. The head starts anew where the classes differ in number.
    Positions are resized to another grid; weights that do not tell theirs are taken to come from
    a square one, and to fit where their number does. A plain Vision Transformer may become one
    with part selection: its encoder norm becomes `part_norm`, and `model.part_layer_init` says
    what becomes of its last block.

    Raises:
        UserError: the file cannot be read, or names or shapes do not fit.
    """
    arrays, ignored, saved = _read(path)
    if saved is not None:
        refuse_other_heads(path, saved.model.heads, model.heads)
    target = param_shapes(model, image_size)
    for old, new, reason in _changes(path, arrays, model):
        moved = [name for name in arrays if name.startswith(old)]
        if reason:
            ignored += [f"{name}: {reason}" for name in moved]
            target = {name: shape for name, shape in target.items() if not name.startswith(new)}
        else:
            arrays |= {new + name.removeprefix(old): arrays[name] for name in moved}
        arrays = {name: array for name, array in arrays.items() if name not in moved}
    source = None if saved is None else grid_size(saved.data.crop, saved.model)
    resized = _fit_positions(arrays, target, source, grid_size(image_size, model), path)
    merged = strict_merge(target, arrays, path)
    left = tuple(name for name in param_shapes(model, image_size) if name not in merged)
    return merged, LoadReport(path, tuple(merged), resized, tuple(ignored), (), left)


def export_vit_npz(source: Path, target: Path) -> str:
    """Write a run's plain Vision Transformer as Google's .npz; what was done, in a sentence.

    Raises:
        UserError: the source is no checkpoint of a run, or not of a plain Vision Transformer.
        RunFailed: the target cannot be written.
    """
    if not source.is_file():
        raise UserError(f"{source}: no such file; check the path")
    arrays, _, saved = _read(str(source))
    if saved is None:
        raise UserError(f"{source}: it does not tell its model; expected a checkpoint of a run")
    rows, columns = grid_size(saved.data.crop, saved.model)
    if rows != columns or saved.model.stride != saved.model.patch:
        raise UserError(
            f"{source}: patches of {saved.model.patch} every {saved.model.stride} pixels, "
            f"{rows} x {columns} of them; such a file can hold a square of patches side by side"
        )
    save_vit_npz(target, arrays, saved.model)
    return f"{source} -> {target}: {len(arrays)} arrays under Google's names"


def _changes(path: str, arrays: Arrays, model: ModelConfig) -> list[tuple[str, str, str]]:
    """Prefix in the file, prefix in the model, and why the latter starts anew (empty: renamed)."""
    changes = []
    if model.placement == "none" and "part_norm.weight" in arrays:
        raise UserError(
            f"{path}: expected a plain Vision Transformer, as model.placement none says, found "
            "one with part selection; set model.placement=transfg"
        )
    if model.placement == "transfg" and "norm.weight" in arrays:
        last = f"blocks.{(model.depth or 0) - 1}."
        if not any(name.startswith(last) for name in arrays):
            raise UserError(f"{path}: {last[:-1]}: missing; is model.depth {model.depth} right?")
        anew = "model.part_layer_init is random" if model.part_layer_init == "random" else ""
        changes = [(last, "part_layer.", anew), ("norm.", "part_norm.", "")]
    head = arrays.get("head.weight")
    if head is not None and head.ndim and head.shape[0] != model.classes:
        reason = f"{head.shape[0]} classes, model.classes {model.classes}"
        changes.append(("head.", "head.", reason))
    return changes


def _fit_positions(
    arrays: Arrays,
    target: Mapping[str, Shape],
    source: tuple[int, int] | None,
    grid: tuple[int, int],
    path: str,
) -> tuple[str, ...]:
    """Resize `pos_embed` (1, T, D) in place from its grid, None if unknown, to the model's."""
    embedding = arrays.get("pos_embed")
    shape = target["pos_embed"]
    if embedding is None or embedding.ndim != 3:
        return ()
    if source and embedding.shape[1] == source[0] * source[1] + 1:
        if source == grid:
            return ()
        arrays["pos_embed"] = resize_pos_embed(as_float32(embedding), grid, source)
        return (f"pos_embed: {source[0]} x {source[1]} to {grid[0]} x {grid[1]}",)
    if embedding.shape[1] == shape[1]:
        return ()
    side = square_side(embedding.shape[1])
    if side is None:
        raise UserError(
            f"{path}: pos_embed: checkpoint {embedding.shape}, model {shape}: only a square grid "
            f"can be resized, and {embedding.shape[1]} tokens are not 1 + a square; "
            "train at the checkpoint's data.crop"
        )
    arrays["pos_embed"] = resize_pos_embed(as_float32(embedding), grid)
    return (f"pos_embed: {side} x {side} (taken to be square) to {grid[0]} x {grid[1]}",)


def refuse_other_heads(path: str, saved: int | None, heads: int | None) -> None:
    """The number of heads shows in no shape, and another one makes another function.

    Raises:
        UserError: the numbers differ.
    """
    if saved != heads:
        raise UserError(
            f"{path}: expected a model of {heads} heads, found one of {saved}; "
            f"set model.heads={saved}"
        )


def _read(path: str) -> tuple[Arrays, list[str], Config | None]:
    """Parameters by canonical name, what else the file holds (`name: reason`), and the
    configuration it was trained with, if it tells."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            keys = list(file.keys())
            run = any(key.startswith(PREFIX) for key in keys)
            wanted = [key for key in keys if key.startswith(PREFIX) or not run]
            kinds = {key: file.get_slice(key).get_dtype() for key in wanted}
            wrong = [
                f"{key}: expected floating-point numbers of numpy, found {kind}"
                for key, kind in kinds.items()
                if kind not in FLOATS
            ]
            refuse(path, wrong)
            arrays = {key.removeprefix(PREFIX): file.get_tensor(key) for key in wanted}
            strings = file.metadata() or {}
            told = checkpoint.KEY in strings
            metadata = checkpoint.read_metadata(path, strings) if told else {}
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}); check model.pretrained") from error
    except safetensors.SafetensorError as error:
        raise UserError(
            f"{path}: expected a .safetensors file, found a cut or damaged one or one of another "
            f"kind ({error}); copy it again"
        ) from error
    ignored = [f"{key}: state of the run" for key in keys if key not in kinds]
    saved = build_config(metadata["config"], path) if "config" in metadata else None
    return arrays, ignored, saved
