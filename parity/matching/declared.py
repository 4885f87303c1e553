"""What the user declares about two models: names and layouts, in a names file or a pair file.

    names:        # pattern of the candidate's name: name of the baseline's
      out/layer\\.(.+): forward/\\1
      encoder\\.layer\\.(\\d+)\\.(.+): blocks.\\1.\\2     # no stage: in every stage
      (.+)\\.query\\.(.+): \\1.qkv.\\2[0/3]             # the first third of the baseline's array
      (.+)\\.qkv\\.(.+): \\1.q.\\2 + \\1.k.\\2 + \\1.v.\\2     # three of the baseline's in a row
    layouts:      # pattern of the candidate's name: its layout (`layouts.py`)
      .*kernel: (in, out)

Patterns are regular expressions for whole names; the first that fits counts. A file without the two
keys holds names only.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from parity.errors import ParityError
from parity.matching.layouts import Layout, check, fused_axis
from parity.matching.named import TAP, Array, split

KEYS = ("names", "layouts")
PART = re.compile(r"(.+)\[(\d)/(\d)\]")
JOIN = " + "


@dataclass(frozen=True)
class Declared:
    """The user's patterns: names of the candidate -> of the baseline, and layouts."""

    names: Mapping[str, str] = field(default_factory=dict)
    layouts: Mapping[str, str] = field(default_factory=dict)
    strict: bool = True  # a pattern that fits no tap is an error; not for the pair of `parity run`

    def __post_init__(self) -> None:
        for pattern, name in self.layouts.items():
            check(name, pattern)

    def alias(self, name: str) -> tuple[str, str] | None:
        """The pattern that fits a name of the candidate, and the new name; None if none fits.

        A pattern may also fit a tap without its stage. What a module reads is not fused or split
        with its output.
        """
        found = first_fitting(name, self.names)
        parts = TAP.fullmatch(name)
        if found or not parts:
            return found
        inner = first_fitting(parts.group(2), self.names)
        if not inner:
            return None
        pattern, new = inner
        if parts.group(1).endswith("inputs/") and (JOIN in new or PART.fullmatch(new)):
            return None
        return pattern, JOIN.join(parts.group(1) + each for each in new.split(JOIN))

    def layout(self, name: str) -> Layout | None:
        """The declared layout of one of the candidate's names; None if there is none."""
        pattern = self.layout_pattern(name)
        return Layout(self.layouts[pattern]) if pattern is not None else None

    def layout_pattern(self, name: str) -> str | None:
        """The pattern of `layouts` that fits a name, with or without its stage."""
        parts = TAP.fullmatch(name)
        for text in (name, *([parts.group(2)] if parts else [])):
            found = first_fitting(text, self.layouts, expand=False)
            if found:
                return found[0]
        return None


def read_declared(path: Path | str) -> Declared:
    """The names file.

    Raises:
        ParityError: the file is missing or is not of this form.
    """
    import yaml  # here: a side's environment may lack it

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ParityError(f"{path}: expected a YAML file of tap names: {error}") from error
    if not isinstance(content, dict):
        raise ParityError(f"{path}: expected lines `pattern: replacement`, both text")
    new_form = any(isinstance(content.get(key), dict) for key in KEYS)
    tables = content if new_form else {"names": content}
    unknown = [key for key in tables if key not in KEYS]
    if unknown:
        raise ParityError(f"{path}: expected the keys {', '.join(KEYS)}, found {unknown[0]!r}")
    for table in tables.values():
        if not isinstance(table, dict) or not all(
            isinstance(text, str) for pair in table.items() for text in pair
        ):
            raise ParityError(f"{path}: expected lines `pattern: replacement`, both text")
    try:
        return Declared(tables.get("names", {}), tables.get("layouts", {}))
    except ParityError as error:
        raise ParityError(f"{path}: {error}") from error


def first_fitting(
    name: str, patterns: Mapping[str, str], expand: bool = True
) -> tuple[str, str] | None:
    """The first pattern that fits the whole name, and its replacement; None if none fits.

    Raises:
        ParityError: a pattern or its replacement is wrong.
    """
    for pattern, replacement in patterns.items():
        try:
            found = re.fullmatch(pattern, name)
            if found:
                return pattern, found.expand(replacement) if expand else replacement
        except (re.error, IndexError) as error:
            raise ParityError(f"names: {pattern}: {replacement}: {error}") from error
    return None


def in_short(tap: str) -> str:
    """The stage of several taps, once: `forward/A + forward/B` is `forward/A + B`."""
    return tap.replace(JOIN + split(tap)[0], JOIN)


def joined(tap: str) -> tuple[str, ...]:
    """The taps that a tap `forward/A + B` is made of."""
    stage, paths = split(tap)
    return tuple(stage + path for path in paths.split(JOIN))


def with_parts(arrays: Mapping[str, Array], wanted: Iterable[str]) -> dict[str, Array]:
    """The baseline's arrays with those split or joined that the candidate has otherwise.

    Args:
        wanted: the candidate's names after the patterns: `NAME[0/3]` asks for a third of an array,
            `A + B + C` for three in a row.

    Raises:
        ParityError: an array does not exist or cannot be split.
    """
    found = dict(arrays)
    for name in wanted:
        part = PART.fullmatch(name)
        sources = [part.group(1)] if part else name.split(JOIN)
        if name in arrays or not (part or len(sources) > 1):
            continue
        missing = [source for source in sources if source not in arrays]
        if missing:
            raise ParityError(f"names: {name}: the baseline has no {missing[0]}; mend the pattern")
        for source in sources:
            found.pop(source, None)
        values = [arrays[source] for source in sources]
        found[name] = part_of(name)(*values) if part else join(*values)
    return found


def join(*values: Array) -> Array:
    """Arrays in a row, as query, key and value are in one."""
    return np.concatenate(values, fused_axis(values[0]))


def part_of(name: str) -> Callable[[Array], Array]:
    """The function that takes the part of an array that `NAME[0/3]` asks for."""
    found = PART.fullmatch(name)
    assert found
    index, count = int(found.group(2)), int(found.group(3))

    def take(value: Array) -> Array:
        axis = fused_axis(value)
        if not 0 <= index < count or value.ndim == 0 or value.shape[axis] % count:
            raise ParityError(
                f"names: {name}: cannot take part {index} of {count} (counted from 0) of shape "
                f"{value.shape}; mend the pattern"
            )
        return np.split(value, count, axis)[index]

    return take
