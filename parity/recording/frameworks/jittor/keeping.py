"""What a pass can change in a Jittor model: attributes of modules, and arrays."""

from collections.abc import Collection
from typing import Any

import numpy as np

from parity.recording.keeping import Kept, PutBack


def keep(jittor: Any, model: Any, loaded: Collection[int]) -> Kept:
    """All of a model as it is now. `loaded`: ids of arrays whose numbers are loaded afterwards."""

    def save(var: Any) -> PutBack:
        if id(var) in loaded:
            return lambda: None
        numbers, stopped = np.array(var.numpy()), var.is_stop_grad()

        def put_back() -> None:
            var.assign(jittor.array(numbers))
            if stopped and not var.is_stop_grad():
                var.stop_grad()

        return put_back

    modules = {id(module): (path, module) for path, module in model.named_modules()}
    return Kept(modules.values(), (jittor.Var,), save)
