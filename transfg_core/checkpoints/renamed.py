"""From a file with another program's names to a model's parameters: planned first, then read.

For the architectures of `naming.py`; `plan.py` does the same for Vision Transformers.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from transfg_core.backend import Array, Arrays
from transfg_core.checkpoints.found_settings import found_settings, in_words
from transfg_core.checkpoints.load_report import LoadReport, untrained_head
from transfg_core.checkpoints.naming import NAMINGS, Naming, Place
from transfg_core.checkpoints.weight_file import FLOATS, Header, WeightFile
from transfg_core.config.model import ModelConfig
from transfg_core.errors import UserError
from transfg_core.models.layout import BACKBONES, architecture, param_shapes, suspects
from transfg_core.models.rows import Shape
from transfg_core.params.bias_tables import resize_bias_table, window_of, window_to_resize
from transfg_core.params.merge import and_more, as_float, refuse

SWIN_V2 = "continuous relative positions (Swin V2)"
CONTINUOUS_POSITIONS = r"\b(attn|self)\.(logit_scale$|cpb_mlp\.|continuous_position_bias_mlp\.)"
# What else a model has -> a pattern of the names that show it; by model.name.
LOOKALIKES = {
    "swin": (
        ("absolute positions", r"(^|\.)absolute_pos_embed$"),
        (SWIN_V2, CONTINUOUS_POSITIONS),
    ),
    "resnet": (
        ("squeeze and excitation", r"\.se\.|\.se_module\."),
        ("a stem of three convolutions (ResNet-C, -D)", r"(^|\.)conv1\.\d"),
        ("an average pool before a projection (ResNet-D)", r"downsample\.2\."),
        ("attention pooling (CLIP)", r"(^|\.)attnpool\."),
    ),
}


class Plan(NamedTuple):
    """What to read: key -> (the program's parts of it, parameters); and what is left."""

    steps: dict[str, dict[str, Place]]
    ignored: list[str]
    missing: tuple[str, ...]
    resized: dict[str, int]  # bias table -> the window of the file's table


def find_naming(source: str, headers: Mapping[str, Header]) -> Naming | None:
    """The program whose names a file has; None if it is none of `NAMINGS`.

    Raises:
        UserError: the file has several models, or one that differs in more than names.
    """
    for prefixes in (naming.prefixes(headers) for naming in NAMINGS):
        if len(prefixes) > 1:
            raise UserError(
                f"{source}: expected one model, found {len(prefixes)} ({', '.join(prefixes[:3])}); "
                "save the arrays of one model in a file of its own"
            )
    naming = next((naming for naming in NAMINGS if naming.bare_names(headers)), None)
    for description, pattern in LOOKALIKES[naming.architecture] if naming else ():
        if key := next((key for key in headers if re.search(pattern, key)), None):
            assert naming is not None
            raise UserError(
                f"{source}: expected the names of {naming.title}, found a model with {description}:"
                f" {key}; `transfg weights` lists files that fit"
            )
    return naming


def load_naming(
    file: WeightFile, naming: Naming, model: ModelConfig, image_size: tuple[int, int]
) -> tuple[Arrays, LoadReport]:
    """Dict: canonical name -> C-contiguous float32 array, for the parameters that the file fills.

    The head is read only if `model.pretrained_head` is true and the numbers of classes are equal.
    Tables of relative positions are resized to the model's window.

    Raises:
        UserError: the file is damaged or of another architecture or size, or holds values that are
            not finite; lists each problem with key, expected and found.
    """
    shapes = param_shapes(model, image_size)
    plan = plan_naming(naming, file.headers(), model, shapes, file.path)
    loaded: Arrays = {}
    problems = []
    for key, places in plan.steps.items():
        array = as_float(file.read(key))
        if not np.isfinite(array).all():
            problems.append(f"{key}: holds NaN or infinity; download the file again")
        for name, place in places.items():
            part = np.split(array, place.parts)[place.part]
            if name in plan.resized and not problems:
                part = resize_bias_table(part, shapes[name][0])
            loaded[name] = as_float(part).reshape(shapes[name]) if not problems else part
    refuse(file.path, problems)
    arrays = {name: np.ascontiguousarray(loaded[name]) for name in shapes if name in loaded}
    initialised = tuple(name for name in shapes if name not in arrays)
    resized = tuple(
        f"{name}: window {old} to {window_of(shapes[name][0])}"
        for name, old in plan.resized.items()
    )
    return arrays, LoadReport(
        file.path,
        tuple(arrays),
        resized,
        tuple(plan.ignored),
        plan.missing,
        initialised,
        notes=tuple(untrained_head(arrays)),
    )


def plan_naming(
    naming: Naming,
    headers: Mapping[str, Header],
    model: ModelConfig,
    shapes: Mapping[str, Shape],
    source: str,
) -> Plan:
    """Decide from headers alone which parameters each array of a file fills.

    Raises:
        UserError: the file is of another architecture or size; lists every problem.
    """
    if naming.architecture not in (model.name, BACKBONES.get(model.name)):
        raise UserError(
            f"{source}: expected weights for model.name {model.name}, found the names of "
            f"{naming.title}; set model.name={naming.architecture}"
        )
    bare = naming.bare_names(headers)
    twice = headers.keys() - set(bare.values())
    refuse(source, [f"{key}: expected each array once, found two" for key in sorted(twice)])
    steps: dict[str, dict[str, Place]] = {}
    for name, place in naming.places(shapes).items():
        steps.setdefault(place.key, {})[name] = place
    found = {name: headers[key].shape for name, key in bare.items()}
    further = [name for name in found if name not in steps]
    ignored, missing = _leave_out_head(steps, found, model)
    lines = [f"{name}: missing; is the file complete?" for name in steps if name not in found]
    reasons = {name: naming.reason_to_ignore(name) for name in further}
    ignored += [f"{bare[name]}: {reason}" for name, reason in reasons.items() if reason]
    lines += [f"{bare[n]}: unexpected, found {found[n]}" for n in further if not reasons[n]]
    steps = {name: parts for name, parts in steps.items() if name in found}
    wrong, resized = _shape_problems(steps, found, shapes, model)
    lines += wrong
    lines += [
        f"{name}: expected floating-point numbers, found {headers[bare[name]].dtype}"
        for name in steps
        if headers[bare[name]].dtype not in FLOATS
    ]
    if lines and (settings := found_settings(naming, found)):
        lines.append(f"the file holds {in_words(settings)}")
    refuse(source, _grouped(lines))
    return Plan({bare[name]: parts for name, parts in steps.items()}, ignored, missing, resized)


def _leave_out_head(
    steps: dict[str, dict[str, Place]], found: Mapping[str, Shape], model: ModelConfig
) -> tuple[list[str], tuple[str, ...]]:
    """Remove the head from the steps where it is not wanted or absent.

    Returns lines for arrays that are ignored, and parameters that the file lacks.
    """
    keys = [key for key, parts in steps.items() if any(name.startswith("head.") for name in parts)]
    if not any(key in found for key in keys):
        return [], tuple(name for key in keys for name in steps.pop(key))
    classes = next((found[key][0] for key in keys if found.get(key)), None)
    reason = "" if model.pretrained_head else "model.pretrained_head is false"
    if not reason and classes != model.classes:
        reason = f"{classes} classes, model.classes {model.classes}"
    if not reason:
        return [], ()
    for key in keys:
        del steps[key]
    return [f"{key}: {reason}" for key in keys if key in found], ()


def _shape_problems(
    steps: Mapping[str, Mapping[str, Place]],
    found: Mapping[str, Shape],
    shapes: Mapping[str, Shape],
    model: ModelConfig,
) -> tuple[list[str], dict[str, int]]:
    """A line for each shape that differs; and the tables of another window, with the file's."""
    lines, resized = [], {}
    design = architecture(model)
    for key, parts in steps.items():
        name, place = next(iter(parts.items()))
        first, *rest = shapes[name]
        expected = (first * place.parts, *rest)
        if found[key] == expected:
            continue
        if window := window_to_resize(name, found[key], expected):
            resized[name] = window
            continue
        question = suspects(design.dims_of(name), design.SETTINGS, expected, found[key])
        lines.append(f"{key}: expected {expected}, found {found[key]}{question}")
    return lines, resized


def _grouped(lines: Iterable[str]) -> list[str]:
    """One line for each kind: those that differ only in numbers count as one kind."""
    kinds: dict[str, list[str]] = {}
    for line in lines:
        kinds.setdefault(re.sub(r"\d+", "#", line), []).append(line)
    return [f"{group[0]}{and_more(group)}" for group in kinds.values()]


def write_naming(naming: Naming, values: Mapping[str, Array]) -> Arrays:
    """Parameters under a program's names; query, key and value are stacked where it stacks them.

    Parameters that the program does not know are left out.
    """
    parts: dict[str, dict[int, Array]] = {}
    for name, place in naming.places(values).items():
        parts.setdefault(place.key, {})[place.part] = values[name]
    return {
        key: np.ascontiguousarray(np.concatenate([pieces[i] for i in sorted(pieces)]))
        for key, pieces in parts.items()
    }
