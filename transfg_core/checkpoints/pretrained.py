"""Starting values of a model: from `model.pretrained` where it has them, else initial values."""

from pathlib import Path

from transfg_core.backend import Arrays
from transfg_core.checkpoints.google import load_vit_npz
from transfg_core.checkpoints.load_report import LoadReport
from transfg_core.checkpoints.own import load_own
from transfg_core.config.model import ModelConfig
from transfg_core.config.sections import Config
from transfg_core.errors import UserError
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
    drawn = initial_params(model, image_size, config.run.seed, only=report.initialised)
    values = loaded | drawn
    shapes = param_shapes(model, image_size)
    assert {name: value.shape for name, value in values.items()} == shapes
    return {name: values[name] for name in shapes}, report


def load_pretrained(
    path: str, model: ModelConfig, image_size: tuple[int, int]
) -> tuple[Arrays, LoadReport]:
    """Dict: canonical name -> array for the parameters that the checkpoint fills, and a report.

    Raises:
        UserError: the file is of an unknown type, cannot be read, or does not fit the model.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".npz":
        return load_vit_npz(path, require_vit(model, f"{path}: a Vision Transformer"), image_size)
    if suffix == ".safetensors":
        return load_own(path, model, image_size)
    if suffix in (".bin", ".pth", ".pt"):
        raise UserError(
            f"{path}: expected a .npz or .safetensors file, found a PyTorch checkpoint; run "
            f"`transfg convert {path} {Path(path).with_suffix('.safetensors')}` and set "
            "model.pretrained to the result"
        )
    raise UserError(f"{path}: expected a .npz or .safetensors file; check model.pretrained")
