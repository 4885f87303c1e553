"""What a pass can change in a model, kept so that it can be put back.

Beside its weights a module has attributes: a flag that the first call sets, a counter, a list, a
buffer that is not saved. `Kept` copies them, and gives each module its own ones back. Modules and
tensors stay the same objects, so a hook or a closure that holds one of them still works.
"""

import copy
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from types import ModuleType
from typing import Any
from unittest.mock import patch

from parity.listing import some

PutBack = Callable[[], None]


class Kept:
    """The attributes of modules, and the tensors in them, as they are now.

    Args:
        modules: path and module, each module once.
        tensors: the framework's classes of tensors.
        save: tensor -> a function that puts its present numbers back.
        closed: further modules, whose attributes cannot be kept.
    """

    def __init__(
        self,
        modules: Iterable[tuple[str, Any]],
        tensors: tuple[type, ...],
        save: Callable[[Any], PutBack],
        closed: Iterable[Any] = (),
    ) -> None:
        self._modules = list(modules)
        self._tensors, self._save = tensors, save
        self._same = [*(module for _, module in self._modules), *closed]
        self._saved: dict[int, tuple[Any, PutBack]] = {}
        self._own = [dict(vars(module)) for _, module in self._modules]
        self.not_copied: list[str] = []  # attributes that cannot be put back
        self._copies = self._copied(self._own)

    def restore(self) -> None:
        """Put everything back."""
        fresh = self._copied(self._copies)
        for (_, module), own, values in zip(self._modules, self._own, fresh, strict=True):
            vars(module).clear()
            vars(module).update({name: _filled(own[name], values[name]) for name in own})
        for _, put_back in self._saved.values():
            put_back()

    def notes(self) -> list[str]:
        """A note on attributes that cannot be copied."""
        if not self.not_copied:
            return []
        return [
            f"these attributes cannot be copied, so a pass starts with what the one before it has "
            f"left in them: {some(self.not_copied)}"
        ]

    def _copied(self, fields: list[dict[str, Any]]) -> list[dict[str, Any]]:
        memo: dict[int, Any] = {id(module): module for module in self._same}
        failed = []

        def same(tensor: Any, memo: Any) -> Any:
            return self.save(tensor)

        with ExitStack() as stack:
            for kind in self._tensors:
                stack.enter_context(patch.object(kind, "__deepcopy__", same, create=True))
            made = []
            for (path, _), values in zip(self._modules, fields, strict=True):
                made.append(dict(values))
                for name, value in values.items():
                    if isinstance(value, ModuleType):
                        continue
                    try:
                        made[-1][name] = copy.deepcopy(value, memo)
                    except Exception:  # whatever a class of the user's raises: it has no copy
                        failed.append(f"{path}.{name}".lstrip("."))
        self.not_copied = self.not_copied or failed
        return made

    def save(self, tensor: Any) -> Any:
        """Save a tensor's numbers; returns the tensor itself, as the copy of it."""
        if id(tensor) not in self._saved:
            self._saved[id(tensor)] = (tensor, self._save(tensor))
        return tensor


def _filled(own: Any, value: Any) -> Any:
    """The module's own dict or list with the kept items; any other value as it was kept."""
    if isinstance(own, dict):
        own.clear()
        own.update(value)
        return own
    if isinstance(own, list):
        own[:] = value
        return own
    return value
