"""Starting values of a model: from `model.pretrained` where it has them, else initial values."""

from dataclasses import replace

from transfg_core.backend import Arrays
from transfg_core.checkpoints.known import weights_at
from transfg_core.checkpoints.load_report import LoadReport
from transfg_core.checkpoints.naming import Naming
from transfg_core.checkpoints.own import load_own
from transfg_core.checkpoints.plan import load_form
from transfg_core.checkpoints.recognise import open_weights, recognise
from transfg_core.checkpoints.renamed import load_naming
from transfg_core.checkpoints.weight_file import origin_of
from transfg_core.config.model import ModelConfig
from transfg_core.config.sections import Config
from transfg_core.models.layout import param_shapes
from transfg_core.models.vit import require_vit
from transfg_core.params.initial import initial_params


def build_params(config: Config) -> tuple[Arrays, LoadReport | None]:
    """The starting parameters (dict: canonical name -> array), and a report of the loading.

    The report is None if `model.pretrained` is not set.

    Raises:
        UserError: the checkpoint cannot be read or does not fit the model.
    """
    model, image_size = config.model, config.data.crop
    if model.pretrained is None:
        return initial_params(model, image_size, config.run.seed), None
    loaded, report = load_pretrained(model.pretrained, model, image_size)
    advice = _advice(model.pretrained, config.data.normalise)
    report = replace(report, notes=(*report.notes, *advice))
    drawn = initial_params(model, image_size, config.run.seed, only=report.initialised)
    values = loaded | drawn
    shapes = param_shapes(model, image_size)
    assert {name: value.shape for name, value in values.items()} == shapes
    return {name: values[name] for name in shapes}, report


def _advice(path: str, normalise: str) -> tuple[str, ...]:
    """A line if known weights were trained on otherwise normalised images."""
    row = weights_at(path)
    if row is None or row.normalise == normalise:
        return ()
    return (
        f"note: {row.name} was trained with data.normalise={row.normalise}, "
        f"this run has {normalise}",
    )


def load_pretrained(
    path: str, model: ModelConfig, image_size: tuple[int, int]
) -> tuple[Arrays, LoadReport]:
    """Dict: canonical name -> array for the parameters that the checkpoint fills, and a report.

    The file's content says what it is: any form of `tables.FORMS`, any naming of `naming.NAMINGS`,
    or this project's own names, in a .safetensors, an .npz or a file of torch.save.

    Raises:
        UserError: the file is of an unknown form, cannot be read, or does not fit the model.
    """
    with open_weights(path) as file:
        form = recognise(file, file.headers())
        if form is None:
            arrays, report = load_own(file, model, image_size)
        elif isinstance(form, Naming):
            arrays, report = load_naming(file, form, model, image_size)
        else:
            vit = require_vit(model, f"{path}: a Vision Transformer")
            arrays, report = load_form(file, form, vit, image_size)
        notes = (file.note,) if file.note else ()
    origin = origin_of(path, form.title if form else "this project")
    return arrays, replace(report, origin=origin, notes=(*notes, *report.notes))
