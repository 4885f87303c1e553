"""Load a configuration from a YAML file and overrides, and report all problems at once.

    config = load_config("configs/toy/quickstart.yaml", ["optim.lr=0.01", "run.name=trial"])

A key that is unknown or given twice is an error. The message suggests a key for an unknown one.
"""

import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from transfg_core.config.sections import Config
from transfg_core.config.yaml_text import (
    describe_problem,
    dump_yaml,
    is_too_deep,
    parse_yaml,
    place_of,
    text_keys,
)
from transfg_core.errors import UserError

TEXT_KEYS = text_keys(Config)
NULL = ("null", "Null", "NULL", "~")
QUOTED = re.compile(r"""(['"]).*\1""", re.DOTALL)


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
        loaded, repeated = read_yaml(Path(path))
        if not isinstance(loaded, dict):
            found = "nothing" if loaded is None else repr(loaded)
            raise UserError(
                f"{path}: expected sections such as `train:`, found {found}; is it the right file?"
            )
        # `train:` whose keys are all commented out is an empty section
        tree = {key: {} if value is None else value for key, value in loaded.items()}
    apply_overrides(tree, overrides)
    return build_config(tree, source, repeated)


def read_yaml(path: Path) -> tuple[Any, list[str]]:
    """The value of a YAML file, and a message for each key that is given twice.

    Raises:
        UserError: the file cannot be read, or is not YAML in UTF-8.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise UserError(
            f"{path}: expected a readable YAML configuration, but reading it failed "
            f"({error.strerror or error}); check the path"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: expected text in UTF-8, found other bytes ({error}); save it as UTF-8"
        ) from error


def apply_overrides(tree: dict[str, Any], overrides: Iterable[str]) -> None:
    """Set `key.sub=value` items in a nested mapping.

    Values are YAML, but a value that must be text is taken as it is, if it is not quoted: a folder
    may be called 2024, and a pattern may hold a colon.

    Raises:
        UserError: an item does not have that form, or a parent of its key is no section.
    """
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals or not all(key.split(".")):
            raise UserError(f"{item!r}: expected key=value, such as optim.lr=0.01")
        if not text.strip():
            raise UserError(
                f"{item!r}: expected a value after `=`, found none; null stands for none"
            )
        text = text.strip()
        if key in TEXT_KEYS and text not in NULL and not QUOTED.fullmatch(text):
            _set_dotted(tree, key, text)
            continue
        value, repeated = parse_yaml(text, f"override {item!r}")
        _refuse_comment(item, text, value)
        if repeated:
            raise UserError(f"override {item!r}: {'; '.join(repeated)}")
        _set_dotted(tree, key, value)


def _refuse_comment(item: str, text: str, value: Any) -> None:
    """Refuse a value that YAML cuts at ` #`, where its comments begin.

    Raises:
        UserError: it does.
    """
    before, mark, _ = text.partition(" #")
    try:
        is_cut = mark and parse_yaml(before, item)[0] == value
    except UserError:  # the mark stands in quotes
        return
    if is_cut:
        key = item.partition("=")[0]
        raise UserError(
            f"override {item!r}: YAML reads ` #` as the start of a comment; put the value into two "
            f"kinds of quotes: {key}='\"{text}\"'"
        )


def build_config(tree: Mapping[str, Any], source: str, problems: Sequence[str] = ()) -> Config:
    """Validate a nested mapping; `source` names it in error messages.

    Raises:
        UserError: a key or value is wrong, or the caller already found `problems`.
    """
    if not isinstance(tree, Mapping) or is_too_deep(tree):
        raise UserError(
            f"{source}: expected sections such as `train:` with keys and values, found "
            f"{reprlib.repr(tree)}"
        )
    errors: list[Any] = []
    try:
        config = Config.model_validate(tree)
        if not problems:
            return config
    except ValidationError as error:
        errors = error.errors(include_url=False)
    except UnicodeEncodeError as error:  # pydantic cannot say so itself
        raise UserError(
            f"{source}: expected Unicode text, found half a surrogate pair in "
            f"{ascii(error.object[max(error.start - 20, 0) : error.end])}; correct this value"
        ) from error
    problems = [*problems, *(describe_problem(item, Config) for item in errors)]
    # conditions between keys are checked only if every key is valid, so try without invalid keys
    try:
        Config.model_validate(
            _without(tree, [place_of(item, Config) for item in errors if item["loc"]])
        )
    except ValidationError as error:
        more = [describe_problem(item, Config) for item in error.errors(include_url=False)]
        problems += [problem for problem in more if problem not in problems]
    lines = list(dict.fromkeys(line for problem in problems for line in problem.split("\n  ")))
    count = f"{len(lines)} problem" + ("s" if len(lines) > 1 else "")
    raise UserError("\n  ".join([f"{source}: {count} in the configuration", *lines]))


def dump_config(config: Config) -> str:
    """The complete configuration as YAML; `load_config` reads an equal one back."""
    return dump_yaml(config.model_dump(mode="json"))


def differing_keys(left: Config, right: Config) -> list[str]:
    """One line `key: left -> right` for each dotted key whose values differ."""
    flat_left, flat_right = flatten(left.model_dump()), flatten(right.model_dump())
    return [
        f"{key}: {flat_left.get(key)!r} -> {flat_right.get(key)!r}"
        for key in dict.fromkeys([*flat_left, *flat_right])
        if flat_left.get(key) != flat_right.get(key)
    ]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings into one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        nested = isinstance(value, Mapping)
        flat |= flatten(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return flat


def _set_dotted(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for depth, part in enumerate(parents):
        section = tree.setdefault(part, {})
        if not isinstance(section, dict):
            raise UserError(f"{key}: {'.'.join(parents[: depth + 1])} is a value, not a section")
        tree = section
    tree[last] = value


def _without(tree: Mapping[str, Any], places: Iterable[tuple[int | str, ...]]) -> dict[str, Any]:
    """The tree without the keys at these places.

    A place deeper than `section.key` removes this key as a whole.
    """
    copy = deepcopy(dict(tree))
    for name, *rest in places:
        section = copy.get(str(name))
        if rest and isinstance(section, dict) and rest[0] in section:
            del section[rest[0]]
        elif not rest or not isinstance(section, dict):
            copy.pop(str(name), None)
    return copy
