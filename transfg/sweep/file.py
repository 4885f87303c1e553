"""The sweep file: a base configuration, fixed settings and the axes of a grid, in YAML.

    base: ../../cub50/pretrained.yaml   # relative to this file
    set: [train.steps=500]              # as on the command line of `transfg train`
    grid:
      split:                            # named values, each with what it sets
        nonoverlap: [model.stride=8]
        overlap: [model.stride=6]
      loss.margin: [0, 0.2, 0.4]        # a key, and its values
      backend: [torch, jittor]
      run.seed: [1, 2, 3]
    where: {loss.margin: {split: overlap}}       # elsewhere the axis is left out
    exclude: [{split: overlap, backend: jittor}] # no such runs

docs/sweeps.md describes every key.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transfg_core.config.loading import TEXT_KEYS, read_yaml
from transfg_core.config.yaml_text import parse_yaml
from transfg_core.errors import UserError

KEYS = ("base", "name", "set", "grid", "where", "exclude")
NAME = re.compile(r"[\w+-][\w.+-]*")
BACKEND = "backend"

Condition = Mapping[str, frozenset[str]]  # axis -> the labels of its values


@dataclass(frozen=True)
class Choice:
    """One value of an axis."""

    label: str  # as the file writes it
    name: str  # its part of a run's name
    settings: tuple[str, ...]  # key=value


@dataclass(frozen=True)
class Axis:
    """One dimension of the grid; `where` names the cells that it concerns."""

    name: str
    choices: tuple[Choice, ...]
    where: Condition


@dataclass(frozen=True)
class SweepFile:
    """A sweep file, checked in itself; its settings are not checked yet."""

    path: Path
    base: Path
    name: str
    settings: tuple[str, ...]
    axes: tuple[Axis, ...]
    exclude: tuple[Condition, ...]


def read_sweep_file(path: Path) -> SweepFile:
    """Read a sweep file.

    Raises:
        UserError: it cannot be read, or does not have this form; all problems are listed.
    """
    tree, problems = read_yaml(path)
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected the keys base and grid, found {tree!r:.80}")
    problems += [
        f"{key}: unknown key; known keys: {', '.join(KEYS)}" for key in tree if key not in KEYS
    ]
    base = tree.get("base")
    if not isinstance(base, str):
        problems.append(f"base: expected the path of a configuration, found {base!r:.80}")
    name = str(tree.get("name", path.stem))
    if not NAME.fullmatch(name):
        problems.append(f"name: expected letters, digits and . _ + -, found {name!r:.80}")
    settings = _settings(tree.get("set", []), "set", problems)
    axes = _axes(tree, problems)
    exclude = tree.get("exclude") or []
    if not isinstance(exclude, list):
        problems.append(f"exclude: expected a list of conditions, found {exclude!r:.80}")
        exclude = []
    excluded = tuple(_condition(item, "exclude", axes, problems) for item in exclude)
    raise_problems(path, problems)
    return SweepFile(
        path, Path(os.path.normpath(path.parent / str(base))), name, settings, axes, excluded
    )


def raise_problems(path: Path, problems: list[str]) -> None:
    """Report all problems of a sweep file, if there are any.

    Raises:
        UserError: there are.
    """
    if problems:
        count = f"{len(problems)} problem" + ("s" if len(problems) > 1 else "")
        raise UserError("\n  ".join([f"{path}: {count} in the sweep", *problems]))


def as_text(key: str, value: Any) -> str:
    """A value as `key=value` has it on the command line, so that it is read back as it was."""
    if isinstance(value, str):
        plain = key in TEXT_KEYS or key == BACKEND
        return value if plain or _reads_as(value) else json.dumps(value, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False, default=str)


def _reads_as(text: str) -> bool:
    try:
        return bool(parse_yaml(text, text)[0] == text)
    except UserError:
        return False


def _settings(value: Any, place: str, problems: list[str]) -> tuple[str, ...]:
    """A list of `key=value`; keys and values are checked later, with the configuration."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        problems.append(f"{place}: expected a list such as [train.steps=500], found {value!r:.80}")
        return ()
    broken = [item for item in value if not re.match(r"[\w.]+=.", item)]
    problems += [f"{place}: {item!r}: expected key=value, such as optim.lr=0.01" for item in broken]
    return tuple(item for item in value if item not in broken)


