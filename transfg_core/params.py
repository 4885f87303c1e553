"""Parameters as arrays: seeded initial values, pretrained ones, strict merge, optimiser groups.

Names and shapes come from `transfg_core.layout`; what callers need of it is offered here too.
"""

import difflib
import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import DTypeLike

from transfg_core.backend import Array, Arrays
from transfg_core.config import Config, ModelConfig, OptimConfig
from transfg_core.errors import UserError
from transfg_core.layout import (
    Shape,
    Spec,
    dim_sizes,
    dims_of,
    grid_size,
    param_shapes,
    param_specs,
    resolve,
    suspects,
)

__all__ = [
    "LoadReport",
    "build_params",
    "grid_size",
    "initial_params",
    "param_groups",
    "param_shapes",
    "strict_merge",
    "summary",
]


@dataclass(frozen=True)
class LoadReport:
    """What became of a checkpoint's arrays and of the model's parameters.

    loaded, missing (the checkpoint lacks them) and initialised (they keep their initial values)
    are canonical names; resized (a part of loaded) and ignored are `name: reason`, the latter by
    the names in the checkpoint.
    """

    source: str
    loaded: tuple[str, ...]
    resized: tuple[str, ...]
    ignored: tuple[str, ...]
    missing: tuple[str, ...]
    initialised: tuple[str, ...]

    def summary(self) -> str:
        """A few lines for people, however deep the model is."""
        reasons: dict[str, list[str]] = {}
        for item in self.ignored:
            name, _, reason = item.rpartition(": ")
            reasons.setdefault(reason, []).append(name)
        lines = [f"{self.source}: {len(self.loaded)} arrays loaded"]
        lines += [f"resized: {item}" for item in self.resized]
        lines += [f"ignored: {names[0]}{and_more(names)}: {why}" for why, names in reasons.items()]
        for label, names in (("missing", self.missing), ("initial values", self.initialised)):
            modules = dict.fromkeys(name.partition(".")[0] for name in names)
            if modules:
                lines.append(f"{label}: {', '.join(modules)} ({len(names)} arrays)")
        return "\n  ".join(lines)


def initial_params(
    model: ModelConfig,
    image_size: tuple[int, int],
    seed: int,
    only: Collection[str] | None = None,
) -> Arrays:
    """Canonical name -> float32 initial value, or those named in `only`.

    Each array has its own stream, keyed by the seed and its name: a parameter more or less leaves
    the others as they are.
    """
    sizes = dim_sizes(model)
    specs = param_specs(model)
    return {
        name: _draw(specs[name], shape, sizes, np.random.default_rng([seed, _crc32(name)]))
        for name, shape in param_shapes(model, image_size).items()
        if only is None or name in only
    }


def _draw(spec: Spec, shape: Shape, sizes: Mapping[str, int], rng: np.random.Generator) -> Array:
    if spec.init == "zeros":
        return np.zeros(shape, np.float32)
    if spec.init == "ones":
        return np.ones(shape, np.float32)
    if spec.init == "near_zero":
        return rng.normal(0.0, 1e-6, shape).astype(np.float32)
    if spec.init == "xavier":  # Glorot and Bengio 2010, equation 16
        bound = (6 / sum(shape)) ** 0.5
    else:
        bound = float(np.prod(resolve(spec.fan_in, sizes))) ** -0.5
    return rng.uniform(-bound, bound, shape).astype(np.float32)


def _crc32(name: str) -> int:
    return zlib.crc32(name.encode())


def step_seed(seed: int, update: int) -> int:
    """Seed of one update's dropout, 31 bits, from the run's seed and the update's number.

    Hashed, since a generator may turn neighbouring seeds into shifted copies of one stream
    (Jittor's on the CPU does).
    """
    return int(np.random.SeedSequence([seed, update]).generate_state(1)[0]) % (2**31 - 2) + 1


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
            ask = suspects(dims_of(name), shape, found)
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
            f"{name}: unexpected, the model has no such name{_near(name, target_shapes)}"
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


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)
    return f"; the nearest is {near[0]}" if near else ""


def param_groups(names: Iterable[str], optim: OptimConfig) -> dict[str, tuple[float, float]]:
    """Name -> (factor on the learning rate, weight decay); the first matching group wins.

    Raises:
        UserError: a group's pattern matches no name.
    """
    names = list(names)
    groups = {name: (1.0, optim.weight_decay) for name in names}
    problems: list[str] = []
    for number, group in reversed(list(enumerate(optim.groups))):
        matches = [name for name in names if fnmatchcase(name, group.match)]
        decay = optim.weight_decay if group.weight_decay is None else group.weight_decay
        groups |= dict.fromkeys(matches, (group.lr_scale, decay))
        if not matches:
            near = _near(group.match.strip("*"), names)
            problems.insert(0, f"optim.groups.{number}.match {group.match!r}: no such name{near}")
    refuse("parameter groups", problems)
    return groups


def build_params(config: Config) -> tuple[Arrays, LoadReport | None]:
    """Initial values, with `model.pretrained` in their place where it has them.

    Raises:
        UserError: the checkpoint cannot be read or does not fit (`transfg_core.pretrained`).
    """
    from transfg_core.pretrained import load_pretrained  # it needs the names defined here

    model, image_size = config.model, config.data.crop
    if model.pretrained is None:
        return initial_params(model, image_size, config.run.seed), None
    loaded, report = load_pretrained(model.pretrained, model, image_size)
    drawn = initial_params(model, image_size, config.run.seed, only=report.initialised)
    values = loaded | drawn
    shapes = param_shapes(model, image_size)
    assert {name: value.shape for name, value in values.items()} == shapes
    return {name: values[name] for name in shapes}, report


def summary(shapes: Mapping[str, Shape]) -> str:
    """Number of parameters by top-level module, and in total, as a table."""
    counts: dict[str, int] = {}
    for name, shape in shapes.items():
        module = name.partition(".")[0]
        counts[module] = counts.get(module, 0) + int(np.prod(shape))
    counts["total"] = sum(counts.values())
    return "\n".join(f"{module:<12}{count:>15,}" for module, count in counts.items())
