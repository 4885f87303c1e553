"""`transfg convert` for the architectures of `naming.py`: to timm's names, and from a PyTorch file.

`export.py` does the same for Vision Transformers.
"""

from collections.abc import Mapping
from pathlib import Path

import safetensors.numpy

from transfg_core.backend import Array
from transfg_core.checkpoints.file import replace_file
from transfg_core.checkpoints.found_settings import found_settings, in_words
from transfg_core.checkpoints.naming import Naming
from transfg_core.checkpoints.programs import named_as, table_of
from transfg_core.checkpoints.renamed import load_naming
from transfg_core.checkpoints.weight_file import WeightFile
from transfg_core.config.loading import build_config
from transfg_core.config.model import ModelConfig
from transfg_core.errors import UserError
from transfg_core.models.layout import param_specs
from transfg_core.params.merge import summary

SIDE = 224  # of an image; no shape of these architectures depends on it


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


def write_timm(target: Path, values: Mapping[str, Array], model: ModelConfig) -> str:
    """Write a model's parameters under timm's names; returns the title of these names.

    Raises:
        UserError: timm has no such model, or the model has parameters that timm's has not.
    """
    table = table_of("timm", model)
    assert isinstance(table, Naming)
    own = [name for name in param_specs(model) if table.place(name) is None]
    if own:
        raise UserError(f"{target}: {own[0]}: timm has no such parameter; model.pretrained does")
    named = named_as("timm", values, model)
    # transformers refuses a file without this metadata
    replace_file(target, safetensors.numpy.save(named, metadata={"format": "pt"}))
    return table.title


def to_own_names(file: WeightFile, naming: Naming, target: Path) -> str:
    """Write a PyTorch file's parameters under this project's names, without a pickle.

    Raises:
        UserError: the file lacks an array that shows its sizes, or no model can have them.
    """
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
