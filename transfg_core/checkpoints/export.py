"""Parameters of this project for other programs."""

from pathlib import Path

from transfg_core.checkpoints.google import save_vit_npz
from transfg_core.checkpoints.own import read_own
from transfg_core.errors import UserError
from transfg_core.models.vit import grid_size, require_vit


def export_vit_npz(source: Path, target: Path) -> str:
    """Write a run's plain Vision Transformer as Google's .npz; what was done, in a sentence.

    Raises:
        UserError: the source is no checkpoint of a run, or not of a plain Vision Transformer.
        RunFailed: the target cannot be written.
    """
    if not source.is_file():
        raise UserError(f"{source}: no such file; check the path")
    arrays, _, saved = read_own(str(source))
    if saved is None:
        raise UserError(f"{source}: it does not tell its model; expected a checkpoint of a run")
    model = require_vit(saved.model, f"{source}: Google's .npz")
    rows, columns = grid_size(saved.data.crop, model)
    if rows != columns or model.stride != model.patch:
        raise UserError(
            f"{source}: patches of {model.patch} every {model.stride} pixels, "
            f"{rows} x {columns} of them; such a file can hold a square of patches side by side"
        )
    save_vit_npz(target, arrays, model)
    return f"{source} -> {target}: {len(arrays)} arrays under Google's names"
