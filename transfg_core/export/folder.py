"""Write a trained model as a folder: weights, `config.json`, model card, and ONNX if asked for.

    export(read_model(Path("runs/birds")), Path("birds"), onnx=False, overwrite=False)

The folder is written as a whole or not at all: it is filled under another name, then renamed.
"""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.numpy

from transfg_core.backend import load_onnx_export
from transfg_core.checkpoints.file import TEMPORARY, replace_file
from transfg_core.checkpoints.programs import named_as
from transfg_core.checkpoints.weight_file import origin_of
from transfg_core.data.whole_folder import one_writer, write_whole
from transfg_core.errors import UserError
from transfg_core.export.card import model_card
from transfg_core.export.config_json import config_json, published_facts
from transfg_core.export.timm_form import reasons_against
from transfg_core.inference.exported import CARD, CONFIG, ONNX, WEIGHTS, is_exported
from transfg_core.inference.facts import facts_of
from transfg_core.inference.source import TrainedModel
from transfg_core.run.metrics_log import clean

FILES = (WEIGHTS, CONFIG, CARD, ONNX, f"{ONNX}.data")  # the last: arrays of more than 2 GB
NEW, OLD = ".new", ".replaced"  # names of the two folders while one replaces the other
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
    facts = published_facts(clean(facts_of(model)))
    folder = folder.absolute()
    write = partial(fill, model, facts, writer)
    with one_writer(folder.parent, WHAT):
        finish_replacement(folder)
        if not is_occupied(folder):
            refuse_leftover(folder)
            write_whole(folder, write, WHAT)
        elif not (is_exported(folder) and overwrite and holds_only_files(folder)):
            raise UserError(occupied(folder))
        else:
            new = beside(folder, NEW)
            refuse_leftover(new)
            write_whole(new, write, WHAT)
            folder.rename(beside(folder, OLD))
            new.rename(folder)
            shutil.rmtree(beside(folder, OLD))
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


def beside(folder: Path, ending: str) -> Path:
    """The folder of another name that serves a replacement."""
    return folder.with_name(folder.name + ending)


def finish_replacement(folder: Path) -> None:
    """Undo or finish the exchange of two folders at which a process was killed."""
    old = beside(folder, OLD)
    if is_exported(old) and holds_only_files(old):
        if folder.exists():
            shutil.rmtree(old)
        else:
            old.rename(folder)


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
    names = [path.name for path in folder.iterdir()]
    return all(name in FILES or name.endswith(TEMPORARY) for name in names)


def refuse_leftover(folder: Path) -> None:
    """Refuse if the folder that is filled first holds files of somebody else.

    Raises:
        UserError: it does.
    """
    filled = beside(folder, ".partial")
    if filled.exists() and not holds_only_files(filled):
        raise UserError(f"{filled}: is in the way and holds other files; rename it, and try again")


def occupied(folder: Path) -> str:
    """Why a folder is not replaced."""
    if not is_exported(folder):
        return (
            f"{folder}: expected a new or empty folder, found other files in it; choose another "
            "name"
        )
    other = [path.name for path in folder.iterdir() if path.name not in FILES]
    if other:
        return (
            f"{folder}: expected an earlier export alone, found {sorted(other)[0]} beside it, "
            "which would be lost; choose another name"
        )
    return (
        f"{folder}: holds an earlier export; add --overwrite to replace it, its model card "
        "included, or choose another name"
    )
