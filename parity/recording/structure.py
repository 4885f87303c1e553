"""Tensors inside tuples, lists, dicts and dataclasses: their places, and the same with others."""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

IsTensor = Callable[[Any], bool]


class Slot:
    """The place of a tensor in a structure without its tensors."""

    def __init__(self, number: int) -> None:
        self.number = number


def leaves(value: Any, is_tensor: IsTensor, place: str = "") -> list[tuple[str, Any]]:
    """Every tensor with its place: `` for one tensor, else `.0`, `.key`, `.1.key`, in order."""
    if is_tensor(value):
        return [(place, value)]
    return [
        leaf for key, item in _items(value) for leaf in leaves(item, is_tensor, f"{place}.{key}")
    ]


def rebuild(value: Any, is_tensor: IsTensor, change: Callable[[Any], Any]) -> Any:
    """The same structure with `change(tensor)` in place of each tensor."""
    if is_tensor(value):
        return change(value)
    items = [(key, rebuild(item, is_tensor, change)) for key, item in _items(value)]
    if not items or all(
        new is old for (_, new), (_, old) in zip(items, _items(value), strict=True)
    ):
        return value
    if isinstance(value, Mapping):
        return _mapping(value, dict(items))
    if not isinstance(value, (tuple, list)):
        made = copy.copy(value)
        for key, item in items:
            object.__setattr__(made, key, item)  # it may be frozen
        return made
    values = [item for _, item in items]
    return type(value)(*values) if hasattr(value, "_fields") else type(value)(values)


def _items(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, (tuple, list)):
        return list(enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return [(name, getattr(value, name)) for name in names if hasattr(value, name)]
    return []


def _mapping(value: Any, items: dict[Any, Any]) -> Any:
    """A dict of the same class; one that cannot be made from its items becomes a plain dict."""
    try:
        return type(value)(**items) if hasattr(value, "to_tuple") else type(value)(items)
    except TypeError:
        return items
