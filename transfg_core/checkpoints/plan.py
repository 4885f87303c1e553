"""From a file of a known form to a model's parameters: planned from headers, then read.

`plan_form` decides from names, shapes and types alone which parameter each array fills. Only then
`load_form` reads the arrays, one at a time.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from transfg_core.backend import Array, Arrays
from transfg_core.checkpoints.forms import Form, Step, describe, dimensions, known_size
from transfg_core.checkpoints.load_report import LoadReport, untrained_head
from transfg_core.checkpoints.stems import refuse_other_stem
from transfg_core.checkpoints.weight_file import FLOATS, Header, WeightFile
from transfg_core.config.vit import SIZES, VitConfig
from transfg_core.errors import UserError
from transfg_core.models.layout import suspects
from transfg_core.models.rows import Shape, resolve
from transfg_core.models.vit import SETTINGS, grid_size, param_specs
from transfg_core.models.vit import sizes as vit_sizes
from transfg_core.params.merge import and_more, as_float, refuse
from transfg_core.params.positions import resize_pos_embed, square_side


class Plan(NamedTuple):
    """What to read from a file.

    `ignored` lists `key: reason` for the other arrays; `missing` names parameters that it lacks.
    """

    steps: tuple[Step, ...]
    ignored: tuple[str, ...]
    missing: tuple[str, ...]


def load_form(
    file: WeightFile, form: Form, model: VitConfig, image_size: tuple[int, int]
) -> tuple[Arrays, LoadReport]:
    """Dict: canonical name -> C-contiguous float32 array, for the parameters that the file fills.

    With part selection the encoder norm becomes `part_norm`, and the last block becomes
    `part_layer` only if `model.part_layer_init` is `last_block`. The head is read only if
    `model.pretrained_head` is true and the numbers of classes are equal.

    Raises:
        UserError: the file is damaged or of another architecture, or holds values that are not
            finite; lists each problem with key, expected and found.
    """
    sizes = vit_sizes(model, image_size)
    specs = param_specs(model)
    plan = plan_form(form, file.headers(), model, file.path)
    loaded, resized, problems = {}, [], []
    factors: dict[str, Array] = {}
    for key, row, names in plan.steps:
        array = as_float(file.read(key))
        if not np.isfinite(array).all():
            problems.append(f"{key}: holds NaN or infinity; download the file again")
        if row.scales:
            factors[names[0]] = array
            continue
        for name, part in zip(names, np.split(array, len(names)), strict=True):
            part = part.transpose(row.axes) if row.axes else part
            if name == "pos_embed":
                part, change = _fit_positions(part, grid_size(image_size, model))
                resized += change
            loaded[name] = np.ascontiguousarray(part.reshape(resolve(specs[name].dims, sizes)))
    refuse(file.path, problems)
    notes = _fold(factors, loaded) + untrained_head(loaded)
    arrays = {name: loaded[name] for name in specs if name in loaded}
    initialised = tuple(name for name in specs if name not in arrays)
    return arrays, LoadReport(
        file.path,
        tuple(arrays),
        tuple(resized),
        plan.ignored,
        plan.missing,
        initialised,
        notes=tuple(notes),
    )


def _fold(factors: Mapping[str, Array], loaded: Arrays) -> list[str]:
    """Multiply the outputs of modules by LayerScale's factors (D,); a line about it."""
    for module, factor in factors.items():  # not in place: an array may be a view of the file
        loaded[f"{module}.weight"] = loaded[f"{module}.weight"] * factor[:, None]
        loaded[f"{module}.bias"] = loaded[f"{module}.bias"] * factor
    return [f"LayerScale: multiplied into {len(factors)} layers before it"] if factors else []


def _fit_positions(embedding: Array, grid: tuple[int, int]) -> tuple[Array, list[str]]:
    """Positions (1, T, D) of a square grid for another grid, and a line if they were resized."""
    side = square_side(embedding.shape[1])
    if side is None:  # the class token has no position: nothing is added to it
        embedding = np.concatenate([np.zeros_like(embedding[:, :1]), embedding], axis=1)
        side = square_side(embedding.shape[1])
        assert side is not None
    if (side, side) == grid:
        return embedding, []
    change = f"pos_embed: {side} x {side} to {grid[0]} x {grid[1]}"
    return resize_pos_embed(embedding, grid), [change]


def plan_form(form: Form, headers: Mapping[str, Header], model: VitConfig, source: str) -> Plan:
    """Decide from headers alone which parameter each array of a file fills.

    Raises:
        UserError: the file is of another architecture; lists every problem, with one line for each
            setting that may be wrong.
    """
    if form.has_parts and model.placement != "transfg":
        raise UserError(
            f"{source}: expected a plain Vision Transformer for model.placement {model.placement}, "
            "found one with part selection; set model.placement=transfg"
        )
    bare = form.bare_names(headers)
    twice = headers.keys() - set(bare.values())
    refuse(source, [f"{key}: expected each array once, found two" for key in sorted(twice)])
    shapes = {name: headers[key].shape for name, key in bare.items()}
    refuse_other_stem(source, model.stem, form.stem_of(bare, source))
    depth = form.depth(bare)
    scaled = any(form.knows(name) and form.by_key[form.pattern(name)].scales for name in bare)
    steps = (step for step in form.expand(model, depth) if scaled or not step.row.scales)
    expected = {step.key: step for step in steps}
    plan, lines = _assign(form, model, expected, bare, shapes)
    if depth != model.depth:
        lines.insert(0, f"blocks: expected {model.depth}, found {depth}; is model.depth right?")
    found = dimensions(form, shapes, depth)
    lines += _shape_problems(form, plan.steps, shapes, model)
    lines += _head_count_problems(found, model) + _type_problems(plan.steps, headers, bare)
    refuse(source, [*lines, f"the file holds {describe(found)}"] if lines else [])
    return plan._replace(steps=tuple(step._replace(key=bare[step.key]) for step in plan.steps))


