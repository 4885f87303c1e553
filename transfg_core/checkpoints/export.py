"""Convert weights: parameters of this project for other programs, and weights of others for it."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy
from pydantic import ValidationError

from transfg_core.backend import Array, Arrays
from transfg_core.checkpoints.export_renamed import convert_naming, no_need, write_timm
from transfg_core.checkpoints.file import replace_file
from transfg_core.checkpoints.forms import Form, describe, dimensions, known_size, write_form
from transfg_core.checkpoints.google import GOOGLE
from transfg_core.checkpoints.naming import Naming
from transfg_core.checkpoints.own import Own, open_own
from transfg_core.checkpoints.plan import load_form
from transfg_core.checkpoints.recognise import open_weights, recognise
from transfg_core.checkpoints.tables import TIMM
from transfg_core.checkpoints.torch_file import TorchFile
from transfg_core.checkpoints.weight_file import WeightFile
from transfg_core.config.vit import SIZES, VitConfig
from transfg_core.config.yaml_text import describe_problem
from transfg_core.errors import UserError
from transfg_core.models.rows import resolve
from transfg_core.models.vit import grid_size, param_specs, require_vit
from transfg_core.models.vit import sizes as vit_sizes
from transfg_core.params.merge import strict_merge, summary
from transfg_core.params.positions import square_side

SUFFIXES = (".npz", ".safetensors")
NEEDED = {"D": "the width", "M": "the width of the MLP", "P": "the size of a patch"}


def convert(source: str, target: Path) -> str:
    """Convert a file of weights, and return lines about it.

    | source | target | names in the target |
    | --- | --- | --- |
    | a run's checkpoint, plain ViT | .npz | Google's |
    | a run's checkpoint, plain ViT | .safetensors | timm's |
    | a run's checkpoint, ResNet or Swin | .safetensors | timm's |
    | a PyTorch file of a known form | .safetensors | this project's, for model.pretrained |
    | any file of a known form, plain ViT | .npz | Google's |

    Of a run that averaged its parameters (`optim.ema`), the averaged ones are converted.

    The target is replaced in one step, after all checks.

    Raises:
        UserError: the source is of no known form, needs no conversion, or cannot have this target.
        RunFailed: the target cannot be written.
    """
    suffix = target.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{target}: expected a name ending in .safetensors or .npz")
    with open_weights(source) as file:
        form = recognise(file, file.headers())
        what, report = "parameters", ""
        if isinstance(form, Naming):
            return convert_naming(file, form, target)
        if form is None:
            own = open_own(file)
            what = "averaged parameters (optim.ema)" if own.averaged else what
            if title := write_timm(own, target):
                return f"{source} -> {target}: {len(own.shapes)} {what} under the names of {title}"
            arrays, model = _of_run(own)
        elif form is GOOGLE and suffix == ".npz":
            raise UserError(no_need(source, form.title))
        elif suffix == ".npz":
            arrays, model, report = _of_form(file, form)
        elif not isinstance(file, TorchFile):
            raise UserError(no_need(source, form.title))
        else:
            return _to_own(file, form, target)
    to = GOOGLE if suffix == ".npz" else TIMM
    save_as(to, target, arrays, model)
    return f"{report}{source} -> {target}: {len(arrays)} {what} under the names of {to.title}"


def save_as(form: Form, path: Path, arrays: Mapping[str, Array], model: VitConfig) -> None:
    """Write a plain Vision Transformer under other names, as .npz (Google's) or .safetensors.

    Raises:
        UserError: the model has part selection, which such a file cannot hold; names or shapes
            differ from the model's; or the positions are not a square grid.
        RunFailed: the file cannot be written.
    """
    if model.placement != "none":
        raise UserError(f"{path}: expected model.placement none, found {model.placement}")
    # the model alone does not determine T and C, so the arrays give them
    sources = (("T", "pos_embed", 1), ("C", "head.bias", 0))
    free = {letter: arrays[name].shape[axis] for letter, name, axis in sources if name in arrays}
    sizes = vit_sizes(model) | {"T": 0, "C": 0} | free
    headless = not any(name.startswith("head.") for name in arrays)
    shapes = {
        name: resolve(spec.dims, sizes)
        for name, spec in param_specs(model).items()
        if not (headless and name.startswith("head."))
    }
    values = strict_merge(shapes, arrays, str(path))
    if square_side(sizes["T"]) is None:
        raise UserError(f"{path}: expected a square grid, found {sizes['T'] - 1} positions")
    named = write_form(form, values, model)
    if path.suffix.lower() == ".npz":
        buffer = io.BytesIO()
        np.savez(buffer, **named)
        replace_file(path, buffer.getvalue())
    else:
        # transformers refuses a file without this metadata
        replace_file(path, safetensors.numpy.save(named, metadata={"format": "pt"}))


def _of_run(own: Own) -> tuple[Arrays, VitConfig]:
    """The parameters and the model of a run's checkpoint that other programs can hold."""
    saved = own.saved
    if saved is None:
        raise UserError(
            f"{own.path}: expected a checkpoint of a run, found weights without a configuration; "
            "choose a checkpoint from a run's folder. model.pretrained takes the file as it is"
        )
    model = require_vit(saved.model, f"{own.path}: a Vision Transformer")
    rows, columns = grid_size(saved.data.crop, model)
    if rows != columns or model.stride != model.patch:
        raise UserError(
            f"{own.path}: expected a square grid of patches without overlap, as other programs "
            f"need, found {rows} x {columns} patches of {model.patch} pixels every {model.stride} "
            "pixels"
        )
    return {name: own.read(name) for name in own.shapes}, model


def _of_form(file: WeightFile, form: Form) -> tuple[Arrays, VitConfig, str]:
    """The parameters and the model of another program's file, for Google's names; a report."""
    if form.has_parts:
        raise UserError(
            f"{file.path}: expected a plain Vision Transformer, found one with part selection, "
            "which Google's names cannot hold; model.pretrained takes the file as it is"
        )
    model, size, heads = model_of(file, form)
    if heads is None:
        raise UserError(
            f"{file.path}: the number of heads is not in the file, and its sizes are of none of "
            f"{', '.join(SIZES)}; Google's arrays need it. model.pretrained takes the file as it is"
        )
    arrays, report = load_form(file, form, model, size)
    return arrays, model, f"{report.summary()}\n"


def _to_own(file: WeightFile, form: Form, target: Path) -> str:
    """Write a PyTorch file's parameters under this project's names, without a pickle."""
    model, size, _ = model_of(file, form)
    arrays, report = load_form(file, form, model, size)
    replace_file(target, safetensors.numpy.save(arrays))
    shapes = {name: array.shape for name, array in arrays.items()}
    found = describe_file(file, form)
    return f"{report.summary()}\n{file.path} -> {target}\n{found}\n{summary(shapes)}"


def model_of(file: WeightFile, form: Form) -> tuple[VitConfig, tuple[int, int], int | None]:
    """The model that a file's headers show, an image size for it, and its heads if they show.

    Raises:
        UserError: the file lacks an array that shows them, or no model can have its sizes.
    """
    found, tokens, classes = _sizes(file, form)
    absent = [name for letter, name in NEEDED.items() if not found.get(letter)]
    side = square_side(tokens) or square_side(tokens + 1)
    if absent or not side or found["depth"] < 2:
        absent += [] if side else ["a square grid of positions"]
        absent += [] if found["depth"] >= 2 else ["at least two blocks"]
        raise UserError(f"{file.path}: expected {', '.join(absent)}; is the file complete?")
    size = known_size(found)
    heads = found.get("K") or (SIZES[size][1] if size else None)
    if found["D"] % (heads or 1):
        raise UserError(f"{file.path}: expected a width for {heads} heads, found {found['D']}")
    try:
        model = VitConfig.model_validate({
            "width": found["D"], "depth": found["depth"], "mlp": found["M"], "patch": found["P"],
            "heads": heads or 1, "classes": classes, "pretrained_head": True,
            "placement": "transfg" if form.has_parts else "none",
            "stem": form.stem_of(form.bare_names(file.headers()), file.path),
        })  # fmt: skip
    except ValidationError as error:
        problems = [describe_problem(item, VitConfig) for item in error.errors(include_url=False)]
        raise UserError(
            f"{file.path}: expected the sizes of a Vision Transformer, found {describe(found)}: "
            f"{'; '.join(problems)}; is this the right file?"
        ) from error
    pixels = side * model.patch * model.step
    return model, (pixels, pixels), heads


def _sizes(file: WeightFile, form: Form) -> tuple[dict[str, int], int, int | None]:
    """Dimensions by letter, tokens, and classes (None: there is no head, or of one class)."""
    headers = file.headers()
    shapes = {name: headers[key].shape for name, key in form.bare_names(headers).items()}
    found = dimensions(form, shapes, form.depth(shapes))
    classes = found.get("C", 0)
    return found, found.get("T", 0), classes if classes > 1 else None


def describe_file(file: WeightFile, form: Form) -> str:
    """The settings of `model` and `data` that a file shows, as lines for the user."""
    found, tokens, classes = _sizes(file, form)
    side = square_side(tokens) or square_side(tokens + 1)
    heads = "" if "K" in found or known_size(found) else ", heads: not in the file"
    placement = "transfg" if form.has_parts else "none"
    stem = form.stem_of(form.bare_names(file.headers()), file.path)
    placement += "" if stem == "none" else f", stem {stem}"
    return (
        f"placement {placement}, {describe(found)}, classes {classes or 'none'}{heads}\n"
        f"{side} x {side} patches: choose data.crop and model.stride to match"
    )
