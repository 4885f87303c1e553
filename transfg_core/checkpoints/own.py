"""Load pretrained parameters from a file with this project's names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transfg_core.backend import Arrays
from transfg_core.checkpoints import file as checkpoint
from transfg_core.checkpoints.load_report import LoadReport
from transfg_core.checkpoints.weight_file import FLOATS, WeightFile
from transfg_core.config.loading import build_config
from transfg_core.config.model import ModelConfig
from transfg_core.config.sections import Config
from transfg_core.config.vit import VitConfig
from transfg_core.errors import UserError
from transfg_core.models.layout import architecture, param_shapes
from transfg_core.models.rows import Shape
from transfg_core.models.vit import grid_size
from transfg_core.params.merge import as_float, refuse, strict_merge
from transfg_core.params.positions import resize_pos_embed, square_side

PREFIX = "param/"  # of parameters in a run's checkpoint, which also holds optimiser state


def load_own(
    file: WeightFile, model: ModelConfig, image_size: tuple[int, int]
) -> tuple[Arrays, LoadReport]:
    """Load parameters of this project, stored under `param/<name>` or bare names, into a model.

    Names and shapes must be equal, with three exceptions. The head keeps its initial values if the
    number of classes differs, or if the file has none. Positions are resized to the model's grid.
    Weights without a configuration do not show their own grid: it counts as the model's if the
    number of tokens is equal, else as square. A plain Vision Transformer may become one with part
    selection: its encoder norm becomes `part_norm`; its last block becomes `part_layer` or is
    ignored, as `model.part_layer_init` says.

    Raises:
        UserError: the file cannot be read, or names or shapes do not fit.
    """
    path = file.path
    arrays, ignored, saved = read_own(file)
    if saved is not None:
        refuse_other_model(path, saved.model, model)
    target = param_shapes(model, image_size)
    changes = _changes(path, arrays, model) if isinstance(model, VitConfig) else []
    for old, new, reason in [*changes, *_new_head(arrays, model)]:
        moved = [name for name in arrays if name.startswith(old)]
        if reason:
            ignored += [f"{name}: {reason}" for name in moved]
            target = {name: shape for name, shape in target.items() if not name.startswith(new)}
        else:
            arrays |= {new + name.removeprefix(old): arrays[name] for name in moved}
        arrays = {name: array for name, array in arrays.items() if name not in moved}
    headless = not any(name.startswith("head.") for name in arrays)
    missing = tuple(name for name in target if headless and name.startswith("head."))
    target = {name: shape for name, shape in target.items() if name not in missing}
    resized: tuple[str, ...] = ()
    if isinstance(model, VitConfig):
        source = None
        if saved is not None and isinstance(saved.model, VitConfig):
            source = grid_size(saved.data.crop, saved.model)
        resized = _fit_positions(arrays, target, source, grid_size(image_size, model), path)
    merged = strict_merge(target, arrays, path)
    initialised = tuple(name for name in param_shapes(model, image_size) if name not in merged)
    return merged, LoadReport(path, tuple(merged), resized, tuple(ignored), missing, initialised)


def _changes(path: str, arrays: Arrays, model: VitConfig) -> list[tuple[str, str, str]]:
    """Triples: prefix in the file, prefix in the model, reason to keep the initial values there.

    With an empty reason the arrays are renamed.
    """
    if model.placement == "none" and "part_norm.weight" in arrays:
        raise UserError(
            f"{path}: expected a plain Vision Transformer (model.placement none), found one with "
            "part selection; set model.placement=transfg"
        )
    if model.placement == "transfg" and "norm.weight" in arrays:
        last = f"blocks.{model.depth - 1}."
        if not any(name.startswith(last) for name in arrays):
            raise UserError(f"{path}: {last[:-1]}: missing; is model.depth {model.depth} right?")
        reason = "model.part_layer_init is random" if model.part_layer_init == "random" else ""
        return [(last, "part_layer.", reason), ("norm.", "part_norm.", "")]
    return []


def _new_head(arrays: Arrays, model: ModelConfig) -> list[tuple[str, str, str]]:
    """As `_changes`: the head keeps its initial values if the number of classes differs."""
    head = arrays.get("head.weight")
    if head is None or not head.ndim or head.shape[0] == model.classes:
        return []
    return [("head.", "head.", f"{head.shape[0]} classes, model.classes {model.classes}")]


def _fit_positions(
    arrays: Arrays,
    target: Mapping[str, Shape],
    source: tuple[int, int] | None,
    grid: tuple[int, int],
    path: str,
) -> tuple[str, ...]:
    """Resize `pos_embed` (1, T, D) in `arrays` from the grid `source` (None: unknown) to `grid`."""
    embedding = arrays.get("pos_embed")
    shape = target["pos_embed"]
    if embedding is None or embedding.ndim != 3:
        return ()
    if source and embedding.shape[1] == source[0] * source[1] + 1:
        if source == grid:
            return ()
        arrays["pos_embed"] = resize_pos_embed(as_float(embedding), grid, source)
        return (f"pos_embed: {source[0]} x {source[1]} to {grid[0]} x {grid[1]}",)
    if embedding.shape[1] == shape[1]:
        return ()
    side = square_side(embedding.shape[1])
    if side is None:
        raise UserError(
            f"{path}: pos_embed: checkpoint {embedding.shape}, model {shape}: only a square grid "
            f"can be resized, and {embedding.shape[1]} tokens are not 1 + a square number; "
            "train with the checkpoint's data.crop"
        )
    arrays["pos_embed"] = resize_pos_embed(as_float(embedding), grid)
    return (f"pos_embed: {side} x {side} (assumed square) to {grid[0]} x {grid[1]}",)


def refuse_other_model(path: str, saved: ModelConfig, model: ModelConfig) -> None:
    """Refuse a checkpoint of another architecture, or of settings that no parameter's shape shows.

    Raises:
        UserError: the architectures or such settings differ.
    """
    # the name first: another architecture need not have the hidden settings
    for key in ("name", *architecture(model).HIDDEN_SETTINGS):
        expected, found = getattr(model, key), getattr(saved, key, None)
        if found != expected:
            raise UserError(
                f"{path}: expected model.{key} {expected}, found {found}; set model.{key}={found}"
            )


def read_own(file: WeightFile) -> tuple[Arrays, list[str], Config | None]:
    """Read a file: parameters by canonical name, ignored arrays, and the saved configuration.

    Ignored arrays are lines `name: reason`. The configuration is None if the file holds none.

    Raises:
        UserError: the file cannot be read, or a parameter does not hold floating-point numbers.
    """
    headers = file.headers()
    prefixed = any(key.startswith(PREFIX) for key in headers)
    params = [key for key in headers if key.startswith(PREFIX) or not prefixed]
    wrong = [
        f"{key}: expected floating-point numbers, found {headers[key].dtype}"
        for key in params
        if headers[key].dtype not in FLOATS
    ]
    refuse(file.path, wrong)
    metadata: dict[str, Any] = {}
    if checkpoint.KEY in file.strings:
        stored, metadata = checkpoint.load(Path(file.path))  # compares the checksum
        arrays = {key.removeprefix(PREFIX): stored[key] for key in params}
    else:
        arrays = {key.removeprefix(PREFIX): file.read(key) for key in params}
    ignored = [f"{key}: state of the run" for key in headers if key not in params]
    saved = build_config(metadata["config"], file.path) if "config" in metadata else None
    return arrays, ignored, saved
