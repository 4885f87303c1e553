"""Read and write a configuration as YAML, and describe its problems in words.

Scalars follow YAML 1.2. PyYAML follows 1.1, where `no` is False, `3e-2` is a string and 1:30 is a
number. A key that is given twice is a problem.
"""

import difflib
import re
import reprlib
from collections.abc import Mapping
from datetime import date
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

import yaml
from pydantic import BaseModel

from transfg_core.errors import UserError


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2 booleans and numbers; it collects keys that are given twice."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.repeated: list[str] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[Any, int] = {}  # key -> line
        for key_node, _ in node.value:
            line = key_node.start_mark.line + 1
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, list | dict | set):
                raise yaml.constructor.ConstructorError(
                    None, None, f"expected a word as key, found {key!r}", key_node.start_mark
                )
            if key in lines:
                self.repeated.append(f"{key}: given twice, in lines {lines[key]} and {line}")
            lines[key] = line
        return super().construct_mapping(node, deep)


# Replace PyYAML's rules for booleans and numbers by those of the YAML 1.2 core schema.
_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, regexp) for tag, regexp in resolvers if not tag.endswith((":bool", ":float", ":int"))
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+\.?[0-9]*)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
    ("float", r"^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$", "-+."),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes each string that YAML 1.1 or 1.2 would read as another type."""


_Dumper.yaml_implicit_resolvers = {
    first: [
        *_Loader.yaml_implicit_resolvers.get(first, ()),
        *yaml.SafeLoader.yaml_implicit_resolvers.get(first, ()),
    ]
    for first in _Loader.yaml_implicit_resolvers.keys() | yaml.SafeLoader.yaml_implicit_resolvers
}


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))  # 010 is ten, not eight


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def parse_yaml(text: str, source: str) -> tuple[Any, list[str]]:
    """The value of a YAML text, and a message for each key that is given twice.

    Raises:
        UserError: the text is not YAML; `source` names it in the message.
    """
    try:
        loader = _Loader(text)
        return loader.get_single_data(), loader.repeated
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # 2020-13-45, [[[[...
        raise UserError(
            f"{source}: not readable as YAML: {' '.join(str(error).split())}"
        ) from error


def is_too_deep(tree: Any) -> bool:
    """Whether lists and tables lie deeper in one another than any sound value (16 levels).

    Python's copying and JSON functions end with a RecursionError on some hundred levels.
    """
    level = [tree]
    for _ in range(16):
        nested = [item for item in level if isinstance(item, Mapping | list)]
        level = [
            value
            for item in nested
            for value in (item.values() if isinstance(item, Mapping) else item)
        ]
        if not level:
            return False
    return True


def dump_yaml(tree: Mapping[str, Any], compact: bool = False) -> str:
    """YAML that `parse_yaml` and a YAML 1.1 reader both read as the same values.

    `compact` writes the innermost lists and sections on one line.
    """
    style = None if compact else False
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, default_flow_style=style)


def describe_problem(item: Any, root: type[BaseModel]) -> str:
    """One pydantic error as `key: what is wrong`; for an unknown key, with a suggestion."""
    place = place_of(item, root)
    key = ".".join(str(part) for part in place if not _is_union_tag(str(part)))
    if item["type"] == "union_tag_invalid":
        context = item["ctx"]
        return f"{key}.name: expected {context['expected_tags']}, found {context['tag']!r}"
    if item["type"] == "extra_forbidden":
        if any("." in str(part) for part in place):
            section, _, rest = key.partition(".")
            return f"{key}: expected a section; write `{section}:` and `{rest}:` below it, indented"
        chosen = item["loc"][1] if place != item["loc"] else None
        return f"{key}: unknown key{_nearest(key, _known_keys(root, chosen))}"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] in ("value_error", "missing"):
        return f"{key}: {message}" if key else message
    found = reprlib.repr(item["input"])
    if item["type"] == "string_type":
        scalar = isinstance(item["input"], int | float | date)
        remedy = "put text into quotes" if scalar else "give a text, or leave the key out"
        return f"{key}: expected text, found {found}; {remedy}"
    return f"{key}: {message[0].lower()}{message[1:]}, found {found}"


def place_of(item: Any, root: type[BaseModel]) -> tuple[int | str, ...]:
    """Where an error is, as keys of the tree.

    Where one of several sections was chosen, pydantic adds its name; this function removes it.
    """
    loc: tuple[int | str, ...] = item["loc"]
    if len(loc) > 1 and loc[1] in _choices(root, str(loc[0])):
        return (loc[0], *loc[2:])
    return loc


def _choices(root: type[BaseModel], field: str) -> dict[str, type[BaseModel]]:
    """Dict: name -> section, for a field that takes one of several sections; else empty."""
    if field not in root.model_fields:
        return {}
    options = get_args(root.model_fields[field].annotation)
    sections = [get_args(option)[0] for option in options if get_args(option)]
    return {
        section.model_fields["name"].default: section
        for section in sections
        if isinstance(section, type) and issubclass(section, BaseModel)
    }


def _is_union_tag(part: str) -> bool:
    return part == "constrained-int" or "[" in part


def _known_keys(
    root: type[BaseModel], chosen: int | str | None = None, prefix: str = ""
) -> list[str]:
    """Every dotted key.

    A field that takes one of several sections gives the keys of the `chosen` one, or of all.
    """
    keys: list[str] = []
    for name, field in root.model_fields.items():
        keys.append(prefix + name)
        choices = _choices(root, name)
        sections = [choices[str(chosen)]] if chosen in choices else list(choices.values())
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            sections = [field.annotation]
        for section in sections:
            keys += _known_keys(section, None, f"{prefix}{name}.")
    return list(dict.fromkeys(keys))


def text_keys(root: type[BaseModel]) -> frozenset[str]:
    """The dotted keys whose value is text of any content, or none."""
    keys = set()
    for name, field in root.model_fields.items():
        sections = list(_choices(root, name).values())
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            sections = [field.annotation]
        keys |= {f"{name}.{key}" for section in sections for key in text_keys(section)}
        options = get_args(field.annotation) or (field.annotation,)
        bare = {get_args(each)[0] if get_origin(each) is Annotated else each for each in options}
        if str in bare and bare <= {str, NoneType}:
            keys.add(name)
    return frozenset(keys)


def _nearest(key: str, known: list[str]) -> str:
    """A suggestion for an unknown key, or the known keys of its section.

    The suggestion has the same last word in another section, else a similar full name, else a
    similar last word.
    """
    by_leaf = {name.rpartition(".")[2]: name for name in reversed(known)}
    own = key.rpartition(".")[2]
    near = [by_leaf[own]] if own in by_leaf else []
    near = near or difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    if not near:
        leaf = difflib.get_close_matches(own, list(by_leaf), n=1, cutoff=0.7)
        near = [by_leaf[leaf[0]]] if leaf else []
    if near:
        return f"; did you mean {near[0]}?"
    section = key.rpartition(".")[0]
    siblings = [name for name in known if name.rpartition(".")[0] == section]
    return f"; known keys: {', '.join(siblings)}" if siblings else ""
