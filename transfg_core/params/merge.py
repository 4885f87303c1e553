"""Check that arrays have exactly a model's names and shapes, and report all problems at once."""

import difflib
from collections.abc import Collection, Iterable, Mapping

import numpy as np
from numpy.typing import DTypeLike

from transfg_core.backend import Array, Arrays
from transfg_core.errors import UserError
from transfg_core.models.layout import hint
from transfg_core.models.rows import Shape


def split_state(
    arrays: Mapping[str, Array],
    shapes: Mapping[str, Shape],
    slots: Collection[str],
    trained: Collection[str],
) -> tuple[Arrays, dict[str, Arrays], int]:
    """Split a `Backend.state()` into parameters, arrays of training by slot, and updates.

    `slots` are the sections that have an array for each parameter in `trained`. Everything is
    checked before the function returns, so that a backend never holds half a state.

    Raises:
        UserError: a section or name is missing or unknown, or a shape differs.
    """
    sections: dict[str, Arrays] = {}
    for key, value in arrays.items():
        section, _, name = key.partition("/")
        sections.setdefault(section, {})[name] = value
    expected = ["param", *slots, "optim"]
    if set(sections) != set(expected):
        refuse("state", [f"expected {', '.join(expected)}, found {', '.join(sections)}"])
    counter = sections["optim"].get("updates")
    if set(sections["optim"]) != {"updates"} or counter is None or counter.shape != ():
        refuse("state", [f"expected optim/updates, found {', '.join(sections['optim'])}"])
    assert counter is not None
    if counter.dtype.kind not in "iu" or int(counter) < 0:
        refuse("state", [f"optim/updates: expected a whole number from 0, found {counter}"])
    params = strict_merge(shapes, sections["param"], "state: param")
    learned = {name: shape for name, shape in shapes.items() if name in trained}
    merged = {}
    for slot in slots:
        refuse("state", other_trained(slot, sections[slot], learned))
        merged[slot] = strict_merge(learned, sections[slot], f"state: {slot}")
    return params, merged, int(counter)


def other_trained(slot: str, found: Collection[str], trained: Collection[str]) -> list[str]:
    """A line if a state has arrays of other parameters than those that are trained."""
    more, fewer = set(found) - set(trained), set(trained) - set(found)
    if not more and not fewer:
        return []
    names = sorted(more or fewer)
    return [
        f"{slot}: {names[0]}{and_more(names)}: {'unexpected' if more else 'missing'}; expected "
        "arrays of the trained parameters. If optim.frozen differs from that of the run, make it "
        "equal, or take the file as model.pretrained, which reads the parameters alone"
    ]


def strict_merge(
    target_shapes: Mapping[str, Shape],
    arrays: Mapping[str, Array],
    source: str,
    dtype: DTypeLike = np.float32,
) -> Arrays:
    """The arrays as C-contiguous `dtype`, in the target's order; names and shapes must be equal.

    Raises:
        UserError: lists every missing or unexpected name, differing shape and non-finite array.
    """
    problems = shape_problems(target_shapes, {name: arrays[name].shape for name in arrays})
    merged = {}
    for name, shape in target_shapes.items():
        if name not in arrays or arrays[name].shape != shape:
            continue
        if arrays[name].dtype.kind not in "fiu":
            problems.append(f"{name}: expected real numbers, found {arrays[name].dtype}")
        else:
            merged[name] = as_float(arrays[name], dtype)  # overflow becomes infinity
            if not np.isfinite(merged[name]).all():
                problems.append(f"{name}: holds NaN or infinity; take another checkpoint")
    refuse(source, problems)
    return merged


def shape_problems(target_shapes: Mapping[str, Shape], shapes: Mapping[str, Shape]) -> list[str]:
    """One line for each missing or unexpected name, and for each shape that differs."""
    problems = []
    for name, shape in target_shapes.items():
        if name not in shapes:
            problems.append(f"{name}: missing, model {shape}")
        elif shapes[name] != shape:
            question = hint(name, shape, shapes[name], target_shapes)
            problems.append(f"{name}: checkpoint {shapes[name]}, model {shape}{question}")
    for name in shapes.keys() - target_shapes.keys():
        problems.append(
            f"{name}: unexpected, the model has no such name{nearest(name, target_shapes)}"
        )
    return problems


def as_float(array: Array, dtype: DTypeLike = np.float32) -> Array:
    """The array C-contiguous in another floating type; values too large for it become infinite."""
    with np.errstate(over="ignore"):
        return np.asarray(array, dtype=dtype, order="C")


def refuse(source: str, problems: list[str]) -> None:
    """Raise one UserError that lists all problems; do nothing if there are none."""
    if problems:
        count = f"{len(problems)} problem" + ("s" if len(problems) > 1 else "")
        raise UserError("\n  ".join([f"{source}: {count}", *problems]))


def and_more(names: Collection[str]) -> str:
    """The text ` and N more`, to follow the first of several names; empty for one name."""
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """The most similar known name, as `; the nearest is NAME`; empty if no name is known."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)
    return f"; the nearest is {near[0]}" if near else ""


def summary(shapes: Mapping[str, Shape]) -> str:
    """A table of the number of parameters for each top-level module and in total."""
    counts: dict[str, int] = {}
    for name, shape in shapes.items():
        module = name.partition(".")[0]
        counts[module] = counts.get(module, 0) + int(np.prod(shape))
    counts["total"] = sum(counts.values())
    return "\n".join(f"{module:<12}{count:>15,}" for module, count in counts.items())
