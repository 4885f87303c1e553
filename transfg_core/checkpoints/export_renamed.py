"""`transfg convert` for the architectures of `naming.py`: to timm's names, and from a PyTorch file.

`export.py` does the same for Vision Transformers.
"""

from pathlib import Path

import safetensors.numpy

from transfg_core.checkpoints.file import replace_file
from transfg_core.checkpoints.found_settings import found_settings, in_words
from transfg_core.checkpoints.naming import Naming
from transfg_core.checkpoints.own import Own
from transfg_core.checkpoints.programs import PROGRAMS
from transfg_core.checkpoints.renamed import load_naming, write_naming
from transfg_core.checkpoints.torch_file import TorchFile
from transfg_core.checkpoints.weight_file import WeightFile
from transfg_core.config.loading import build_config
from transfg_core.errors import UserError
from transfg_core.params.merge import summary

SIDE = 224  # of an image; no shape of these architectures depends on it


def no_need(source: str, title: str) -> str:
    """The message for a file that model.pretrained takes as it is."""
    return (
        f"{source}: has the names of {title}, which need no conversion; "
        f"set model.pretrained={source}"
    )


def refuse_npz(target: Path, what: str) -> None:
    """Refuse an .npz as the target.

    Raises:
        UserError: the target is one.
    """
    if target.suffix.lower() == ".npz":
        raise UserError(
            f"{target}: expected a name ending in .safetensors, found .npz: Google's names are of "
            f"Vision Transformers, and this is {what}"
        )


def write_timm(own: Own, target: Path) -> str:
    """Write a run's parameters under timm's names; returns the title of these names.

    It is empty, and nothing is written, for a Vision Transformer and for models that timm lacks.

    Raises:
        UserError: the target is an .npz.
    """
    model = own.saved.model if own.saved else None
    table = PROGRAMS["timm"].get(model.name) if model else None
    if not isinstance(table, Naming):
        return ""
    refuse_npz(target, f"of {table.title}")
    named = write_naming(table, {name: own.read(name) for name in own.shapes})
    # transformers refuses a file without this metadata
    replace_file(target, safetensors.numpy.save(named, metadata={"format": "pt"}))
    return table.title


def convert_naming(file: WeightFile, naming: Naming, target: Path) -> str:
    """Write a PyTorch file's parameters under this project's names, without a pickle.

    Raises:
        UserError: the file needs no conversion, it lacks an array that shows its sizes, or no model
            can have them; or the target is an .npz.
    """
    refuse_npz(target, f"of {naming.title}")
    if not isinstance(file, TorchFile):
        raise UserError(no_need(file.path, naming.title))
    headers = file.headers()
    shapes = {name: headers[key].shape for name, key in naming.bare_names(headers).items()}
    settings = found_settings(naming, shapes)
    if settings is None:
        raise UserError(
            f"{file.path}: expected all blocks of a model with the names of {naming.title}, found "
            "arrays missing; is the file complete?"
        )
    model = build_config({"model": settings | {"pretrained_head": True}}, file.path).model
    model = model.model_copy(update={"classes": model.classes or 2})  # a file without a head
    arrays, report = load_naming(file, naming, model, (SIDE, SIDE))
    replace_file(target, safetensors.numpy.save(arrays))
    found = {name: array.shape for name, array in arrays.items()}
    return f"{report.summary()}\n{file.path} -> {target}\n{in_words(settings)}\n{summary(found)}"
