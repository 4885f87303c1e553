"""Tensors inside tuples, lists and dicts: their places, and the same structure with others."""

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
    values = [item for _, item in items]
    return type(value)(*values) if hasattr(value, "_fields") else type(value)(values)


def _items(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, (tuple, list)) else []


def _mapping(value: Any, items: dict[Any, Any]) -> Any:
    """A dict of the same class; one that cannot be made from its items becomes a plain dict."""
    try:
        return type(value)(**items) if hasattr(value, "to_tuple") else type(value)(items)
    except TypeError:
        return items