def _assign(
    form: Form,
    model: VitConfig,
    expected: Mapping[str, Step],
    bare: Mapping[str, str],
    shapes: Mapping[str, Shape],
) -> tuple[Plan, list[str]]:
    """What becomes of each array by its name, and a line for each kind of missing or further one.

    The steps have the names of the table; `bare` gives the keys of the file for them.
    """
    steps: list[Step] = []
    ignored: list[str] = []
    missing: list[str] = []
    problems: dict[str, list[str]] = {}  # the pattern of a name -> lines
    for name, step in expected.items():
        reason = _reason_to_skip(step, shapes, form, model)
        if reason is None and name in bare:
            steps.append(step)
        elif reason is None and _is_headless(step, expected, bare):
            missing += step.names
        elif reason is None:
            line = f"{name}: missing; is the file complete?"
            kind = "stem" if step.row.name.startswith("stem.") else step.row.key
            problems.setdefault(kind, []).append(line)
        elif name in bare:
            ignored.append(f"{bare[name]}: {reason}")
    for name in (name for name in bare if name not in expected):
        reason = next((why for start, why in form.ignored.items() if name.startswith(start)), None)
        if reason:
            ignored.append(f"{bare[name]}: {reason}")
        else:
            line = f"{bare[name]}: unexpected, found {shapes[name]}"
            problems.setdefault(f"unexpected {form.pattern(name)}", []).append(line)
    lines = [f"{group[0]}{and_more(group)}" for group in problems.values()]
    return Plan(tuple(steps), tuple(ignored), tuple(missing)), lines


def _is_headless(step: Step, expected: Mapping[str, Step], bare: Mapping[str, str]) -> bool:
    """Whether a row belongs to a head of which the file has no array."""
    heads = [key for key, other in expected.items() if other.row.name.startswith("head.")]
    return step.row.name.startswith("head.") and not any(key in bare for key in heads)


def _reason_to_skip(
    step: Step, shapes: Mapping[str, Shape], form: Form, model: VitConfig
) -> str | None:
    name = step.names[0] if step.names else ""
    if not name:
        return "not part of the network"
    if name.startswith("part_layer.") and not form.has_parts and model.part_layer_init == "random":
        return "model.part_layer_init is random"
    if name.startswith("head."):
        if not (model.pretrained_head or form.has_parts):
            return "model.pretrained_head is false"
        rows = [row for row in form.rows if row.name.startswith("head.") and row.key in shapes]
        sizes = [shapes[row.key][row.dims.split().index("C")] for row in rows if shapes[row.key]]
        if sizes and sizes[0] != model.classes:
            return f"{sizes[0]} classes, model.classes {model.classes}"
    return None


def _shape_problems(
    form: Form, steps: Sequence[Step], shapes: Mapping[str, Shape], model: VitConfig
) -> list[str]:
    """One line for each setting that may be wrong: its first key, expected and found shape."""
    # the question about the settings, or a key -> lines
    problems: dict[str, list[str]] = {}
    for step in steps:
        shape = shapes[step.key]
        is_grid = step.row.name == "pos_embed"
        tokens = shape[1] if is_grid and len(shape) == 3 else 0
        sizes = vit_sizes(model) | {"T": tokens}
        if not step.fits(shape, sizes):
            expected = step.shape(sizes)
            question = suspects(step.row.dims, SETTINGS, expected, shape)
            line = f"{step.key}: expected {expected}, found {shape}"
            problems.setdefault(question or step.row.key, []).append(line)
        elif is_grid and not _is_square(tokens, form):
            problems[step.key] = [
                f"{step.key}: expected 1 + a square number of tokens, found {tokens}"
            ]
    return [
        f"{lines[0]}{and_more(lines)}{question if question.startswith(';') else ''}"
        for question, lines in problems.items()
    ]


def _is_square(tokens: int, form: Form) -> bool:
    """Whether positions form a square grid, where the form allows it without the class token's."""
    without_class = not form.class_position and square_side(tokens + 1) is not None
    return square_side(tokens) is not None or without_class


def _head_count_problems(found: Mapping[str, int], model: VitConfig) -> list[str]:
    """A line if the model has other heads than every published model of this size."""
    size = known_size(found)
    if "K" in found or size is None or SIZES[size][1] == model.heads:
        return []
    return [
        f"heads: expected {model.heads}, but models of size {size} have {SIZES[size][1]} "
        "(no array shows it); is model.heads right?"
    ]


def _type_problems(
    steps: Sequence[Step], headers: Mapping[str, Header], bare: Mapping[str, str]
) -> list[str]:
    wrong: dict[str, list[str]] = {}
    for step in steps:
        dtype = headers[bare[step.key]].dtype
        if dtype not in FLOATS:
            wrong.setdefault(dtype, []).append(step.key)
    return [
        f"{keys[0]}{and_more(keys)}: expected floating-point numbers, found {dtype}"
        for dtype, keys in wrong.items()
    ]
