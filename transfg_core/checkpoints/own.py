"""Load pretrained parameters from a file with this project's names."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from transfg_core.backend import Array, Arrays
from transfg_core.checkpoints import file as checkpoint
from transfg_core.checkpoints.averages import AVERAGED, EMA, PARAM, evaluated_keys
from transfg_core.checkpoints.load_report import LoadReport, untrained_head
from transfg_core.checkpoints.stems import own_stem, refuse_other_stem
from transfg_core.checkpoints.weight_file import FLOATS, WeightFile
from transfg_core.config.loading import build_config
from transfg_core.config.model import ModelConfig
from transfg_core.config.sections import Config
from transfg_core.config.vit import VitConfig
from transfg_core.errors import UserError
from transfg_core.models.layout import (
    ARCHITECTURES,
    BACKBONES,
    architecture,
    param_shapes,
)
from transfg_core.models.rows import Shape
from transfg_core.models.vit import grid_size
from transfg_core.params.bias_tables import resize_bias_table, window_of, window_to_resize
from transfg_core.params.merge import as_float, refuse, shape_problems, strict_merge
from transfg_core.params.positions import resize_pos_embed, square_side


class Own(NamedTuple):
    """A file with this project's names: the shapes of its parameters, and how to read them.

    `ignored` lists `key: reason` for the other arrays; `saved` is the configuration, if any.
    `averaged` says that the parameters are the averages of a run with `optim.ema`.
    """

    path: str
    shapes: dict[str, Shape]
    read: Callable[[str], Array]
    ignored: list[str]
    saved: Config | None
    averaged: bool = False


def load_own(
    file: WeightFile, model: ModelConfig, image_size: tuple[int, int]
) -> tuple[Arrays, LoadReport]:
    """Load parameters of this project, stored under `param/<name>` or bare names, into a model.

    Names and shapes must be equal, with four exceptions. The head keeps its initial values if the
    number of classes differs, or if the file has none. Positions are resized to the model's grid,
    and tables of relative positions to its window.
    Weights without a configuration do not show their own grid: it counts as the model's if the
    number of tokens is equal, else as square. A plain Vision Transformer may become one with part
    selection. Where there is a part layer, its encoder norm becomes `part_norm`. With placement
    `transfg` its last block becomes `part_layer` or is ignored, as `model.part_layer_init` says;
    with other placements a part layer keeps its initial values. A Swin Transformer may
    become a SwinFC.

    Raises:
        UserError: the file cannot be read, or names or shapes do not fit.
    """
    path = file.path
    own = open_own(file)
    if own.saved is not None and own.saved.model.name != BACKBONES.get(model.name):
        refuse_other_model(path, own.saved.model, model)
    target, ignored = _wanted(own.shapes, model, image_size), own.ignored
    names = {name: name for name in own.shapes}  # in the model -> in the file
    changes = _changes(own, model) if isinstance(model, VitConfig) else []
    for old, new, reason in [*changes, *_new_head(own.shapes, model)]:
        moved = [name for name in names if name.startswith(old)]
        if reason:
            ignored += [f"{name}: {reason}" for name in moved]
            target = {name: shape for name, shape in target.items() if not name.startswith(new)}
        else:
            names |= {new + name.removeprefix(old): name for name in moved}
        names = {name: source for name, source in names.items() if name not in moved}
    headless = not any(name.startswith("head.") for name in names)
    missing = tuple(name for name in target if headless and name.startswith("head."))
    target = {name: shape for name, shape in target.items() if name not in missing}
    shapes = {name: own.shapes[source] for name, source in names.items()}
    grids = _grids(own, target, image_size, model) if isinstance(model, VitConfig) else None
    tokens = {"pos_embed": (1, shapes["pos_embed"][1], target["pos_embed"][2])} if grids else {}
    windows = [name for name in shapes if name in target and _is_resized(name, shapes, target)]
    resizable = tokens | {name: shapes[name] for name in windows}
    refuse(path, shape_problems(target | resizable, shapes))  # before any array is read
    arrays = {name: own.read(source) for name, source in names.items()}
    resized = [_resize_positions(arrays, grids)] if grids else []
    resized += [_resize_table(arrays, name, target[name][0]) for name in windows]
    merged = strict_merge(target, arrays, path)
    initialised = tuple(name for name in param_shapes(model, image_size) if name not in merged)
    report = LoadReport(path, tuple(merged), tuple(resized), tuple(ignored), missing, initialised)
    notes = ([AVERAGED] if own.averaged else []) + untrained_head(merged)
    return merged, replace(report, notes=tuple(notes))


def _changes(own: Own, model: VitConfig) -> list[tuple[str, str, str]]:
    """Triples: prefix in the file, prefix in the model, reason to keep the initial values there.

    With an empty reason the arrays are renamed.
    """
    refuse_other_stem(own.path, model.stem, own_stem(own.shapes, own.path))
    _refuse_other_parts(own, model)
    if not model.has_part_layer or "norm.weight" not in own.shapes:
        return []
    norm = ("norm.", "part_norm.", "")
    if model.placement != "transfg":
        return [norm, ("part_layer.", "part_layer.", "the file has no part layer")]
    last = f"blocks.{model.depth - 1}."
    if not any(name.startswith(last) for name in own.shapes):
        raise UserError(f"{own.path}: {last[:-1]}: missing; is model.depth {model.depth} right?")
    reason = "model.part_layer_init is random" if model.part_layer_init == "random" else ""
    return [(last, "part_layer.", reason), norm]


def _refuse_other_parts(own: Own, model: VitConfig) -> None:
    """Refuse a file with part selection at another place; only a plain model may become another.

    Without a configuration, the number of blocks before the part layer tells the placements apart.
    """
    saved = own.saved.model if own.saved else None
    expected = f"{own.path}: expected a plain Vision Transformer for model.placement"
    if isinstance(saved, VitConfig):
        if saved.placement not in ("none", model.placement):
            raise UserError(
                f"{expected} {model.placement}, found one with part selection; "
                f"set model.placement={saved.placement}"
            )
    elif "part_norm.weight" in own.shapes:
        blocks = {name.split(".")[1] for name in own.shapes if name.startswith("blocks.")}
        if not model.has_part_layer or len(blocks) != model.encoder_depth:
            raise UserError(
                f"{expected} {model.placement}, found one with part selection: {len(blocks)} "
                f"blocks and a part layer; set model.placement=transfg model.depth="
                f"{len(blocks) + 1}, or model.placement=extra model.depth={len(blocks)}"
            )


def _new_head(shapes: Mapping[str, Shape], model: ModelConfig) -> list[tuple[str, str, str]]:
    """As `_changes`: classifiers keep their initial values if the number of classes differs.

    So does the head if it reads one token in the file, and several with placement `flatten`.
    """
    shape = shapes.get("head.weight", ())
    if shape[:1] not in ((), (model.classes,)):
        reason = f"{shape[0]} classes, model.classes {model.classes}"
        return [(prefix, prefix, reason) for prefix in ("head.", "stage_heads.")]
    if isinstance(model, VitConfig) and model.placement == "flatten":
        if shape[1:] == (model.width,) and model.feature_width != model.width:
            return [("head.", "head.", "it reads one token, model.placement flatten several")]
    return []


def _wanted(
    shapes: Mapping[str, Shape], model: ModelConfig, image_size: tuple[int, int]
) -> dict[str, Shape]:
    """The model's parameters; those of its backbone alone, if the file has none of the others."""
    target = param_shapes(model, image_size)
    if model.name not in BACKBONES:
        return target
    dims_of = ARCHITECTURES[BACKBONES[model.name]].dims_of
    if any(name in shapes and not dims_of(name) for name in target):
        return target
    return {name: shape for name, shape in target.items() if dims_of(name)}


