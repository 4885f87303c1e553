"""Export parameters of this project to other programs."""

from pathlib import Path

from transfg_core.checkpoints.google import save_vit_npz
from transfg_core.checkpoints.own import read_own
from transfg_core.errors import UserError
from transfg_core.models.vit import grid_size, require_vit


def export_vit_npz(source: Path, target: Path) -> str:
    """Write a run's plain Vision Transformer as Google's .npz, and return a line about it.

    Raises:
        UserError: the source is not a run's checkpoint, or not of a plain Vision Transformer on a
            square grid without overlap.
        RunFailed: the target cannot be written.
    """
    if not source.is_file():
        raise UserError(f"{source}: no such file; check the path")
    arrays, _, saved = read_own(str(source))
    if saved is None:
        raise UserError(
            f"{source}: expected a checkpoint of a run, found weights without a configuration; "
            "choose a checkpoint from a run's folder"
        )
    model = require_vit(saved.model, f"{source}: Google's .npz")
    rows, columns = grid_size(saved.data.crop, model)
    if rows != columns or model.stride != model.patch:
        raise UserError(
            f"{source}: expected a square grid of patches without overlap, as Google's .npz needs, "
            f"found {rows} x {columns} patches of {model.patch} pixels every {model.stride} pixels"
        )
    save_vit_npz(target, arrays, model)
    return f"{source} -> {target}: {len(arrays)} arrays under Google's names"
