"""`replace`: other modules in a model, to record behind a known cause."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from parity.errors import ParityError
from parity.recording.adapter import Adapter


def replace_modules(
    adapter: Adapter, model: Any, wanted: Mapping[str, Callable[[Any], Any]]
) -> list[str]:
    """Replace modules; return their paths.

    A key is a class name, or a regular expression for a whole path. The function gets the module
    and returns the one to use.

    Raises:
        ParityError: a key fits no module, or names the model itself.
    """
    done = []
    for key, make in wanted.items():
        modules = adapter.modules(model)
        fitting = [m for m in modules if m.class_name == key]
        fitting = fitting or [m for m in modules if m.path and re.fullmatch(key, m.path)]
        if not fitting:
            names = ", ".join(sorted({m.class_name for m in modules}))
            raise ParityError(
                f"replace: {key!r} is no class name and fits no path of a module; classes here: "
                f"{names}"
            )
        for module in fitting:
            if not module.path:
                raise ParityError(f"replace: {key!r} is the model itself; change its builder")
            adapter.replace(model, module.path, make(module.native))
            done.append(module.path)
    return done