def _is_resized(name: str, shapes: Mapping[str, Shape], target: Mapping[str, Shape]) -> bool:
    """Whether a parameter is a table of relative positions that has another window in the file."""
    return window_to_resize(name, shapes[name], target[name]) is not None


def _resize_table(arrays: Arrays, name: str, rows: int) -> str:
    """Resize a table of relative positions in `arrays`, and describe the change."""
    old = window_of(arrays[name].shape[0])
    arrays[name] = resize_bias_table(as_float(arrays[name]), rows)
    return f"{name}: window {old} to {window_of(rows)}"


class _Grids(NamedTuple):
    """Rows and columns of positions, and whether those of the file are only assumed."""

    file: tuple[int, int]
    model: tuple[int, int]
    assumed: bool


def _grids(
    own: Own, target: Mapping[str, Shape], image_size: tuple[int, int], model: VitConfig
) -> _Grids | None:
    """The grids of the file's `pos_embed` (1, T, D) and the model's; None if they are equal."""
    shape, expected = own.shapes.get("pos_embed", ()), target["pos_embed"]
    wanted = grid_size(image_size, model)
    if len(shape) != 3:
        return None
    if own.saved is not None and isinstance(own.saved.model, VitConfig):
        saved = grid_size(own.saved.data.crop, own.saved.model)
        if shape[1] == saved[0] * saved[1] + 1:
            return None if saved == wanted else _Grids(saved, wanted, assumed=False)
    if shape[1] == expected[1]:
        return None
    side = square_side(shape[1])
    if side is None:
        raise UserError(
            f"{own.path}: pos_embed: checkpoint {shape}, model {expected}: only a square grid "
            f"can be resized, and {shape[1]} tokens are not 1 + a square number; "
            "train with the checkpoint's data.crop"
        )
    return _Grids((side, side), wanted, assumed=True)


def _resize_positions(arrays: Arrays, grids: _Grids) -> str:
    """Resize `pos_embed` in `arrays`, and describe the change."""
    arrays["pos_embed"] = resize_pos_embed(as_float(arrays["pos_embed"]), grids.model, grids.file)
    old, new = (f"{rows} x {columns}" for rows, columns in grids[:2])
    return f"pos_embed: {old}{' (assumed square)' if grids.assumed else ''} to {new}"


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


def open_own(file: WeightFile) -> Own:
    """What a file with this project's names holds.

    A checkpoint of a run is read as a whole, to compare its checksum. Of other files only the
    headers are read.

    Raises:
        UserError: the file cannot be read, or a parameter does not hold floating-point numbers.
    """
    headers = file.headers()
    of_run = any(key.startswith(PARAM) for key in headers)
    params = evaluated_keys(headers) if of_run else {key: key for key in headers}
    wrong = [
        f"{key}: expected floating-point numbers, found {headers[key].dtype}"
        for key in params.values()
        if headers[key].dtype not in FLOATS
    ]
    refuse(file.path, wrong)
    metadata: dict[str, Any] = {}
    read: Callable[[str], Array] = file.read
    if checkpoint.KEY in file.strings:
        stored, metadata = checkpoint.load(Path(file.path))
        read = stored.__getitem__
    ignored = [f"{key}: state of the run" for key in headers if key not in params.values()]
    saved = build_config(metadata["config"], file.path) if "config" in metadata else None
    shapes = {name: headers[key].shape for name, key in params.items()}
    averaged = any(key.startswith(EMA) for key in params.values()) if of_run else False
    return Own(file.path, shapes, lambda name: read(params[name]), ignored, saved, averaged)
