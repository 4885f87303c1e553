"""What a recording started from: digests of arrays, and how two recordings' starts differ.

    facts = array_facts({"conv.weight": weight})  # the manifest's `subject.weights`
    differences(trace.manifest["subject"], other.manifest["subject"])

A digest of each array, with its shape and type, says which parameter is unequal. Formats 1 and 2
hold one digest of all arrays.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from parity.comparison.sketch import Array
from parity.listing import some

ABSENT = "absent"
ARRAYS = ("weights", "inputs")  # parts of a subject that are digests of arrays
DIGITS = 16  # of SHA-256, in hexadecimal
MOST = 5  # differences that a message shows


def digest(arrays: Mapping[str, Array]) -> str:
    """SHA-256 of names, types, shapes and bytes; the order of the names does not matter."""
    state = hashlib.sha256()
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        shape = np.shape(arrays[name])  # in `value` the shape () of a scalar became (1,)
        state.update(f"{name} {value.dtype.str} {shape}\n".encode())
        state.update(value.data if value.size else b"")
    return state.hexdigest()


def array_facts(arrays: Mapping[str, Array]) -> dict[str, dict[str, Any]]:
    """Shape, type and digest of the bytes of each array, by name."""
    facts = {}
    for name, value in arrays.items():
        flat = np.ascontiguousarray(value)
        digits = hashlib.sha256(flat.data if flat.size else b"").hexdigest()[:DIGITS]
        facts[name] = {"shape": list(np.shape(value)), "dtype": flat.dtype.str, "sha256": digits}
    return facts


def malformed(subject: Mapping[str, Any]) -> str:
    """The name of the array whose facts have another form than `array_facts` gives; else empty."""
    for part in ARRAYS:
        facts = subject.get(part)
        if not isinstance(facts, Mapping):
            continue
        for name, fact in facts.items():
            shape = fact.get("shape") if isinstance(fact, Mapping) else None
            if not isinstance(shape, list) or not all(
                isinstance(fact.get(key), str) for key in ("dtype", "sha256")
            ):
                return f"{part}.{name}"
    return ""


def differences(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Phrases about everything in which two subjects differ; empty if nothing does."""
    problems = []
    for part in dict.fromkeys([*first, *other]):
        values = first.get(part, ABSENT), other.get(part, ABSENT)
        if part in ARRAYS and all(isinstance(value, Mapping) for value in values):
            problems += _unequal_arrays(part, *values)
        elif part in ARRAYS and any(isinstance(value, Mapping) for value in values):
            problems.append(
                f"{part}: one trace has digests by name and the other does not; record both with "
                "one version of this program"
            )
        else:
            problems += _unequal_values(part, *values)
    return problems


def _unequal_values(part: str, first: Any, other: Any) -> list[str]:
    facts, other_facts = _flat(first, part), _flat(other, part)
    return [
        f"{key} is {_short(facts.get(key, ABSENT))} in the first and "
        f"{_short(other_facts.get(key, ABSENT))} in the second"
        for key in dict.fromkeys([*facts, *other_facts])
        if facts.get(key, ABSENT) != other_facts.get(key, ABSENT)
    ]


def _unequal_arrays(part: str, first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Unequal arrays of one part, in one phrase.

    Arrays of one name must be equal. Other arrays may have other names in the two traces: equal
    sets of digests are equal arrays.
    """
    problems = [
        f"{name} {_shape(fact)} has {_unlike(fact, other[name])}"
        for name, fact in first.items()
        if name in other and _key(fact) != _key(other[name])
    ]
    equal = sum(name in other and _key(fact) == _key(other[name]) for name, fact in first.items())
    alone = {name: fact for name, fact in first.items() if name not in other}
    unknown = Counter(_key(fact) for name, fact in other.items() if name not in first)
    for name, fact in alone.items():
        if unknown[_key(fact)] > 0:
            unknown[_key(fact)] -= 1
            equal += 1
        else:
            problems.append(f"{name} {_shape(fact)} is only in the first")
    for name, fact in other.items():
        if name not in first and unknown[_key(fact)] > 0:
            unknown[_key(fact)] -= 1
            problems.append(f"{name} {_shape(fact)} is only in the second")
    if not problems:
        return []
    count = f"{part}: {equal} of {max(len(first), len(other))} equal"
    return [f"{count}; {some(problems, MOST, '; ')}"]


def _key(fact: Mapping[str, Any]) -> tuple[str, str, str]:
    return str(fact["shape"]), fact["dtype"], fact["sha256"]


def _shape(fact: Mapping[str, Any]) -> str:
    return str(tuple(fact["shape"]))


def _unlike(fact: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What is unlike in two arrays of one name."""
    if fact["shape"] != other["shape"]:
        return f"the shape {_shape(other)} in the second"
    if fact["dtype"] != other["dtype"]:
        return f"the type {other['dtype']} in the second, not {fact['dtype']}"
    return "other numbers"


def _flat(tree: Any, prefix: str) -> dict[str, Any]:
    if not isinstance(tree, Mapping) or not tree:
        return {prefix: tree}
    return {
        key: value
        for name, branch in tree.items()
        for key, value in _flat(branch, f"{prefix}.{name}").items()
    }


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}…"