def _axes(tree: Mapping[Any, Any], problems: list[str]) -> tuple[Axis, ...]:
    grid, where = tree.get("grid"), tree.get("where") or {}
    if not isinstance(grid, dict) or not grid:
        problems.append(f"grid: expected at least one axis with its values, found {grid!r:.80}")
        return ()
    if not isinstance(where, dict):
        problems.append(f"where: expected axes with a condition each, found {where!r:.80}")
        where = {}
    problems += [f"where: {name}: no such axis" for name in where if name not in grid]
    axes: list[Axis] = []
    for name, values in grid.items():
        choices = _choices(str(name), values, problems)
        for part in ("label", "name"):
            found = [getattr(choice, part) for choice in choices]
            twice = sorted({text for text in found if found.count(text) > 1})
            if twice:
                problems.append(f"grid: {name}: two values are called {', '.join(twice)}")
                break
        condition: Condition = {}
        if name in where:  # only axes before this one have a value yet
            condition = _condition(where[name], f"where: {name}", tuple(axes), problems)
        axes.append(Axis(str(name), choices, condition))
    return tuple(axes)


def _choices(axis: str, values: Any, problems: list[str]) -> tuple[Choice, ...]:
    """Either a list of values of the key `axis`, or named values with what each sets."""
    place = f"grid: {axis}"
    if isinstance(values, list) and values:
        if "." not in axis and axis != BACKEND:
            problems.append(
                f"{place}: expected a key such as loss.margin, or named values such as "
                "{short: [train.steps=100], long: [train.steps=900]}"
            )
        texts = [as_text(axis, value) for value in values]
        return tuple(Choice(text, _part(axis, text), (f"{axis}={text}",)) for text in texts)
    if not isinstance(values, dict) or not values:
        problems.append(f"{place}: expected values, found {values!r:.80}")
        return ()
    choices = []
    for label, settings in values.items():
        text = as_text(BACKEND, label)
        if not NAME.fullmatch(text):
            problems.append(f"{place}: expected a name of letters, digits and . _ + -: {text!r}")
        choices.append(Choice(text, text, _settings(settings, f"{place}: {text}", problems)))
    return tuple(choices)


def _part(axis: str, text: str) -> str:
    """The part of a run's name for a value of a key: `margin-0.4`; of a backend, its name."""
    value = re.sub(r"[^\w.+-]+", "-", text).strip("-.") or "none"
    return value if axis == BACKEND else f"{axis.rpartition('.')[2]}-{value}"


def _condition(
    value: Any, place: str, axes: tuple[Axis, ...], problems: list[str]
) -> Mapping[str, frozenset[str]]:
    """A condition such as {method: vit, loss.margin: [0, 0.2]}: every axis has such a value."""
    if not isinstance(value, dict) or not value:
        problems.append(f"{place}: expected axes with values, such as {{split: overlap}}")
        return {}
    known = {axis.name: [choice.label for choice in axis.choices] for axis in axes}
    condition = {}
    for name, wanted in value.items():
        if name not in known:
            before = " before this one" if place.startswith("where") else ""
            problems.append(f"{place}: {name}: no such axis{before}")
            continue
        texts = [as_text(name, item) for item in (wanted if type(wanted) is list else [wanted])]
        problems += [
            f"{place}: {name}: no value {text}; there are {', '.join(known[name])}"
            for text in texts
            if text not in known[name]
        ]
        condition[name] = frozenset(texts)
    return condition
