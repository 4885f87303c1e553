"""Strict merge: arrays under the names of a model, with every problem reported at once."""

import difflib
from collections.abc import Collection, Iterable, Mapping

import numpy as np
from numpy.typing import DTypeLike

from transfg_core.backend import Array, Arrays
from transfg_core.errors import UserError
from transfg_core.models.layout import hint
from transfg_core.models.rows import Shape


def split_state(
    arrays: Mapping[str, Array], shapes: Mapping[str, Shape], slots: Collection[str]
) -> tuple[Arrays, dict[str, Arrays], int]:
    """What `Backend.state` gave: parameters, optimiser arrays by slot, updates done.

    Everything is checked before anything is returned, so that a backend never holds half of it.

    Raises:
        UserError: a section, name or shape is missing, unknown or different.
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
    merged = {
        section: strict_merge(shapes, sections[section], f"state: {section}")
        for section in ("param", *slots)
    }
    return merged.pop("param"), merged, int(counter)


def strict_merge(
    target_shapes: Mapping[str, Shape],
    arrays: Mapping[str, Array],
    source: str,
    dtype: DTypeLike = np.float32,
) -> Arrays:
    """The arrays in one type, C-contiguous, in the target's order: same names, same shapes.

    Raises:
        UserError: every missing and unexpected name, differing shape and non-finite array.
    """
    problems, merged = [], {}
    for name, shape in target_shapes.items():
        if name not in arrays:
            problems.append(f"{name}: missing, model {shape}")
        elif arrays[name].shape != shape:
            found = arrays[name].shape
            ask = hint(name, shape, found, target_shapes)
            problems.append(f"{name}: checkpoint {found}, model {shape}{ask}")
        elif arrays[name].dtype.kind not in "fiu":
            problems.append(f"{name}: expected real numbers, found {arrays[name].dtype}")
        else:
            with np.errstate(over="ignore"):  # what the type cannot hold becomes infinite
                merged[name] = np.asarray(arrays[name], dtype=dtype, order="C")
            if not np.isfinite(merged[name]).all():
                problems.append(f"{name}: holds NaN or infinity; take another checkpoint")
    for name in arrays.keys() - target_shapes.keys():
        problems.append(
            f"{name}: unexpected, the model has no such name{nearest(name, target_shapes)}"
        )
    refuse(source, problems)
    return merged


def as_float32(array: Array) -> Array:
    """C-contiguous float32 of the same shape; what float32 cannot hold becomes infinite."""
    with np.errstate(over="ignore"):
        return np.asarray(array, dtype=np.float32, order="C")


def refuse(source: str, problems: list[str]) -> None:
    """Raise one UserError that lists all problems, if there are any."""
    if problems:
        count = f"{len(problems)} problem" + ("s" if len(problems) > 1 else "")
        raise UserError("\n  ".join([f"{source}: {count}", *problems]))


def and_more(names: Collection[str]) -> str:
    """What follows the first of several names."""
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """The most similar of the known names, as `; the nearest is NAME`; nothing without any."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)
    return f"; the nearest is {near[0]}" if near else ""


def summary(shapes: Mapping[str, Shape]) -> str:
    """Number of parameters by top-level module, and in total, as a table."""
    counts: dict[str, int] = {}
    for name, shape in shapes.items():
        module = name.partition(".")[0]
        counts[module] = counts.get(module, 0) + int(np.prod(shape))
    counts["total"] = sum(counts.values())
    return "\n".join(f"{module:<12}{count:>15,}" for module, count in counts.items())
