"""Write a trained model as a folder: weights, `config.json`, model card, and ONNX if asked for.

    export(read_model(Path("runs/birds")), Path("birds"), onnx=False, overwrite=False)

The folder is written as a whole or not at all: it is filled under another name, then renamed.
"""

import os
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.numpy

from transfg_core.backend import load_onnx_export
from transfg_core.checkpoints.file import TEMPORARY, replace_file
from transfg_core.checkpoints.programs import named_as
from transfg_core.checkpoints.weight_file import origin_of
from transfg_core.data.whole_folder import one_writer, write_whole
from transfg_core.errors import RunFailed, UserError
from transfg_core.export.card import model_card
from transfg_core.export.config_json import config_json, published_facts
from transfg_core.export.timm_form import reasons_against
from transfg_core.inference.exported import CARD, CONFIG, ONNX, WEIGHTS, is_exported
from transfg_core.inference.facts import facts_of
from transfg_core.inference.facts_form import checked_facts
from transfg_core.inference.source import TrainedModel
from transfg_core.run.metrics_log import clean

FILES = (WEIGHTS, CONFIG, CARD, ONNX, f"{ONNX}.data")  # the last: arrays of more than 2 GB
NEW, OLD = ".new", ".replaced"  # names of the two folders while one replaces the other
PARTIAL = ".partial"  # of a folder that `write_whole` fills
REMEDY = "mend or remove this fact in the run's env.json"
WHAT = "an exported model"


def export(model: TrainedModel, folder: Path, onnx: bool, overwrite: bool) -> list[str]:
    """Write the folder, and return the names of its files.

    Args:
        onnx: also write `model.onnx`, which needs PyTorch.
        overwrite: replace an earlier export.

    Raises:
        UserError: the folder holds something else, or ONNX cannot hold the model.
        RunFailed: the folder cannot be written; an earlier one is intact.
    """
    writer = load_onnx_export() if onnx else None
    if writer:
        writer.check(model.config)
    facts = checked_facts(clean(facts_of(model)), f"{model.path}: its facts", REMEDY)
    folder = real(folder)
    write = partial(fill, model, published_facts(facts), writer)
    with one_writer(folder.parent, WHAT):
        try:
            finish_replacement(folder)
            refuse_leftovers(folder)
            if not is_occupied(folder):
                write_whole(folder, write, WHAT)
            elif not (is_exported(folder) and overwrite and holds_only_files(folder)):
                raise UserError(occupied(folder))
            else:
                write_whole(beside(folder, NEW), write, WHAT)
                exchange(folder)
        except OSError as error:
            raise RunFailed(f"{folder}: cannot write {WHAT} here: {error}") from error
    return [name for name in FILES if (folder / name).exists()]


def fill(model: TrainedModel, facts: dict[str, Any], writer: Any, folder: Path) -> None:
    """Write the files into an empty folder.

    Raises:
        RunFailed: a file cannot be written.
    """
    named = model.params
    if not reasons_against(model.config):
        named = named_as("timm", model.params, model.config.model)
    # other programs refuse a file without this metadata
    weights = safetensors.numpy.save(dict(named), metadata={"format": "pt"})
    replace_file(folder / WEIGHTS, weights)
    digest = origin_of(str(folder / WEIGHTS), "").sha256
    replace_file(folder / CONFIG, config_json(model, facts, digest))
    if writer:
        writer.write(model.config, model.params, model.classes, folder / ONNX)
    present = [name for name in FILES if (folder / name).exists()]
    replace_file(folder / CARD, model_card(model, facts, present).encode())


def real(folder: Path) -> Path:
    """The folder itself, where a link or `..` leads to it: links stay links.

    Raises:
        UserError: the links lead nowhere, or it is the root.
    """
    try:
        found = folder.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop, before Python 3.13
        raise UserError(f"{folder}: cannot follow its links: {error}; choose another") from error
    if not found.name:
        raise UserError(f"{folder}: expected a folder below the root; choose another name")
    return found


def beside(folder: Path, ending: str) -> Path:
    """The folder of another name that serves a replacement."""
    return folder.with_name(folder.name + ending)


def exchange(folder: Path) -> None:
    """Put the new folder in place of the old one, which is removed."""
    folder.rename(beside(folder, OLD))
    try:
        beside(folder, NEW).rename(folder)
    except BaseException:
        beside(folder, OLD).rename(folder)
        raise
    remove(beside(folder, OLD))


def finish_replacement(folder: Path) -> None:
    """Undo or finish the replacement in which a process was killed.

    It was killed before the two renames of `exchange` (then `.new` is left), between them (both
    are left), or after them (`.replaced` is left).
    """
    old, new = beside(folder, OLD), beside(folder, NEW)
    if is_own(old):
        if os.path.lexists(folder):
            remove(old)
        else:
            old.rename(folder)
    if is_own(new):
        remove(new)


def is_own(folder: Path) -> bool:
    """Whether this is an export and nothing else, and no link to one."""
    return not folder.is_symlink() and is_exported(folder) and holds_only_files(folder)


def remove(folder: Path) -> None:
    """Remove an export; `config.json`, by which `is_own` knows it, goes last."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == CONFIG):
        path.unlink()
    folder.rmdir()


def is_occupied(folder: Path) -> bool:
    """Whether something lies there: anything but an empty folder.

    Raises:
        UserError: it is a file, or cannot be read.
    """
    try:
        return any(folder.iterdir())
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UserError(f"{folder}: cannot write a folder there: {error.strerror}") from error


def holds_only_files(folder: Path) -> bool:
    """Whether a folder has only files that an export writes."""
    return all(map(is_of_export, folder.iterdir()))


def is_of_export(path: Path) -> bool:
    """Whether an export writes a file of this name, or a killed one left it."""
    return path.is_file() and (path.name in FILES or path.name.endswith(TEMPORARY))


def refuse_leftovers(folder: Path) -> None:
    """Refuse if a folder that serves the replacement holds files of somebody else.

    Raises:
        UserError: one does, or is no folder.
    """
    for ending in (PARTIAL, NEW + PARTIAL, NEW, OLD):
        path = beside(folder, ending)
        is_free = is_ours_or_empty(path) if PARTIAL in ending else not is_occupied(path)
        if path.is_symlink() or not is_free:
            raise UserError(
                f"{path}: is in the way and holds other files; rename it, and try again"
            )


def is_ours_or_empty(folder: Path) -> bool:
    """Whether a folder is absent, or has only files that an export writes."""
    return not is_occupied(folder) or holds_only_files(folder)


def occupied(folder: Path) -> str:
    """Why a folder is not replaced."""
    if not is_exported(folder):
        return (
            f"{folder}: expected a new or empty folder, found other files in it; choose another "
            "name"
        )
    other = [path.name for path in folder.iterdir() if not is_of_export(path)]
    if other:
        return (
            f"{folder}: expected an earlier export alone, found {sorted(other)[0]} beside it, "
            "which would be lost; choose another name"
        )
    return (
        f"{folder}: holds an earlier export; add --overwrite to replace it, its model card "
        "included, or choose another name"
    )
