"""A configuration from a YAML file and overrides, with every problem reported at once.

    config = load_config("configs/toy/quickstart.yaml", ["optim.lr=0.01", "run.name=trial"])

An unknown key is refused, with the nearest known one; so is a key that is given twice.
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import (
    ValidationError,
)

from transfg_core.config.sections import Config
from transfg_core.config.yaml_text import describe_problem, dump_yaml, parse_yaml, place_of
from transfg_core.errors import UserError


def load_config(path: str | Path | None, overrides: Iterable[str] = ()) -> Config:
    """Read a YAML file (None: all defaults) and apply `key.sub=value` overrides.

    Raises:
        UserError: the file is missing or not YAML, or any key or value is wrong; every problem
            is listed, each with its dotted key.
    """
    source = str(path) if path else "defaults"
    tree: dict[str, Any] = {}
    repeated: list[str] = []
    if path:
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(
                f"{path}: expected a configuration in YAML, found none that can be read "
                f"({reason}); check the path"
            ) from error
        loaded, repeated = parse_yaml(text, source)
        if loaded is not None and not isinstance(loaded, dict):
            raise UserError(f"{path}: expected sections such as `train:`, found {loaded!r}")
        # `train:` with every key below it commented out is an empty section
        tree = {key: {} if value is None else value for key, value in (loaded or {}).items()}
    apply_overrides(tree, overrides)
    return build_config(tree, source, repeated)


def apply_overrides(tree: dict[str, Any], overrides: Iterable[str]) -> None:
    """Set `key.sub=value` items in a nested mapping, values read as YAML.

    Raises:
        UserError: an item is not of that form, or its key leads through a value.
    """
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals or not all(key.split(".")):
            raise UserError(f"{item!r}: expected key=value, such as optim.lr=0.01")
        value, repeated = parse_yaml(text, f"override {item!r}")
        if repeated:
            raise UserError(f"override {item!r}: {'; '.join(repeated)}")
        _set_dotted(tree, key, value)


def build_config(tree: Mapping[str, Any], source: str, problems: Sequence[str] = ()) -> Config:
    """Validate a nested mapping; `source` names it in error messages.

    Raises:
        UserError: something is wrong with it, or `problems` were found before.
    """
    found: list[Any] = []
    try:
        config = Config.model_validate(tree)
        if not problems:
            return config
    except ValidationError as error:
        found = error.errors(include_url=False)
    problems = [*problems, *(describe_problem(item, Config) for item in found)]
    # what concerns several keys is checked once each is sound: try without the unsound ones
    try:
        Config.model_validate(
            _without(tree, [place_of(item, Config) for item in found if item["loc"]])
        )
    except ValidationError as error:
        more = [describe_problem(item, Config) for item in error.errors(include_url=False)]
        problems += [problem for problem in more if problem not in problems]
    lines = list(dict.fromkeys(line for problem in problems for line in problem.split("\n  ")))
    count = f"{len(lines)} problem" + ("s" if len(lines) > 1 else "")
    raise UserError("\n  ".join([f"{source}: {count} in the configuration", *lines]))


def dump_config(config: Config) -> str:
    """The fully resolved configuration as YAML that `load_config` reads back to an equal one."""
    return dump_yaml(config.model_dump(mode="json"))


def differing_keys(left: Config, right: Config) -> list[str]:
    """Dotted keys whose values differ, as `key: left -> right` lines."""
    flat_left, flat_right = _flatten(left.model_dump()), _flatten(right.model_dump())
    return [
        f"{key}: {flat_left.get(key)!r} -> {flat_right.get(key)!r}"
        for key in dict.fromkeys([*flat_left, *flat_right])
        if flat_left.get(key) != flat_right.get(key)
    ]


def _set_dotted(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for depth, part in enumerate(parents):
        below = tree.setdefault(part, {})
        if not isinstance(below, dict):
            raise UserError(f"{key}: {'.'.join(parents[: depth + 1])} is a value, not a section")
        tree = below
    tree[last] = value


def _without(tree: Mapping[str, Any], places: Iterable[tuple[int | str, ...]]) -> dict[str, Any]:
    """The tree without the keys at these places; one in a list, or unknown, takes its key along."""
    copy = deepcopy(dict(tree))
    for section, *rest in places:
        below = copy.get(str(section))
        if rest and isinstance(below, dict) and rest[0] in below:
            del below[rest[0]]
        elif not rest or not isinstance(below, dict):
            copy.pop(str(section), None)
    return copy


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
